"""CDPruner: relevance, kernel and greedy choice, by hand, by determinants and against a slow literal version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.proofs import mixed
from engine.small import answer, small_llava
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import cdpruner as literal

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods import Embeddings, Geometry, get_method
from atp_eval.methods.cdpruner import cdpruner, conditional_kernel, greedy_map, min_max, text_relevance

LLAVA = Geometry(32, (24, 24))


def drawn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(*rows: Any) -> torch.Tensor:
    """[1, ...]"""
    return torch.tensor(rows, dtype=torch.float64)[None]


def point(hidden: torch.Tensor, grid: tuple[int, int], **given: Any) -> Any:
    kept = torch.ones(hidden.shape[:2], dtype=torch.bool)
    return SimpleNamespace(layer=0, grid=grid, hidden=hidden, kept=kept, **given)


def test_relevance_is_scaled_to_each_image_with_epsilon_in_the_numerator() -> None:
    found = min_max(torch.tensor([[1.0, 2.0, 5.0], [-30.0, 10.0, -10.0]], dtype=torch.float64))
    expected = [[1e-6 / 4, (1 + 1e-6) / 4, (4 + 1e-6) / 4], [1e-6 / 40, (40 + 1e-6) / 40, (20 + 1e-6) / 40]]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-15)


def test_where_all_are_equally_relevant_diversity_alone_decides() -> None:
    """The authors' code divides by zero. Three features in a plane: 0 first, then that at a right angle to it."""
    assert min_max(torch.full((1, 3), 0.7)).tolist() == [[1.0, 1.0, 1.0]]
    features = tensor([1.0, 0.0], [0.8, 0.6], [0.0, 2.0])
    assert cdpruner(features, torch.full((1, 3), 0.7), 2).tolist() == [[0, 2]]


def test_the_kernel_is_relevance_times_cosine_times_relevance() -> None:
    found = conditional_kernel(tensor([3.0, 0.0], [1.0, 1.0], [0.0, 0.0]), tensor(*[1.0, 2.0, 3.0]))
    q, half = [5e-7, 0.5 + 5e-7, 1 + 5e-7], 0.5**0.5
    expected = tensor([q[0] ** 2, q[0] * q[1] * half, 0.0], [q[0] * q[1] * half, q[1] ** 2, 0.0], [0.0, 0.0, 0.0])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


def test_each_next_token_has_the_most_left_after_those_chosen() -> None:
    """4 first. Left are 3 - 2**2/4 = 2, 1.6 and 1.4 - 1/4 = 1.15, so 2; then 1.6 - 1/2 = 1.1 and 1.15 - 0, so 1.15.

    The 0 is what the last has in common with the second, 0.5, less what both have in common with the first, 2 * 1 / 4.
    """
    kernel = tensor([4.0, 2.0, 0.0, 1.0], [2.0, 3.0, 1.0, 0.5], [0.0, 1.0, 1.6, 0.0], [1.0, 0.5, 0.0, 1.4])
    assert greedy_map(kernel, 4).tolist() == [[0, 1, 3, 2]]


def test_the_choice_is_the_one_with_the_largest_determinant() -> None:
    kernel = conditional_kernel(drawn(3, 7, 9, seed=1), drawn(3, 7, seed=2))
    picks = greedy_map(kernel, 7).tolist()
    for sample in range(3):
        for turn in range(7):
            before = picks[sample][:turn]
            sizes = {j: kernel[sample][[*before, j]][:, [*before, j]].det().item() for j in range(7) if j not in before}
            assert picks[sample][turn] == max(sizes, key=lambda j: sizes[j])


def test_of_equal_tokens_the_earlier_comes_first() -> None:
    assert greedy_map(torch.eye(4, dtype=torch.float64)[None], 4).tolist() == [[0, 1, 2, 3]]
    assert greedy_map(torch.zeros(1, 3, 3), 3).tolist() == [[0, 1, 2]]


