"""Shares of a run: together all of its questions, none twice, and only what the run folder lacks."""

from __future__ import annotations

from pathlib import Path

import pytest
from bundles import small_bundle

from atp_eval.config import make_config
from atp_eval.parts import PARTS, gather
from atp_eval.records import SAMPLES, read_samples
from atp_eval.shards.asking import Asking
from atp_eval.shares import WHOLE, Share
from shards.made import METHODS, ROWS, settings


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


def test_a_part_of_another_protocol_is_refused(tmp_path: Path) -> None:
    config = make_config(**settings(tmp_path, tmp_path / "run"))
    part = tmp_path / "run" / PARTS / "p"
    Asking(config, small_bundle(), say=print).answer(["gqa", "mme"], Share(0, 12), part)
    other = Asking(config, small_bundle(seed=1), say=print)
    with pytest.raises(Exception, match="another protocol: weights differ"):
        other.answer(["gqa", "mme"], Share(1, 12), part)
