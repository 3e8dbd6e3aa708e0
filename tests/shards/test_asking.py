"""Shares of a run: together all of its questions, none twice, and only what the run folder lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import small_bundle

from atp_eval import batch_size
from atp_eval.answering import Answerer, Prepared
from atp_eval.config import make_config
from atp_eval.parts import PARTS, gather
from atp_eval.records import SAMPLES, read_samples
from atp_eval.shards.asking import Asking
from atp_eval.shares import WHOLE, Share
from shards.made import LIMIT, METHODS, ROWS, settings


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_every_batch_is_in_one_share(of: int) -> None:
    assert [sum(Share(number, of).has(batch) for number in range(of)) for batch in range(20)] == [1] * 20
    assert all(WHOLE.has(batch) for batch in range(20))


def rows(folder: Path) -> list[tuple[str, str, int]]:
    """What is recorded, row by row."""
    paths = sorted(folder.glob(f"*/*/{SAMPLES}"))
    return [(r.method, r.benchmark, r.doc_id) for path in paths for r in read_samples(path)]


def test_shares_are_all_of_a_run_and_leave_out_what_is_recorded(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", list[int]()
    config = make_config(**settings(tmp_path, run))
    asking = Asking(config, small_bundle(), say=print, progress=moved.append)
    assert asking.total == ROWS
    parts = [run / PARTS / f"part-{number}" for number in range(3)]
    for number, part in enumerate(parts):
        asking.answer(["gqa", "mme"], Share(number, 3), part)
    found = [rows(part) for part in parts]
    assert all(found) and sum(moved) == ROWS
    everything = sorted(row for some in found for row in some)
    assert len(set(everything)) == len(everything) == ROWS
    for some in found:  # whole batches with all methods
        assert {(b, d) for m, b, d in some if m == METHODS[0]} == {(b, d) for m, b, d in some if m == METHODS[1]}

    gather(run)
    assert sorted(rows(run)) == everything
    path = next(run.glob(f"fastv*/gqa/{SAMPLES}"))
    lost = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lost[:-2]))
    asking.answer(["gqa", "mme"], WHOLE, run / PARTS / "again")
    assert len(rows(run / PARTS / "again")) == 2
    gather(run)
    assert sorted(rows(run)) == everything


def test_what_is_there_counts_once_for_all_shares(tmp_path: Path) -> None:
    run, moved = tmp_path / "run", list[int]()
    config = make_config(**settings(tmp_path, run))
    Asking(config, small_bundle(), say=print).answer(["gqa", "mme"], Share(0, 2), run / PARTS / "first")
    gather(run)
    for number in range(3):
        asking = Asking(config, small_bundle(), say=print, progress=moved.append)
        asking.answer(["gqa", "mme"], Share(number, 3), run / PARTS / f"part-{number}")
    assert sum(moved) == ROWS


def test_a_benchmark_is_added_without_answering_the_others_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then a method, which answers all; with two processes each time, whose batches are the same."""
    run, asked, answer = tmp_path / "run", list[tuple[str, str]](), Answerer._answer_batch

    def watched(self: Answerer, batch: Prepared) -> None:
        asked.extend((method, x.ask.name) for method in batch.methods for x in batch.loaded)
        answer(self, batch)

    monkeypatch.setattr(Answerer, "_answer_batch", watched)
    given = settings(tmp_path, run)
    for tasks, more in ((["gqa"], []), (["gqa", "mme"], []), (["gqa", "mme"], ["grid@18"])):
        config = make_config(**{**given, "tasks": tasks, "methods": [*METHODS, *more]})
        both = [Asking(config, small_bundle(), say=print) for _ in range(2)]
        for number, asking in enumerate(both):
            asking.answer(tasks, Share(number, 2), run / PARTS / f"part-{number}")
        gather(run)
    everything = [(m, b, i) for m in sorted([*METHODS, "grid@18"]) for b in ("gqa", "mme") for i in range(LIMIT)]
    assert sorted(rows(run)) == everything
    assert len(asked) == len(everything)  # nothing twice


def test_processes_say_and_take_the_batch_size_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size, "fitting", lambda bundle, processes: 12 // processes)
    config = make_config(**{**settings(tmp_path, tmp_path / "run"), "batch_size": "auto"})
    said: list[str] = []
    found = [Asking(config, small_bundle(), say=said.append, processes=n) for n in (3, 1)]
    assert [asking.answerer.batch_size for asking in found] == [4, 4]
    assert said == ["4 questions a batch, as fit in the memory that is free"] * 2


def test_a_part_of_another_protocol_is_refused(tmp_path: Path) -> None:
    config = make_config(**settings(tmp_path, tmp_path / "run"))
    part = tmp_path / "run" / PARTS / "p"
    Asking(config, small_bundle(), say=print).answer(["gqa", "mme"], Share(0, 12), part)
    other = Asking(config, small_bundle(seed=1), say=print)
    with pytest.raises(Exception, match="another protocol: weights differ"):
        other.answer(["gqa", "mme"], Share(1, 12), part)
