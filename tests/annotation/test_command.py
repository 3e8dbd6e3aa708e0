"""`atp-eval annotate` as it is typed: pages, merging, a judge, and every wrong input as one line with the fix."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made import votes
from stub import USAGE, Said, completion, endpoint, vote
from synthetic import FakeMethod, plain_picture, write_run
from typed import call

from atp_eval.annotation.votes import read_votes, write_votes

METHODS = {"upper_bound": FakeMethod(0.9), "fastv@144": FakeMethod(0.4, [(2, 1)])}
PAIR = ("--a", "upper_bound", "--b", "fastv@144")
Typed = tuple[int, str, str]  # exit code, standard output, standard error


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATP_EVAL_CACHE", str(tmp_path / "cache"))
    write_run(tmp_path / "run", methods=METHODS, benchmarks=("gqa", "mmb"), pictures=plain_picture)
    return "run"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return partial(call, monkeypatch, capsys, "annotate")


def test_a_page_is_written_beside_the_run_and_what_was_drawn_is_said(run: str, typed: Any) -> None:
    code, out, _ = typed(run, *PAIR, "-n", "6")
    assert code == 0 and Path("run/annotate.html").exists()
    assert out.startswith("6 samples (gqa 3, mmb 3) of ") and "Both answered 48, " in out
    assert "--merge votes-*.json" in out and "Fewer than" not in out


def test_more_than_there_are_takes_all_and_says_so(run: str, typed: Any) -> None:
    code, out, _ = typed(run, *PAIR, "-n", "5000", "-o", "new/page.html")
    assert code == 0 and Path("new/page.html").exists()
    assert "Fewer than the 5000 asked for: there are no more." in out
    data = json.loads(typed(run, *PAIR, "-n", "5000", "--json")[1])
    assert data["samples"] == sum(pool["eligible"] for pool in data["pools"].values()) < data["asked"] == 5000


def test_benchmarks_can_be_chosen(run: str, typed: Any) -> None:
    data = json.loads(typed(run, *PAIR, "-n", "5", "--benchmark", "mmb", "--json")[1])
    assert list(data["pools"]) == ["mmb"] and data["with_picture"] == data["samples"] == 5


def test_without_pictures_it_is_said(tmp_path: Path, run: str, typed: Any) -> None:
    write_run(tmp_path / "bare", methods=METHODS, benchmarks=("gqa",))
    code, out, _ = typed("bare", *PAIR, "-n", "3")
    assert code == 0 and "The run kept no picture of 3 samples: run again with a larger --keep-images" in out


def test_the_reading_page_has_another_name(run: str, typed: Any) -> None:
    code, out, _ = typed(run, *PAIR, "-n", "3", "--reveal")
    assert code == 0 and "upper_bound" in Path("run/side-by-side.html").read_text()
    assert "--merge" not in out


BAD: list[tuple[tuple[str, ...], str]] = [
    ((), "which run?"),
    (("run",), "--a and --b name the two methods"),
    (("run", "--a", "upper_bound"), "--a and --b name the two methods"),
    (("run", "--a", "upper", "--b", "fastv@144"), "unknown method of the run 'upper'. Did you mean: upper_bound"),
    (("run", "--a", "fastv@144", "--b", "fastv@144"), "are both 'fastv@144'"),
    (("run", *PAIR, "-n", "0"), "-n 0: at least 1"),
    (("run", *PAIR, "--benchmark", "gqaa"), "unknown benchmark of both methods 'gqaa'. Did you mean: gqa"),
    (("nowhere", *PAIR), "nowhere is not a run folder"),
    (("run", *PAIR, "-o", "run/run.json/page.html"), "cannot write run/run.json/page.html"),
    (("run", *PAIR, "-o", "run"), "cannot write run"),
    (("--merge",), "--merge needs files"),
    (("--merge", "nowhere.json"), "cannot read nowhere.json"),
    (("--merge", "run/run.json"), "run/run.json holds no votes"),
    (("--merge", "run", *PAIR), "--merge takes files of votes"),
    (("run", *PAIR, "--reveal", "--judge-url", "http://localhost/v1", "--judge-model", "m"), "cannot go together"),
    (("run", *PAIR, "--judge-url", "http://localhost/v1"), "needs --judge-model"),
    (("run", *PAIR, "--judge-model", "m"), "--judge-model needs --judge-url"),
    (("run", *PAIR, "--max-cost", "3"), "--max-cost needs --judge-url"),
]
URL = ("run", *PAIR, "--judge-model", "m", "--judge-url")
BAD += [
    ((*URL, "localhost:8000"), "give an address such as http://localhost:8000/v1"),
    ((*URL, "ftp://localhost/v1"), "give an address such as"),
    ((*URL, "http://"), "give an address such as"),
    ((*URL, "http://me:secret@localhost/v1"), "put the key into an environment variable"),
    ((*URL, "http://localhost/v1?key=3"), "give an address such as"),
    ((*URL, "http://localhost/v1", "--judge-key-env", "NO_SUCH_KEY"), "variable NO_SUCH_KEY holds no key"),
    ((*URL, "http://localhost/v1", "--price-in", "1"), "both --price-in and --price-out"),
    ((*URL, "http://localhost/v1", "--price-in", "-1", "--price-out", "1"), "--price-in -1: USD"),
    ((*URL, "http://localhost/v1", "--price-in", "nan", "--price-out", "1"), "--price-in nan: USD"),
    ((*URL, "http://localhost/v1", "--max-cost", "3"), "--max-cost needs --price-in"),
    ((*URL, "http://localhost/v1", "--price-in", "1", "--price-out", "1", "--max-cost", "0"), "--max-cost 0: above 0"),
    ((*URL, "http://localhost/v1", "--workers", "0"), "--workers 0"),
    ((*URL, "http://localhost/v1", "--timeout", "0"), "--timeout 0"),
    ((*URL, "http://localhost/v1", "--judge-body", "{"), "--judge-body '{' is no JSON"),
    ((*URL, "http://localhost/v1", "--judge-body", '{"stream": true}'), "without messages, model, stream"),
    ((*URL, "http://localhost/v1", "-o", "votes.csv"), "ends in .json"),
]


@pytest.mark.parametrize(("args", "message"), BAD)
def test_bad_input_is_one_line_with_the_fix(args: tuple[str, ...], message: str, run: str, typed: Any) -> None:
    code, out, err = typed(*args)
    assert (code, out) == (2, "")
    assert message in err and err.count("\n") == 1 and "Traceback" not in err
    assert "secret" not in err


def test_merging_prints_tables_or_json_and_writes_a_file(run: str, typed: Any) -> None:
    for i, name in enumerate(("Ada", "Bo")):
        given = {f"gqa/{k}": ("left", "right", "tie")[(k + i * (k % 4 == 0)) % 3] for k in range(24)}
        write_votes(votes(name, given), Path(f"{name}.json"))  # type: ignore[arg-type]
    code, out, _ = typed("--merge", "Ada.json", "Bo.json", "-o", "preference.csv")
    assert code == 0 and "48 votes by 2 people on 24 samples" in " ".join(out.split())
    assert "Krippendorff's alpha" in out and Path("preference.csv").read_text().startswith("who,quantity,value")
    data = json.loads(typed("--merge", "Ada.json", "Bo.json", "--json")[1])
    assert data["pooled"]["votes"] == 48 and len(data["pairs"]) == 1
    code, out, err = typed("--merge", "Ada.json", "Ada.json")
    assert (code, out) == (2, "") and "are both votes of 'Ada'" in err


def test_a_judge_votes_and_merges(run: str, typed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with endpoint(lambda n, body: vote("1" if n % 2 else "tie", USAGE)) as stub:
        judge = (*PAIR, "-n", "4", "--judge-url", stub.url, "--judge-model", "m", "--judge-key-env", "MY_KEY")
        code, out, _ = typed(run, *judge, "--price-in", "2.5", "--price-out", "10", "--workers", "1")
        assert code == 0 and "8 asked now, 0.0240 USD spent now." in out
        found = read_votes(Path("run/votes-judge.json"))
        assert len(found.votes) == 4 and found.judge is not None and found.judge.cost == pytest.approx(0.024)
        data = json.loads(typed(run, *judge, "--json")[1])
        assert (data["asked"], data["spent"], data["stopped"], len(stub.asked)) == (0, None, False, 8)
    texts = [p.read_text() for p in Path().rglob("*.json")]
    assert not any("sk-secret" in text for text in texts)
    code, out, _ = typed("--merge", "run/votes-judge.json")
    assert code == 0 and "4 votes by 1 judge on 4 samples" in " ".join(out.split())


def test_a_stop_at_max_cost_writes_the_votes_so_far_and_fails(run: str, typed: Any) -> None:
    with endpoint(lambda n, body: vote("tie", USAGE)) as stub:
        judge = (*PAIR, "-n", "4", "--judge-url", stub.url, "--judge-model", "m", "--workers", "1")
        code, _, err = typed(run, *judge, "--price-in", "1000", "--price-out", "0", "--max-cost", "5")
    assert code == 1 and "stopped before --max-cost 5 is passed, with votes on 2 of 4 samples" in err
    assert len(stub.asked) == 5 and len(read_votes(Path("run/votes-judge.json")).votes) == 2


def test_a_judge_that_never_makes_sense_fails(run: str, typed: Any) -> None:
    with endpoint(lambda n, body: completion("<html>hello</html>", USAGE)) as stub:
        code, out, err = typed(run, *PAIR, "-n", "2", "--judge-url", stub.url, "--judge-model", "m")
    assert code == 1 and "no vote that can be read: an answer that is no JSON" in err and "Traceback" not in out + err
    with endpoint(lambda n, body: Said(b'{"error": "no such model"}', 404)) as stub:
        code, _, err = typed(run, *PAIR, "-n", "2", "--judge-url", stub.url, "--judge-model", "mm")
    assert code == 2 and "refuses model 'mm': HTTP 404" in err and err.count("\n") == 1


def test_votes_that_cannot_be_written_are_not_paid_for_twice(run: str, typed: Any) -> None:
    with endpoint(lambda n, body: vote("tie", USAGE)) as stub:
        judge = (run, *PAIR, "-n", "2", "--judge-url", stub.url, "--judge-model", "m")
        code, _, err = typed(*judge, "-o", "run/run.json/votes.json")
        assert code == 2 and "nothing is asked twice" in err and len(stub.asked) == 4
        assert typed(*judge)[0] == 0 and len(stub.asked) == 4


def test_help_has_examples(typed: Any) -> None:
    code, out, _ = typed("--help")
    assert code == 0 and "atp-eval annotate --merge votes-*.json" in " ".join(out.split())
