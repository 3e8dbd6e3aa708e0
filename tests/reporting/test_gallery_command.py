"""`atp-eval gallery`: what it writes, and what it says of wrong input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import typed
from synthetic import METHODS, plain_picture, write_run

from atp_eval.records import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "one"
    return write_run(folder, benchmarks=("gqa", "mme"), pictures=plain_picture, keep_images=8)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `atp-eval gallery ARGS`; exit code, standard output and standard error."""
    return partial(typed.call, monkeypatch, capsys, "gallery")


def test_the_page(call: Any, run: Run, tmp_path: Path) -> None:
    code, out, _ = call(run.path, "-o", tmp_path / "g.html", "--samples", 10, "--benchmark", "mme")
    assert code == 0 and "10 samples, 8 with a picture, 4 methods" in out
    assert str(tmp_path / "g.html") in out and (tmp_path / "g.html").exists()
    code, out, _ = call(run.path, "--json")
    told = json.loads(out)
    assert told["samples"] == 48 and told["methods"] == list(METHODS) and told["files"] is None
    assert Path(told["gallery"]) == run.path / "gallery.html" and told["bytes"] == Path(told["gallery"]).stat().st_size


def test_a_run_without_pictures_says_so(call: Any, tmp_path: Path) -> None:
    bare = write_run(tmp_path / "run", benchmarks=["gqa"], documents=4)
    code, out, _ = call(bare.path)
    assert code == 0 and "the run kept no pictures (atp-eval run --keep-images)" in out
    code, out, err = call(bare.path, "--figure4")
    assert (code, out) == (2, "") and "no picture was kept, so there is nothing to draw on" in err


def test_the_figure(call: Any, run: Run, tmp_path: Path) -> None:
    code, out, _ = call(run.path, "--figure4", "-o", tmp_path / "new" / "kept.pdf", "--samples", 3, "--json")
    told = json.loads(out)
    assert code == 0 and told["method"] == "fastv@144" and len(told["docs"]) == 3
    assert told["files"] == [str(tmp_path / "new" / f"kept.{kind}") for kind in ("pdf", "png", "csv")]
    assert all(Path(path).exists() for path in told["files"])
    assert "drawn at random among those kept" in told["caption"]
    named = ("--docs", "mme:2,gqa:1", "--method", "grid@144", "--layers", "0,3")
    code, out, _ = call(run.path, "--figure4", "-o", tmp_path / "kept", *named, "--json")
    told = json.loads(out)
    assert told["docs"] == ["mme:2", "gqa:1"] and "at random" not in told["caption"]
    assert "layer 0: 144, layer 3: 144" in told["caption"]


BAD = [
    (["--samples", "0"], "--samples 0: at least 1"),
    (["--samples", "-3"], "--samples -3: at least 1"),
    (["--benchmark", "gqq"], "unknown benchmark of this run 'gqq'. Did you mean: gqa?"),
    (["--benchmark", ","], "--benchmark ',' names none. Leave it out for all."),
    (["--method", "grid@144"], "--method goes with --figure4"),
    (["--docs", "gqa:1"], "--docs goes with --figure4"),
    (["--layers", "1"], "--layers goes with --figure4"),
    (["--figure4", "--method", "fastvv"], "unknown method of this run 'fastvv'. Did you mean: fastv@144?"),
    (["--figure4", "--docs", "gqa"], "--docs 'gqa': write benchmark:number, as in gqa:12,pope:3"),
    (["--figure4", "--docs", "gqa:-1"], "--docs 'gqa:-1': write benchmark:number"),
    (["--figure4", "--docs", ","], "--docs ',' names none"),
    (["--figure4", "--docs", "gqa:1", "--samples", "2"], "--docs gqa:1 says which samples; leave out --samples"),
    (["--figure4", "--docs", "gqa:400"], "gqa:400: no method has answered it. gqa has documents 0 to 23."),
    (["--figure4", "--docs", "gqa:99999999999999999999"], "write benchmark:number"),
    (["--figure4", "--docs", "gqq:1"], "unknown benchmark of this run 'gqq'. Did you mean: gqa?"),
    (["--figure4", "--docs", "gqa:20"], "the run kept no picture of gqa:20"),
    (["--figure4", "--layers", "two"], "--layers 'two': write layers as numbers, as in 1,3,6"),
    (["--figure4", "--layers", ","], "--layers ',': write layers as numbers"),
    (["--figure4", "--layers", "99"], "--layers 99: this model has layers 0 to 7"),
    (["--figure4", "--method", "upper_bound"], "upper_bound prunes none of these samples"),
    (["-o", "{file}/page.html"], "Choose another file with --output"),
    (["--figure4", "-o", "{file}/figure"], "Choose another name with --output"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_one_line_with_the_fix(call: Any, run: Run, tmp_path: Path, args: list[str], message: str) -> None:
    (tmp_path / "file").write_text("")
    code, out, err = call(run.path, *(a.replace("{file}", str(tmp_path / "file")) for a in args))
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_no_run_and_other_protocols_are_refused(call: Any, run: Run, tmp_path: Path) -> None:
    code, _, err = call(tmp_path / "nowhere")
    assert code == 2 and "nowhere is not a run folder" in err
    other = write_run(tmp_path / "other", benchmarks=["gqa"], documents=4, protocol={"prompt": "vicuna_v1"})
    for extra in ([], ["--figure4"]):
        code, _, err = call(run.path, other.path, *extra)
        assert code == 2 and "these runs follow different protocols: prompt differ" in err
    code, _, _ = call(run.path, other.path, "--force", "-o", tmp_path / "both.html")
    assert code == 0


def test_help_shows_examples(call: Any) -> None:
    code, out, _ = call("--help")
    assert code == 0 and "--figure4" in out and "gqa:12,pope:3" in out
