"""Measuring a small model on the CPU: tokens, operations and memory by hand, fits, rounds that resume, and a GPU's
paths with stand-ins."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atp_eval.bench import machine, run, stages
from atp_eval.bench.plan import Wanted
from atp_eval.bench.planning import make_plan
from atp_eval.bench.records import BENCH, MEASURED, Cell, read_bench
from atp_eval.bench.run import run_bench
from atp_eval.bench.stages import Allocated, Clock, decode_flops, survey, timed
from atp_eval.bench.subject import Subject, make_subject, weight_bytes
from atp_eval.cost.flops import decode, prefill, projector, vision_tower
from atp_eval.errors import TaskFailure, UserError
from atp_eval.methods import get_method
from bench.small import small_plan


@pytest.fixture(autouse=True)
def quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peak is not measured for seconds."""
    monkeypatch.setattr(machine, "SIDES", {"cpu": 64})
    monkeypatch.setattr(machine, "BYTES", 2**16)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MEASURED).read_text().splitlines()]


# ------------------------------------------------------------------ one cell


def test_operations_are_those_of_the_closed_form(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, methods=["grid@9"], news=[6])
    subject = make_subject(plan)
    cell = Cell(method="upper_bound", batch=2, attention="sdpa", side=6, new=6)
    with torch.inference_mode():
        found = survey(subject, get_method("upper_bound"), cell)
    geometry, lengths = subject.geometry, [36 + 12] * 8
    assert found.vision_flops == 2 * (vision_tower(geometry) + projector(geometry))
    assert found.prefill_flops == 2 * prefill(geometry, lengths).total
    assert found.decode_flops == 2 * decode(geometry, lengths, 6)  # of which three tokens were written
    assert found.tokens == (36.0,) * 8 and found.averages == (36.0, 36.0) and found.text == 12


def test_steps_that_grow_evenly_are_added_up() -> None:
    assert decode_flops([10, 12], 4) == 10 + 12 + 14 + 16
    assert decode_flops([10], 1) == 10 and decode_flops([], 0) == 0


def test_pruning_shows_in_tokens_operations_and_memory(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, methods=["grid:layer=0,keep=4"])
    subject = make_subject(plan)
    full, cut = (
        survey(subject, get_method(name), Cell(method=name, batch=1, attention="sdpa", side=6, new=4))
        for name in ("upper_bound", "grid:layer=0,keep=4")
    )
    assert cut.tokens == (4.0,) * 8 and cut.prefill_flops < full.prefill_flops / 2
    assert cut.vision_flops == full.vision_flops
    assert cut.peak_bytes is not None and full.peak_bytes is not None and cut.peak_bytes < full.peak_bytes


@pytest.mark.parametrize("new", [1, 5])
def test_exactly_so_many_tokens_are_written_and_a_stamp_lies_after_the_first(new: int, tmp_path: Path) -> None:
    subject = make_subject(small_plan(tmp_path, methods=["grid@9"]))
    seen: list[int] = []
    sample = subject.sample(6, 2)
    features, _ = stages.encode(subject.model, sample.pixels)
    stages.write(subject.model, sample, features, new, seen.append)
    assert seen == list(range(new))
    taken = timed(
        subject,
        get_method("grid@9"),
        Cell(method="x", batch=2, attention="sdpa", side=6, new=new),
        Clock(subject.device),
    )
    assert min(taken.vision, taken.prefill) > 0 and taken.decode >= 0


@pytest.mark.parametrize("side", [3, 6, 12])
def test_the_grid_is_whatever_it_is_set_to(side: int, tmp_path: Path) -> None:
    subject = make_subject(small_plan(tmp_path, methods=["grid@9"]))
    subject.set_side(12)
    subject.set_side(side)
    sample = subject.sample(side, 1)
    assert sample.pixels.shape[-1] == 8 * side and subject.geometry.cells == side * side
    assert int((sample.ids == subject.model.config.image_token_id).sum()) == side * side
    features, _ = stages.encode(subject.model, sample.pixels)
    assert features.shape[1] == side * side


