"""`atp-eval run --workers` and `--ray`: the answers are those of one process, whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import small_checkpoint
from rich.console import Console

from atp_eval.config import RunConfig, make_config
from atp_eval.errors import UserError
from atp_eval.parts import PARTS
from atp_eval.records import IMAGES, RESULT, read_run
from atp_eval.run import evaluate
from atp_eval.shards import crews, together
from atp_eval.shards.run import evaluate_together, scoring, shares
from atp_eval.shards.start import start
from atp_eval.shards.together import Workers
from atp_eval.shards.units import ShareUnit, Unit, UnitWorker
from shards.made import FORKS, LIMIT, METHODS, ROWS, answers, kill_when_it_answers, settings


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("workers") / "model")


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one process, with one thread as workers have."""
    folder, threads = tmp_path_factory.mktemp("alone") / "run", torch.get_num_threads()
    torch.set_num_threads(1)
    assert not evaluate(make_config(**settings(model, folder)), Console(quiet=True)).failures
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers have a thread each, however many cores there are. They are forked, which is quicker; tests of sweeps have
    them start afresh, as they do."""
    monkeypatch.setattr("atp_eval.workers.processes.multiprocessing.get_context", lambda kind: FORKS)
    monkeypatch.setattr(crews, "share", lambda cores, workers: 1)
    monkeypatch.setattr(crews, "cores", lambda: 2)
    monkeypatch.setattr("atp_eval.shards.run.EACH", 1)
    yield


@pytest.mark.parametrize("workers", [Workers(2), Workers(2, "local")], ids=["processes", "ray"])
def test_workers_answer_as_one_process_does_though_one_is_killed(
    model: Path, alone: Path, tmp_path: Path, workers: Workers, one_core: None
) -> None:
    config, killed = make_config(**settings(model, tmp_path / "run")), list[int]()
    killer = threading.Thread(target=kill_when_it_answers, args=(tmp_path / "run", "*", killed), daemon=True)
    killer.start()
    console = Console(record=True, width=200, force_terminal=False, file=(tmp_path / "said").open("w"))
    assert not evaluate_together(config, workers, console).failures
    killer.join(1)
    said = console.export_text()
    assert killed and "a worker died of gqa and mme, share" in said and "tried again" in said

    run, one = read_run(tmp_path / "run"), read_run(alone)
    assert len(answers(alone)) == ROWS
    assert answers(run.path) == answers(alone)
    assert run.results() == one.results()
    assert list(run.manifest.methods.items()) == list(one.manifest.methods.items())
    assert (run.manifest.benchmarks, run.manifest.protocol) == (one.manifest.benchmarks, one.manifest.protocol)
    assert run.manifest.finished and run.manifest.config.pop("workers") == str(workers)
    assert run.manifest.config.keys() == one.manifest.config.keys()
    assert {p.name for p in (run.path / IMAGES).iterdir()} == {p.name for p in (alone / IMAGES).iterdir()}
    assert not (run.path / PARTS).exists()


class Dying(UnitWorker):
    """Dies of every second share."""

    def __call__(self, unit: Unit) -> Any:
        if isinstance(unit, ShareUnit) and unit.share.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(unit)


def test_a_share_that_kills_its_workers_is_named_its_benchmarks_are_not_scored_and_one_process_goes_on(
    model: Path, alone: Path, tmp_path: Path, one_core: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "UnitWorker", Dying)
    monkeypatch.setattr(together, "TRIES", 1)
    monkeypatch.setattr("atp_eval.shards.run.EACH", 2)
    config = make_config(**settings(model, tmp_path / "run"))
    (failure,) = evaluate_together(config, Workers(1), Console(quiet=True)).failures
    assert failure.startswith("gqa and mme, share 2 of 2 failed: 1 workers died of it, the last: killed by SIGKILL")
    run = tmp_path / "run"
    there = answers(run)
    assert 0 < len(there) < ROWS and there.items() <= answers(alone).items()
    assert not list(run.rglob(RESULT)) and not read_run(run).manifest.finished
    assert not evaluate(config, Console(quiet=True)).failures
    assert answers(run) == answers(alone) and read_run(run).results() == read_run(alone).results()


def test_units_hold_all_questions_and_scores_once(model: Path, tmp_path: Path) -> None:
    mini = make_config(**settings(model, tmp_path))
    real = mini.model_copy(update={"suite": "real", "limit": 100})
    for config, rounds, most in ((mini, 1, 2 * LIMIT // 2), (real, 2, 50)):
        for workers in (1, 2, 100):
            found = shares(config, workers)
            of = min(4 * workers, most)
            assert [(u.share.number, u.share.of) for u in found] == [(i, of) for i in range(of)] * rounds
            assert len({u.part for u in found}) == len(found)
            assert {name for u in found for name in u.benchmarks} == {"gqa", "mme"}
            scores = scoring(config, workers)
            cells = [cell for unit in scores for cell in unit.cells]
            assert sorted(cells) == sorted((m, b) for m in METHODS for b in ("gqa", "mme"))
            assert len(scores) == 2 * min(workers, len(METHODS))
            assert all((u.run.methods, u.run.output) == (list(u.methods), u.part) for u in scores)


def test_workers_of_one_machine_know_how_many_they_are(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crews, "Processes", list)
    config = make_config(**settings(model, tmp_path), device="cpu")
    assert [worker.processes for worker in crews.processes(config, 3)] == [3, 3, 3]  # type: ignore[attr-defined]


def test_workers_that_run_elsewhere_find_every_folder(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen(workers: Workers, config: RunConfig) -> None:
        assert (config.output, config.cache_features) == (tmp_path / "run", tmp_path / "cache")
        raise UserError("seen")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("atp_eval.shards.run.crew_of", seen)
    given = make_config(**settings(model, Path("run")), cache_features="cache")
    with pytest.raises(UserError, match="seen"):
        evaluate_together(given, Workers(2), Console(quiet=True))


@pytest.mark.parametrize(
    ("settings_", "options", "said"),
    [
        ({}, {"ray": "yes"}, "--ray yes: write --ray local"),
        ({"device": "mps"}, {"workers": 2}, "--device mps with 2 workers"),
        ({"tasks": ["gqb"]}, {"workers": 2}, "unknown benchmark 'gqb'"),
    ],
)
def test_what_cannot_be_is_refused(
    settings_: dict[str, Any], options: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=said):
        start(make_config(**{**settings(model, tmp_path / "run"), **settings_}), **options)
    assert not list(tmp_path.rglob("samples.jsonl"))