def test_tokens_within_the_span_of_the_chosen_come_last_by_relevance_and_never_twice() -> None:
    """1, 3 and 4 point as 0 does. The authors' code divides by the root of 0 here."""
    q = torch.tensor([2.0, 0.25, 0.5, 0.5, 1.0], dtype=torch.float64)
    same = torch.ones(5, 5, dtype=torch.float64)
    same[2], same[:, 2], same[2, 2] = 0, 0, 1
    assert greedy_map((q[:, None] * same * q)[None], 5).tolist() == [[0, 2, 4, 3, 1]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_more_tokens_than_dimensions_are_different_ones(dtype: torch.dtype) -> None:
    """200 tokens on a plane: after two, whatever is left is rounding."""
    picks = cdpruner(drawn(2, 200, 2, seed=3).to(dtype), drawn(2, 200, seed=4).to(dtype), 200)
    assert picks.sort(1).values.tolist() == [list(range(200))] * 2


def test_none_one_and_all_tokens() -> None:
    x, relevance = drawn(2, 5, 8, seed=5), drawn(2, 5, seed=6)
    assert cdpruner(x, relevance, 0).shape == (2, 0)
    assert cdpruner(x, relevance, 1)[:, 0].tolist() == relevance.argmax(1).tolist()  # q**2 alone
    assert cdpruner(x[:, :1], relevance[:, :1], 1).tolist() == [[0], [0]]
    assert cdpruner(x, relevance, 5).sort(1).values.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_half_precision_is_compared_in_single() -> None:
    x, relevance = drawn(1, 6, 8, seed=7).half(), drawn(1, 6, seed=8).half()
    assert conditional_kernel(x, relevance).dtype == torch.float32
    assert torch.equal(conditional_kernel(x, relevance), conditional_kernel(x.float(), relevance.float()))


def test_relevance_by_the_llms_embeddings_is_the_mean_cosine_with_the_text() -> None:
    """Text of one and of two tokens; what is no text counts nothing."""
    visual = torch.tensor([[[2.0, 0.0], [0.0, 3.0], [0.0, 0.0]]] * 2, dtype=torch.float64)
    text = torch.tensor([[[9.0, 9.0], [5.0, 0.0]], [[0.0, 1.0], [3.0, 4.0]]], dtype=torch.float64)
    found = text_relevance(Embeddings(visual, text, torch.tensor([[False, True], [True, True]])))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.3, 0.9, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("spec", "kept"), [
    ("cdpruner:keep=1", 2), ("cdpruner:keep=1,rule=paper", 1), ("cdpruner:keep=1,relevance=llm", 0),
])  # fmt: skip
def test_clips_cosine_is_negated_in_the_code_and_not_in_the_paper(spec: str, kept: int) -> None:
    text = Embeddings(tensor([1.0, 0.0], [0.0, 1.0], [0.6, 0.8]), tensor([2.0, 0.0]), torch.tensor([[True]]))
    shown = point(text.visual, (1, 3), relevance=tensor(*[0.2, 0.3, -0.1]), embeddings=text)
    decision = get_method(spec).solve(Geometry(4, (1, 3))).decide(shown)
    assert torch.where(decision.keep[0])[0].tolist() == [kept]


def test_what_is_needed_depends_on_the_relevance() -> None:
    by_clip, by_llm = get_method("cdpruner@9:clip=some/where"), get_method("cdpruner@9:relevance=llm")
    assert by_clip.needs == {"vision", "relevance"} and by_clip.text_tower == "some/where"
    assert by_llm.needs == {"embeddings"} and by_llm.text_tower is None


def test_the_engine_hands_over_clips_relevance() -> None:
    """In a batch with a prompt that has no picture; without relevance the error says what to do."""
    model, batch = small_llava(), mixed()
    relevance = drawn(3, 36, seed=1)
    with torch.no_grad():
        features = torch.stack(list(model.get_image_features(pixel_values=batch.pixels).pooler_output))
    picks = cdpruner(features, -relevance, 7).sort(1).values.tolist()
    with prune(model, "cdpruner@7", relevance=relevance) as pruned:
        answer(model, batch)
        kept = [trace.keep_at(0).nonzero()[0].tolist() for trace in pruned.traces]
        assert kept == [picks[0], [], picks[1], picks[2]]
    with pytest.raises(UserError, match="relevance=llm"), prune(model, "cdpruner@7"):
        answer(model, batch)


def test_everything_is_kept_without_a_look() -> None:
    decision = get_method("cdpruner@6").solve(Geometry(4, (2, 3))).decide(point(drawn(2, 6, 3, seed=1), (2, 3)))
    assert decision.keep.all() and decision.keep.shape == (2, 6) and decision.count == 6