def test_the_same_prompts_and_weights_every_time(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, methods=["grid@9"])
    one, two = make_subject(plan), make_subject(plan)
    assert torch.equal(one.sample(6, 3).ids, two.sample(6, 3).ids)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert (one.sample(6, 1).mask == 1).all() and one.model.generation_config.eos_token_id is None


def test_weights_that_a_pass_reads_leave_out_the_table_of_words(tmp_path: Path) -> None:
    model = make_subject(small_plan(tmp_path, methods=["grid@9"])).model
    vision, language = weight_bytes(model)
    table = model.model.language_model.embed_tokens.weight
    whole = sum(p.numel() * p.element_size() for p in model.parameters())
    assert vision + language == whole - table.numel() * table.element_size()


def test_allocations_are_followed_to_their_end() -> None:
    kept = torch.ones(1000)  # was there before
    with Allocated() as found:
        a = kept * 2
        b = a.view(10, 100) + 1  # a view is no new memory
        assert found.live == found.peak == 8000
        del a
        assert found.live == 4000
        kept.add_(1)
        assert found.live == 4000 and found.peak == 8000
        del b
    assert found.live == 0 and found.peak == 8000


# ------------------------------------------------------------------ ATP without training


@pytest.mark.parametrize("batch", [1, 4])
def test_untrained_modules_keep_the_budgets_tokens(batch: int, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, methods=["atp@18"], batches=[batch], rounds=1)
    bench, (_, atp) = read_bench(run_bench(plan, tmp_path / "bench"))
    assert atp.survey is not None and len(atp.survey.averages) == batch
    assert sum(atp.survey.averages) / batch == pytest.approx(18, abs=1)
    assert bench.weights == "random"


def test_the_embedded_model_is_measured_with_its_own_weights(tmp_path: Path) -> None:
    plan = make_plan(Wanted(methods=["atp@144"], rounds=1, news=[2], device="cpu"))
    bench, (upper, atp) = read_bench(run_bench(plan, tmp_path / "bench"))
    assert len(bench.weights) == 64 and upper.survey is not None and atp.survey is not None
    assert "tiny-144" in atp.survey.solved and 100 < atp.survey.averages[0] < 190


# ------------------------------------------------------------------ rounds


def test_rounds_take_turns_and_a_stopped_bench_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path, methods=["grid@9", "fastv@9"], rounds=3)
    asked: list[str] = []
    plain = run.timed

    def dying(subject: Subject, method: Any, cell: Cell, clock: Clock) -> Any:
        asked.append(cell.method)
        if len(asked) == 6:
            raise KeyboardInterrupt
        return plain(subject, method, cell, clock)

    monkeypatch.setattr(run, "timed", dying)
    with pytest.raises(KeyboardInterrupt):
        run_bench(plan, tmp_path / "bench")
    assert asked == ["upper_bound", "grid@9", "fastv@9", "grid@9", "fastv@9", "upper_bound"]
    with (tmp_path / "bench" / MEASURED).open("a") as file:
        file.write('{"cell": 0, "rou')  # killed while writing
    before = lines_of_rounds(tmp_path / "bench")
    said: list[tuple[int, int]] = []
    run_bench(plan, tmp_path / "bench", progress=lambda done, total: said.append((done, total)))
    after = lines(tmp_path / "bench")
    counted = Counter((line["cell"], line["round"]) for line in after if "round" in line)
    assert counted == Counter({(cell, number): 1 for cell in range(3) for number in range(3)})
    assert after[: len(before)] == before and len(before) == 8  # three surveys, five runs
    assert said[-1] == (12, 12)
    assert Counter("survey" in line for line in after)[True] == 3


