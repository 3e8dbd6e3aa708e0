"""Measuring a small model on the CPU: tokens, operations and memory by hand, and fits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atp_eval.bench import stages
from atp_eval.bench.plan import Wanted
from atp_eval.bench.planning import make_plan
from atp_eval.bench.records import Cell, read_bench
from atp_eval.bench.run import run_bench
from atp_eval.bench.stages import Allocated, Clock, decode_flops, survey, timed
from atp_eval.bench.subject import make_subject, weight_bytes
from atp_eval.cost.flops import decode, prefill, projector, vision_tower
from atp_eval.methods import get_method
from bench.small import small_plan


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


def test_memory_is_without_the_prompts_which_the_first_survey_makes(tmp_path: Path) -> None:
    subject = make_subject(small_plan(tmp_path, methods=["grid@9"]))
    cell = Cell(method="upper_bound", batch=2, attention="sdpa", side=6, new=4)
    first, again = (survey(subject, get_method("upper_bound"), cell).peak_bytes for _ in range(2))
    assert first == again


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