@pytest.mark.parametrize(("spec", "solved"), [
    ("cdpruner@144", "cdpruner:keep=144"),
    ("cdpruner:keep=64,clip=openai/clip-vit-large-patch14-336", "cdpruner:keep=64"),
    ("cdpruner@64:clip=some/folder.of-mine,rule=paper", "cdpruner:keep=64,clip=some/folder.of-mine,rule=paper"),
    ("cdpruner@576:relevance=llm", "cdpruner:keep=576,relevance=llm"),
])  # fmt: skip
def test_the_budget_is_the_count(spec: str, solved: str) -> None:
    method = get_method(spec).solve(LLAVA)
    assert str(method) == solved and method.counts() == (method.keep,) and method.prune_layers == (0,)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("spec", "message"), [
    ("cdpruner", "cdpruner needs a budget: write cdpruner@144"),
    ("cdpruner@9:relevance=clap", "unknown value of relevance for cdpruner 'clap'. Did you mean: clip?"),
    ("cdpruner@9:relevance=llm,rule=paper", "clip= and rule= are for relevance=clip, not relevance=llm"),
    ("cdpruner@9:relevance=llm,clip=some/where", "clip= and rule= are for relevance=clip, not relevance=llm"),
    ("cdpruner@9:rule=theirs", "unknown value of rule for cdpruner 'theirs'"),
    ("cdpruner@9:clip=", "clip is empty"),
    ("cdpruner:keep=0", "keep=0 leaves nothing"),
    ("cdpruner@9:keep=9", "give a budget (@9) or keep=9, not both"),
    ("cdpruner@577", "an image has only 576 visual tokens"),
    ("cdpruner:keep=577", "keep=577 is out of range"),
])  # fmt: skip
def test_wrong_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(LLAVA)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 8)])
def test_the_method_keeps_what_the_literal_version_names(grid: tuple[int, int]) -> None:
    """By both relevances, in raster order; text of unequal length; the batch's samples as alone."""
    cells = grid[0] * grid[1]
    x, relevance, text = drawn(3, cells, 20, seed=1), drawn(3, cells, seed=2), drawn(3, 6, 20, seed=3)
    is_text = torch.arange(6) >= torch.tensor([[0], [5], [2]])
    for keep in range(1, cells + 1):
        for kind in ("clip", "llm"):
            method = get_method(f"cdpruner:keep={keep},relevance={kind}").solve(Geometry(4, grid))
            given = {"relevance": relevance, "embeddings": Embeddings(x, text, is_text)}
            decision = method.decide(point(x, grid, **given))
            assert decision.count == keep and decision.values is None and decision.order is None
            for i in range(3):
                r = (-relevance[i]).tolist()
                if kind == "llm":
                    r = literal.llm_relevance(x[i].tolist(), text[i][is_text[i]].tolist())
                expected = literal.greedy_map(literal.kernel(x[i].tolist(), r), keep)
                assert torch.where(decision.keep[i])[0].tolist() == sorted(expected)
                one = slice(i, i + 1)
                alone = {"relevance": relevance[one], "embeddings": Embeddings(x[one], text[one], is_text[one])}
                assert torch.equal(method.decide(point(x[one], grid, **alone)).keep[0], decision.keep[i])


@settings(max_examples=30, deadline=None)
@given(batch=st.integers(1, 3), cells=st.integers(1, 14), width=st.integers(2, 16), seed=st.integers(0, 999))
def test_kernel_and_indexes_equal_the_literal_version(batch: int, cells: int, width: int, seed: int) -> None:
    """As long as there are dimensions left; what comes then is rounding, and only its being different is promised."""
    x, relevance = drawn(batch, cells, width, seed=seed), drawn(batch, cells, seed=seed + 1)
    kernel, picks = conditional_kernel(x, relevance), cdpruner(x, relevance, cells)
    assert picks.sort(1).values.tolist() == [list(range(cells))] * batch
    for i in range(batch):
        expected = literal.kernel(x[i].tolist(), relevance[i].tolist())
        torch.testing.assert_close(kernel[i], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-10)
        sure = min(cells, width)
        assert picks[i, :sure].tolist() == literal.greedy_map(expected, sure)
        assert torch.equal(cdpruner(x[i : i + 1], relevance[i : i + 1], sure)[0], picks[i, :sure])


@settings(max_examples=30, deadline=None)
@given(cells=st.integers(1, 12), directions=st.integers(1, 5), seed=st.integers(0, 999), data=st.data())
def test_ties_and_duplicates_equal_the_literal_version(
    cells: int, directions: int, seed: int, data: st.DataObject
) -> None:
    """Copies of a few directions, with relevances that are powers of two, so that nothing is rounded."""
    count, generator = data.draw(st.integers(0, cells)), torch.Generator().manual_seed(seed)
    at = torch.randint(0, directions, (2, cells), generator=generator)
    q = 2.0 ** torch.randint(-3, 1, (2, cells), generator=generator).double()
    kernel = q[:, :, None] * (at[:, :, None] == at[:, None]) * q[:, None]
    assert greedy_map(kernel, count).tolist() == [literal.greedy_map(k.tolist(), count) for k in kernel]


def test_the_choice_never_reads_a_value_on_the_host() -> None:
    """Meta tensors have no values to read."""
    assert cdpruner(torch.empty(2, 9, 4, device="meta"), torch.empty(2, 9, device="meta"), 5).shape == (2, 5)