def lines_of_rounds(folder: Path) -> list[dict[str, Any]]:
    """Whole lines."""
    return [json.loads(x) for x in (folder / MEASURED).read_text().splitlines(keepends=True) if x.endswith("\n")]


def test_a_finished_bench_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path, methods=["grid@9"], rounds=1)
    run_bench(plan, tmp_path / "bench")
    monkeypatch.setattr(run, "make_subject", lambda plan: pytest.fail("it was made again"))
    run_bench(plan, tmp_path / "bench")


def test_the_machines_limits_are_its_best_of_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([5.0, 9.0])
    monkeypatch.setattr(machine, "matmul_peak", lambda device, dtype: next(speeds))
    monkeypatch.setattr(machine, "bandwidth", lambda device: 7.0)
    found = read_bench(run_bench(small_plan(tmp_path, methods=["grid@9"], rounds=1), tmp_path / "bench"))[0].machine
    assert (found.flops, found.bandwidth) == (9.0, 7.0)


def test_another_bench_and_another_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_bench(small_plan(tmp_path, methods=["grid@9"], rounds=1), tmp_path / "bench")
    other = small_plan(tmp_path, methods=["grid@9"], rounds=2)
    with pytest.raises(UserError, match="other settings"):
        run_bench(other, tmp_path / "bench")
    run_bench(other, tmp_path / "bench", resume=False)
    assert len(read_bench(tmp_path / "bench")[1][0].rounds) == 2
    monkeypatch.setattr(run, "machine_name", lambda device: "elsewhere")
    with pytest.raises(UserError, match="this is elsewhere"):
        run_bench(other, tmp_path / "bench")


def test_a_cell_that_runs_out_of_memory_is_marked_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = run.survey

    def full(subject: Subject, method: Any, cell: Cell) -> Any:
        if cell.method == "grid@9":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(subject, method, cell)

    monkeypatch.setattr(run, "survey", full)
    plan = small_plan(tmp_path, methods=["grid@9", "fastv@9"], rounds=1)
    found = read_bench(run_bench(plan, tmp_path / "bench"))[1]
    assert [bool(m.rounds) for m in found] == [True, False, True] and "out of memory" in str(found[1].not_run)
    monkeypatch.setattr(run, "survey", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(TaskFailure, match="nothing could be measured: it ran out of memory"):
        run_bench(plan, tmp_path / "none")


def test_other_errors_are_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "survey", lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        run_bench(small_plan(tmp_path, methods=["grid@9"]), tmp_path / "bench")


def test_two_processes_do_not_write_one_folder(tmp_path: Path) -> None:
    from filelock import FileLock

    (tmp_path / "bench").mkdir()
    with FileLock(tmp_path / "bench" / ".lock"), pytest.raises(UserError, match="in use"):
        run_bench(small_plan(tmp_path, methods=["grid@9"]), tmp_path / "bench")
    assert not (tmp_path / "bench" / BENCH).exists()


# ------------------------------------------------------------------ a GPU, by stand-ins


class FakeEvent:
    """A stamp on a device's time line: each is 10 ms after the one before."""

    now = 0.0
    waited = 0

    def __init__(self, enable_timing: bool = False) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.now += 10.0
        self.at = FakeEvent.now

    def synchronize(self) -> None:
        FakeEvent.waited += 1

    def elapsed_time(self, end: FakeEvent) -> float:
        return end.at - self.at


def test_on_a_gpu_stages_are_between_events_and_no_stamp_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = make_subject(small_plan(tmp_path, methods=["grid@9"]))
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    clock = Clock(torch.device("cuda"))
    stamp = clock.stamp()
    assert FakeEvent.waited == 0 and clock.name == "CUDA events" and isinstance(stamp, FakeEvent)
    found = timed(subject, get_method("grid@9"), Cell(method="x", batch=1, attention="sdpa", side=6, new=3), clock)
    assert found == pytest.approx((0.01, 0.01, 0.01)) and FakeEvent.waited == 3


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
