"""Cells on their way between a run folder and its parts: none is lost, doubled or mixed up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from locks import held
from synthetic import FakeMethod, plain_picture, write_run

from atp_eval import parts
from atp_eval.errors import UserError
from atp_eval.parts import PARTS, gather, lend, take_back
from atp_eval.records import IMAGES, RESULT, SAMPLES, read_run, slug

METHODS = {"upper_bound": FakeMethod(0.9), "grid@144:layer=0": FakeMethod(0.5), "fastv@144": FakeMethod(0.6)}
CELLS = [(method, "gqa") for method in METHODS]


def answered(path: Path, methods: list[str], **options: object) -> Path:
    """A run folder of some methods on gqa and pope."""
    some = {name: METHODS[name] for name in methods}
    write_run(path, methods=some, benchmarks=("gqa", "pope"), documents=4, **options)  # type: ignore[arg-type]
    return path


def found(run: Path) -> dict[str, str]:
    """The recorded answers of each cell of a folder, by its path."""
    return {str(path.parent.relative_to(run)): path.read_text() for path in sorted(run.glob(f"[!.]*/*/{SAMPLES}"))}


def test_cells_go_to_a_part_and_come_back(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", list(METHODS))
    before, manifest = found(run), (run / "run.json").read_text()
    part = lend(run, "gqa-1", CELLS[1:])
    assert set(found(part)) == {"grid@144_layer-0/gqa", "fastv@144/gqa"}
    assert {**found(part), **found(run)} == before
    assert not found(part).keys() & found(run).keys()
    gather(run)
    assert found(run) == before
    assert (run / "run.json").read_text() == manifest
    assert not (run / PARTS).exists()


def test_a_run_folder_is_made_of_its_parts(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lend(run, "b", CELLS)
    answered(run / PARTS / "a", ["fastv@144"])
    answered(run / PARTS / "b", ["grid@144:layer=0", "upper_bound"], keep_images=2, pictures=plain_picture)
    gather(run)
    opened = read_run(run)
    assert {(r.method, r.benchmark) for r in opened.results()} == {(m, b) for m in METHODS for b in ("gqa", "pope")}
    assert sorted(path.name for path in (run / IMAGES).iterdir()) == ["gqa-0.webp", "pope-0.webp"]
    assert len(opened.samples()) == 3 * 2 * 4


def told(path: Path, **fields: object) -> None:
    """Let a folder's run.json say something else."""
    file = path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_run_json_says_how_was_answered_last_and_what_there_is_of_all(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", ["fastv@144"])
    old = {"batch_size": 16, "workers": "2 processes"}
    told(run, config=old, device="cpu", git_commit="old", created="then", seconds=5.0)
    lend(run, "z", ())  # which nobody comes to: what it says is of before
    part = answered(run / PARTS / "p", ["upper_bound"])
    told(part, config={"batch_size": 4}, device="cuda", git_commit="new", created="now", seconds=1.0, finished=False)
    gather(run)
    found = read_run(run).manifest
    assert (found.config["batch_size"], found.device, found.git_commit) == (4, "cuda", "new")
    assert found.config["workers"] == "2 processes"
    assert list(found.methods) == ["fastv@144", "upper_bound"] and list(found.benchmarks) == ["gqa", "pope"]
    assert (found.created, found.seconds, found.finished) == ("then", 5.0, False)


@pytest.mark.parametrize("finished", ["run", "part"])
def test_of_two_the_finished_cell_stays(tmp_path: Path, finished: str) -> None:
    run = answered(tmp_path / "run", ["fastv@144"])
    part = answered(run / PARTS / "p", ["fastv@144"], seed=1)
    (({"run": part, "part": run}[finished]) / "fastv@144" / "gqa" / RESULT).unlink()
    kept = found({"run": run, "part": part}[finished])["fastv@144/gqa"]
    take_back(run, part)
    assert found(run)["fastv@144/gqa"] == kept
    assert (run / "fastv@144" / "gqa" / RESULT).exists()


@pytest.mark.parametrize("torn", ["", '{"schema_version":1,"meth'])
def test_of_two_unfinished_cells_the_rows_of_both_stay_each_document_once(tmp_path: Path, torn: str) -> None:
    run = answered(tmp_path / "run", ["fastv@144"])
    part = answered(run / PARTS / "p", ["fastv@144"], seed=1)
    for folder, documents in ((run, slice(0, 2)), (part, slice(1, 4))):
        cell = folder / "fastv@144" / "gqa"
        (cell / RESULT).unlink()
        (cell / SAMPLES).write_text("".join((cell / SAMPLES).read_text().splitlines(keepends=True)[documents]) + torn)
    mine, theirs = (found(folder)["fastv@144/gqa"].splitlines() for folder in (run, part))
    take_back(run, part)
    rows = found(run)["fastv@144/gqa"].splitlines()
    assert rows == [*mine[:2], *theirs[1:3]]  # document 1 is the run folder's
    assert [json.loads(row)["doc_id"] for row in rows] == [0, 1, 2, 3]
    assert not part.exists()


def test_rows_are_added_to_a_finished_cell_that_a_greater_limit_asks_more_of(tmp_path: Path) -> None:
    run = answered(tmp_path / "run", ["fastv@144"])
    part = answered(run / PARTS / "p", ["fastv@144"], seed=1)
    cell = part / "fastv@144" / "gqa"
    (cell / RESULT).unlink()
    (cell / SAMPLES).write_text((cell / SAMPLES).read_text().replace('"doc_id":', '"doc_id":1'))
    before, new = found(run)["fastv@144/gqa"], found(part)["fastv@144/gqa"]
    take_back(run, part)
    assert found(run)["fastv@144/gqa"] == before + new
    assert (run / "fastv@144" / "gqa" / RESULT).exists()


def test_a_part_that_is_being_written_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PATIENCE", 0.1)
    run = answered(tmp_path / "run", ["upper_bound"])
    part = answered(run / PARTS / "p", ["fastv@144"])
    (part / ".owner").write_text("4242")
    with held(part / ".lock"), pytest.raises(UserError, match="in use by process 4242"):
        gather(run)
    assert found(part) and slug("fastv@144") not in str(found(run))


def test_a_part_in_which_nothing_was_answered_leaves_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    lend(run, "gqa-1", CELLS)
    gather(run)
    assert list(run.iterdir()) == []
