"""Questions are those of lmms-eval, and batches are put together once for a run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from bundles import small_bundle
from real_schemas import build

from atp_eval import driver, rounds
from atp_eval.answering import Answerer
from atp_eval.asks import Ask, batches
from atp_eval.backend import Answering
from atp_eval.benchmarks import BENCHMARKS, MAIN, get_benchmark
from atp_eval.config import make_config
from atp_eval.methods import get_method
from atp_eval.questions import Questions
from atp_eval.rounds import FOLDER, agreed, asker, plan_batches
from atp_eval.run import rounds as rounds_of


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATP_EVAL_DATA", str(build(folder / "data")))
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(folder / "datasets"))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        yield


def view() -> Answering:
    bundle = small_bundle()
    return Answering(Answerer(bundle, {"grid@18": get_method("grid@18").solve(bundle.geometry)}), "grid@18")


def shown(ask: Ask) -> tuple[Any, ...]:
    """What an Ask says."""
    return ask.benchmark, ask.doc_id, ask.text, ask.options, ask.info, [image.tobytes() for image in ask.load()]


@pytest.mark.parametrize(("name", "suite"), [(n, "mini") for n in MAIN] + [(n, "real") for n in BENCHMARKS])
def test_questions_are_those_that_lmms_eval_asks(name: str, suite: Any) -> None:
    task = driver.load_tasks([get_benchmark(name)], suite)[name]
    limit = 12
    with driver.quiet():
        task.build_all_requests(limit=limit, rank=0, world_size=1)
        theirs = task.instances
        mine = Questions(here := view(), task, limit)
        again = [mine._request(i, doc) for i, doc in zip(range(len(mine)), mine._documents, strict=False)]
        assert [vars(a) for a in again] == [vars(b) for b in theirs]
        assert [shown(a) for a in mine.asks(range(len(mine)))] == [shown(a) for a in here.asks(theirs)]
        last = len(mine) - 1
        assert [a.doc_id for a in mine.asks([last, 0])] == [last, 0]


NINE = {"gqa": range(9), "mme": range(9)}


def asked() -> dict[str, Questions]:
    tasks = driver.load_tasks([get_benchmark("gqa"), get_benchmark("mme")], "mini")
    return {name: Questions(view(), task, 9) for name, task in tasks.items()}


def test_batches_are_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = asked()
    found = plan_batches(tmp_path, questions, NINE, 4, ["a", "b"])
    asks = [ask for some in questions.values() for ask in some.asks(range(len(some)))]
    assert found == [[(ask.benchmark, ask.doc_id) for ask in batch] for batch in batches(asks, 4)]
    assert sorted(name for batch in found for name in batch) == [(b, i) for b in ("gqa", "mme") for i in range(9)]
    assert [[shown(a) for a in asker(questions)(b)] for b in found] == [[shown(a) for a in b] for b in batches(asks, 4)]

    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))  # what is written down counts
    monkeypatch.setattr(rounds, "batches", lambda asks, size: pytest.fail("put together again"))
    assert plan_batches(tmp_path, questions, NINE, 4, ["a", "b"]) == found[::-1]
    for other in ({"batch_size": 5, "data": ["a", "b"]}, {"batch_size": 4, "data": ["a", "c"]}):
        with pytest.raises(BaseException, match="put together again"):
            plan_batches(tmp_path, questions, NINE, **other)  # type: ignore[arg-type]


def test_only_what_is_missing_gets_into_batches_and_what_was_planned_stays_as_it_was(tmp_path: Path) -> None:
    questions = asked()
    first = plan_batches(tmp_path, questions, {"gqa": [], "mme": [2, 3, 5, 7, 8]}, 4, ["a", "b"])
    assert sorted(name for batch in first for name in batch) == [("mme", i) for i in (2, 3, 5, 7, 8)]
    assert plan_batches(tmp_path, questions, {"gqa": [], "mme": [7]}, 4, ["a", "b"]) == first  # the run goes on
    more = plan_batches(tmp_path, questions, {"gqa": [1, 4], "mme": [0, 7]}, 4, ["a", "b"])  # a method was added
    assert more[: len(first)] == first
    assert sorted(name for batch in more[len(first) :] for name in batch) == [("gqa", 1), ("gqa", 4), ("mme", 0)]
    assert plan_batches(tmp_path, questions, NINE, 4, ["a", "b"])[: len(more)] == more


@pytest.mark.parametrize("damage", [b"", b"[[[0, 1], [1", b"\0" * 40, b"\xff\xfe"])
def test_a_damaged_plan_is_made_again(damage: bytes, tmp_path: Path) -> None:
    questions = asked()
    found = plan_batches(tmp_path, questions, NINE, 4, ["a", "b"])
    (path,) = (tmp_path / FOLDER).iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert plan_batches(tmp_path, questions, NINE, 4, ["a", "b"]) == found
    assert path.read_bytes() == whole


def test_processes_agree_on_the_batch_size_of_the_first_also_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert [agreed(tmp_path, size) for size in (16, 8, 32)] == [16, 16, 16]
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["agreed"]


def test_one_of_many_processes_at_once_decides(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = set(threads.map(lambda size: agreed(tmp_path, size), range(1, 200)))
    assert len(found) == 1


def test_the_embedded_suite_is_one_round_and_every_real_benchmark_one_of_its_own() -> None:
    config = make_config(tasks=["gqa", "pope", "gqa"])
    assert rounds_of(config) == [["gqa", "pope"]]
    assert rounds_of(config.model_copy(update={"suite": "real"})) == [["gqa"], ["pope"]]
