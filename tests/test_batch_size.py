"""`--batch-size auto`: what a question takes in closed form, what fits, and that a run goes on with what it began."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from bundles import small_bundle
from synthetic import write_run

from atp_eval import batch_size
from atp_eval.batch_size import (
    CACHE,
    CPU_MOST,
    CPU_SHARE,
    GPU_MOST,
    GPU_SHARE,
    earlier,
    fitting,
    largest,
    question_bytes,
    settled,
)
from atp_eval.config import RunConfig
from atp_eval.cost import KNOWN
from atp_eval.records import MANIFEST

SEVEN = KNOWN["llava-hf/llava-1.5-7b-hf"]


@pytest.mark.parametrize(("room", "size"), [(-5, 1), (0, 1), (19, 1), (20, 2), (79, 4), (80, 8), (10**9, 16)])
def test_the_largest_power_of_two_that_fits(room: float, size: int) -> None:
    assert largest(room, 10, 16) == size


def test_a_question_takes_by_hand() -> None:
    """7B in bf16: 576 + 512 tokens of KV over 32 layers are 570 MB; a layer at work, tower and scores the rest."""
    length, kv = 1088, 1088 * 32 * 2 * 4096 * 2
    layer = length * (4 * 4096 + 2 * 4096 + 2 * 4096 + 3 * 11008) * 2
    tower = 577 * (6 * 1024 + 2 * 4096) * 2 + 576 * 4096 * 2 * 2
    assert question_bytes(SEVEN, 2) == kv + layer + tower + 3 * 4 * 32064


class Memory(NamedTuple):
    available: int


@pytest.mark.parametrize(("free", "size"), [(0, 1), (CACHE, 1), (10**12, CPU_MOST)])
def test_on_a_cpu_by_the_memory_that_is_free(free: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(free))
    assert fitting(small_bundle()) == size


def test_processes_of_one_machine_divide_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = small_bundle()
    each = question_bytes(bundle.geometry, bundle.dtype.itemsize)
    room = CACHE + 8 * each / CPU_SHARE + 1  # that of one process with eight questions
    for processes in (1, 2, 4):
        monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(int(room * processes)))  # noqa: B023
        assert fitting(bundle, processes) == 8
    assert fitting(bundle, 8) == 1


@pytest.mark.parametrize(("gigabytes", "size"), [(8, 4), (63, 32), (10**4, GPU_MOST)])
def test_on_a_gpu_by_the_memory_that_is_free(gigabytes: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gigabytes * 10**9, 0))
    bundle = replace(small_bundle(), device=torch.device("cuda"), geometry=SEVEN, dtype=torch.bfloat16)
    assert fitting(bundle) == size
    assert size * question_bytes(SEVEN, 2) <= GPU_SHARE * (gigabytes * 10**9 - CACHE)


def test_a_run_goes_on_with_the_batches_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    config = RunConfig(batch_size="auto", output=tmp_path / "run", suite="mini")
    monkeypatch.setattr(batch_size, "fitting", lambda bundle, processes: 8)
    assert earlier(tmp_path / "run") is None
    assert settled(config, small_bundle(), said.append).batch_size == 8
    assert settled(config, small_bundle(), said.append, agree=lambda size: size // 4).batch_size == 2
    file = write_run(tmp_path / "run").path / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"config": {"batch_size": 4}}))
    assert settled(config, small_bundle(), said.append).batch_size == 4
    assert said == [
        "8 questions a batch, as fit in the memory that is free",
        "2 questions a batch, as fit in the memory that is free",
        "4 questions a batch, as this run had before",
    ]
    given = RunConfig(batch_size=2, output=tmp_path / "run")
    assert settled(given, small_bundle(), said.append) is given and len(said) == 3


@pytest.mark.parametrize("value", ["many", 2.5, True, -1, ""])
def test_other_values_are_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        RunConfig(batch_size=value)
