"""Measuring on a GPU, by stand-ins; and what is said of the machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atp_eval.bench import machine, stages
from atp_eval.bench.records import Cell
from atp_eval.bench.stages import Clock, survey, timed
from atp_eval.bench.subject import make_subject
from atp_eval.methods import get_method
from bench.small import small_plan


class FakeEvent:
    """A stamp on a device's time line: each is 10 ms after the one before."""

    now = 0.0
    waited = 0
    streams: set[str] = set()  # noqa: RUF012

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self, stream: str) -> None:
        FakeEvent.streams.add(stream)
        FakeEvent.now += 10.0
        self.at = FakeEvent.now

    def synchronize(self) -> None:
        FakeEvent.waited += 1

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.at - self.at


def test_on_a_gpu_stages_are_between_events_and_no_stamp_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make_subject(small_plan(tmp_path, methods=["grid@9"]))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"of {device}")
    clock = Clock(torch.device("cuda:1"))
    stamp = clock.stamp()
    assert FakeEvent.waited == 0 and clock.name == "CUDA events" and isinstance(stamp, FakeEvent)
    found = timed(subject, get_method("grid@9"), Cell(method="x", batch=1, attention="sdpa", side=6, new=3), clock)
    assert found == pytest.approx((0.01, 0.01, 0.01)) and FakeEvent.waited == 3 and FakeEvent.streams == {"of cuda:1"}


def test_on_a_gpu_the_peak_is_the_devices_own(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 160)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: said.append("reset"))
    with stages.peak_bytes(torch.device("cuda")) as peak:
        pass
    assert peak() == 60 and said == ["reset"]
    with stages.peak_bytes(torch.device("mps")) as peak:
        pass
    assert peak() is None


def test_operations_of_flash_attention_are_counted_with_another_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = make_subject(small_plan(tmp_path, methods=["grid@9"]))
    cell = Cell(method="grid@9", batch=1, attention="eager", side=6, new=3)
    subject.set_attention("eager")
    plain = survey(subject, get_method("grid@9"), cell)
    monkeypatch.setattr(stages, "COUNTABLE", {"eager": "sdpa"})
    seen: list[str] = []
    own = stages.once
    text = subject.model.config.text_config

    def watched(*args: Any) -> Any:
        seen.append(text._attn_implementation)
        return own(*args)

    monkeypatch.setattr(stages, "once", watched)
    found = survey(subject, get_method("grid@9"), cell)
    assert seen == ["sdpa", "eager"] and text._attn_implementation == "eager"
    assert found.prefill_flops == plain.prefill_flops and found.peak_bytes


def test_a_gpus_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80 * 10**9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (70 * 10**9, 80 * 10**9))
    assert machine.machine_name(gpu) == "a card"
    assert (machine.total_memory(gpu), machine.free_memory(gpu)) == (80 * 10**9, 70 * 10**9)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1500\n")
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    cpu = torch.device("cpu")
    assert machine.total_memory(cpu) == 5000 and machine.free_memory(cpu) == 3500
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.total_memory(cpu) > 10**8
