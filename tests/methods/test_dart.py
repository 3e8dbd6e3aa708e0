"""DART: pivots, their turns and shares; by hand and against a slow literal version."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engine.test_syncs import reads
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import dart as literal

from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method
from atp_eval.methods.dart import DART, cosines, dart, l1_norms
from atp_eval.methods.set_order import set_order

LLAVA = Geometry(32, (24, 24))


def norms(*values: float) -> torch.Tensor:
    """[1, n, 1, 1]: keys of one number, whose norm is its absolute value."""
    return torch.tensor(values, dtype=torch.float64)[None, :, None, None]


def unit(*places: int, width: int = 10) -> torch.Tensor:
    """[1, n, width]: unit vectors; a negative place p is minus the vector of -p - 1."""
    found = torch.zeros(1, len(places), width, dtype=torch.float64)
    for row, place in enumerate(places):
        found[0, row, place if place >= 0 else -place - 1] = 1.0 if place >= 0 else -1.0
    return found


TEXT = torch.ones(1, 4, dtype=torch.bool)
TEXT_KEYS = norms(1, 1, 1, 1)
FOURS = norms(6, 7, 8, 9, *[1.0] * 8)  # cells 0 to 3 are pivots, the last of them with the largest norm
OPPOSED = unit(0, 1, 2, 3, -1, -2, -3, -4, -5, -6, -7, -8)  # cell 4 + i is opposed to pivot i
TEXT_FEATURES = unit(4, 5, 6, 7)


def kept(*args: Any, **kwargs: Any) -> list[int]:
    (cells,) = dart(*args, **kwargs).tolist()
    return cells


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=8, unique=True) | st.lists(
    st.integers(0, 2**20 - 1), min_size=1, max_size=8, unique=True
))  # fmt: skip
def test_pivots_take_turns_as_a_python_set_holds_them(numbers: list[int]) -> None:
    order = set_order(torch.tensor([numbers, numbers[::-1]]))
    assert [numbers[i] for i in order[0]] == list(set(numbers))
    assert [numbers[::-1][i] for i in order[1]] == list(set(numbers[::-1]))


def test_numbers_that_collide_are_ordered_as_in_a_python_set() -> None:
    """Equal modulo 32: the order then depends on which came first."""
    numbers = [35, 67, 99, 131, 163, 195, 227, 259]
    assert [numbers[i] for i in set_order(torch.tensor([numbers]))[0]] == list(set(numbers)) != sorted(numbers)


def test_visual_pivots_have_the_largest_sums_of_absolute_keys_over_all_heads() -> None:
    keys = torch.tensor([[[[3.0, -3.0], [0.0, 0.0]], [[0.0, 5.0], [0.0, 0.0]], [[2.0, 0.0], [-3.0, -2.0]]]])
    assert l1_norms(keys).tolist() == [[6.0, 5.0, 7.0]]  # token 1 has the largest L2 norm
    features = torch.randn(1, 3, 10, dtype=torch.float64)
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 1) == [2]
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 2) == [0, 2]
    assert l1_norms(keys.half()).dtype == torch.float32


def test_a_count_up_to_4_keeps_the_largest_norms_alone_and_of_equal_ones_the_earlier() -> None:
    assert kept(FOURS, TEXT_KEYS, TEXT, OPPOSED, TEXT_FEATURES, 4) == [0, 1, 2, 3]
    assert kept(FOURS, TEXT_KEYS, TEXT, OPPOSED, TEXT_FEATURES, 1) == [3]
    assert kept(norms(2, 2, 2, 2, 2, 2), TEXT_KEYS, TEXT, OPPOSED[:, :6], TEXT_FEATURES, 3) == [0, 1, 2]


def test_the_first_turn_is_by_place_in_the_prompt_and_not_by_norm() -> None:
    """With one token to give, the first pivot takes it: places 35 to 38 lie in slots 3 to 6, places 31 to 34 in 31, 0,
    1, 2."""
    assert kept(FOURS, TEXT_KEYS, TEXT, OPPOSED, TEXT_FEATURES, 5) == [0, 1, 2, 3, 4]
    assert kept(FOURS, TEXT_KEYS, TEXT, OPPOSED, TEXT_FEATURES, 5, start=31) == [0, 1, 2, 3, 5]
    assert literal.turns([35, 36, 37, 38], [47, 48, 49, 50])[0] == 35
    assert literal.turns([31, 32, 33, 34], [43, 44, 45, 46])[0] == 32


def test_shares_differ_by_one_and_the_first_pivots_have_the_larger_ones() -> None:
    """Each of 8 pivots has an opposed token and one that is nearly so: 11 to give are 8, and one more for three."""
    nearly = unit(*range(-8, 0)).flip(1) + 0.3 * unit(*[9] * 8)
    features = torch.cat([OPPOSED, nearly], 1)
    keys = torch.cat([FOURS, norms(*[1] * 8)], 1)
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 12) == list(range(12))
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 15) == list(range(15))
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 20) == list(range(20))


def test_a_token_that_is_taken_is_left_to_nobody_else() -> None:
    """Pivots 0 and 1 are alike: the second has to take the second best. Of equal cosines the earlier token goes."""
    features = torch.cat([unit(0, 0, 2, 3), unit(8), unit(-1) + 0.3 * unit(9), unit(-1), unit(8)], 1)
    keys = norms(6, 7, 8, 9, 1, 1, 1, 1)
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 5) == [0, 1, 2, 3, 6]
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 6) == [0, 1, 2, 3, 5, 6]
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 7) == [0, 1, 2, 3, 4, 5, 6]


def test_the_largest_text_keys_choose_too_and_padding_does_not() -> None:
    """The first slot is padding with the largest key and a feature of its own; the sixth text token is the smallest."""
    is_text = torch.tensor([[False, True, True, True, True, True]])
    text_keys, text = norms(99, 5, 2, 3, 4, 1), unit(9, 4, 5, 6, 7, 3)
    cells = torch.cat([unit(0, 1, 2, 3), unit(-10), unit(-1, -2, -3, -4, -5, -6, -7, -8), unit(8)], 1)
    keys = norms(6, 7, 8, 9, *[1] * 10)
    assert kept(keys, text_keys, is_text, cells, text, 12) == [0, 1, 2, 3, *range(5, 13)]
    spoilt = text.clone()
    spoilt[0, 0] = float("nan")
    assert kept(keys, text_keys, is_text, cells, spoilt, 12) == [0, 1, 2, 3, *range(5, 13)]


@pytest.mark.parametrize("words", [1, 2, 3])
def test_a_text_of_fewer_than_4_tokens_has_fewer_pivots(words: int) -> None:
    """Cells 7, 6, 5, 4 are opposed to the text's tokens in turn; what is padding would take the earliest cell, 4."""
    features = unit(0, 1, 2, 3, -8, -7, -6, -5, -1, -2, -3, -4)
    is_text = torch.arange(4)[None] >= 4 - words
    text = torch.cat([unit(*[9] * (4 - words)), unit(*range(4, 4 + words))], 1)
    expected = [0, 1, 2, 3, *range(8 - words, 12)]
    assert kept(FOURS, TEXT_KEYS, is_text, features, text, 8 + words) == expected
    slots = slice(4 - words, 4)
    assert kept(FOURS, TEXT_KEYS[:, slots], is_text[:, slots], features, text[:, slots], 8 + words) == expected


def test_places_of_text_are_counted_without_padding() -> None:
    """Text pivots at places 60 to 63 lie in slots 28 to 31 and come last; two slots further they would come first."""
    text_keys = norms(9, 9, *[1] * 13, 2, 2, 2, 2)
    is_text = torch.arange(19)[None] >= 2
    text = torch.cat([unit(*[9] * 15), unit(4, 5, 6, 7)], 1)
    assert kept(FOURS, text_keys, is_text, OPPOSED, text, 5) == [0, 1, 2, 3, 4]
    assert kept(FOURS, text_keys[:, 2:], is_text[:, 2:], OPPOSED, text[:, 2:], 5) == [0, 1, 2, 3, 4]


def test_by_the_papers_rule_the_lowest_cosines_of_all_stay() -> None:
    """Two tokens are opposed to pivot 0, the others to nothing: one threshold lets both pass, turns take only one."""
    features = torch.cat([unit(0, 1, 2, 3), unit(-1), unit(8), unit(-1) + 0.3 * unit(9)], 1)
    keys = norms(9, 8, 7, 6, 1, 1, 1)
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 6) == [0, 1, 2, 3, 4, 5]
    assert kept(keys, TEXT_KEYS, TEXT, features, TEXT_FEATURES, 6, rule="paper") == [0, 1, 2, 3, 4, 6]


def test_repeated_key_heads_and_a_feature_of_zeros_change_nothing() -> None:
    assert kept(FOURS.repeat(1, 1, 3, 1), TEXT_KEYS, TEXT, OPPOSED, TEXT_FEATURES, 7) == [0, 1, 2, 3, 4, 5, 6]
    zero = cosines(torch.zeros(1, 1, 3), torch.randn(1, 4, 3))
    assert zero.tolist() == [[[0.0] * 4]]
    assert cosines(torch.ones(1, 1, 3).half(), torch.ones(1, 4, 3).half()).dtype == torch.float32


@settings(max_examples=30, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31), rule=st.sampled_from(["code", "paper"]))
def test_equals_the_literal_version_in_ragged_batches(data: st.DataObject, seed: int, rule: Any) -> None:
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    batch, cells = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 60))
    words = data.draw(st.lists(st.integers(1, 12), min_size=batch, max_size=batch))
    count, start = data.draw(st.integers(1, cells)), data.draw(st.integers(0, 80))
    groups, size, width, slots = data.draw(st.integers(1, 3)), 3, 5, max(words)
    keys, text_keys = drawn(batch, cells, groups, size), drawn(batch, slots, groups, size)
    features, text = drawn(batch, cells, width), drawn(batch, slots, width)
    is_text = torch.arange(slots, 0, -1) <= torch.tensor(words)[:, None]
    found = dart(keys, text_keys, is_text, features, text, count, rule=rule, start=start)
    for sample, number in enumerate(words):
        expected = literal.dart(
            keys[sample].flatten(1).tolist(),
            text_keys[sample, slots - number :].flatten(1).tolist(),
            features[sample].tolist(),
            text[sample, slots - number :].tolist(),
            count,
            start,
            rule,
        )
        assert found[sample].tolist() == expected
        one = slice(sample, sample + 1)
        alone = dart(
            keys[one],
            text_keys[one, slots - number :],
            is_text[one, slots - number :],
            features[one],
            text[one, slots - number :],
            count,
            rule=rule,
            start=start,
        )
        assert torch.equal(alone[0], found[sample])


def test_equals_the_literal_version_at_full_size() -> None:
    generator = torch.Generator().manual_seed(3)
    keys, text_keys = (torch.randn(1, n, 2, 4, generator=generator, dtype=torch.float64) for n in (576, 40))
    features, text = (torch.randn(1, n, 6, generator=generator, dtype=torch.float64) for n in (576, 40))
    found = kept(keys, text_keys, torch.ones(1, 40, dtype=torch.bool), features, text, 132)
    lists = [x[0].flatten(1).tolist() for x in (keys, text_keys, features, text)]
    assert found == literal.dart(*lists, 132)


def test_the_method_compares_hidden_states_after_the_last_norm_and_keys_as_they_are() -> None:
    scale = torch.tensor([1.0, 50.0, 1.0, 0.02], dtype=torch.float64)
    drawn = [torch.randn(2, n, 4, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (36, 7)]
    keys = [torch.randn(2, n, 2, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (36, 7)]
    is_text = torch.tensor([[True] * 7, [False] * 3 + [True] * 4])
    point: Any = SimpleNamespace(
        kept=torch.ones(2, 36, dtype=torch.bool),
        hidden=drawn[0],
        keys=keys[0],
        text=SimpleNamespace(is_text=is_text, hidden=drawn[1], keys=keys[1]),
        final_norm=lambda x: x * scale,
    )
    decision = get_method("dart:layer=1,keep=20").solve(Geometry(5, (6, 6))).decide(point)
    normed = dart(keys[0], keys[1], is_text, drawn[0] * scale, drawn[1] * scale, 20)
    plain = dart(keys[0], keys[1], is_text, drawn[0], drawn[1], 20)
    assert decision.count == 20 and decision.carry is None and decision.rewrite is None and decision.order is None
    assert [torch.where(row)[0].tolist() for row in decision.keep] == normed.tolist() != plain.tolist()


@pytest.mark.parametrize(("spec", "count", "target"), [
    ("dart", 132, 128),
    ("dart:max_num_truncation=128", 132, 128),
    ("dart:max_num_truncation=192", 196, 192),
    ("dart:max_num_truncation=64", 68, 64),
    ("dart:max_num_truncation=7", 4, 7),
    ("dart:reduction_ratio=0.667", 188, 576 * (1 - 0.667)),
    ("dart:reduction_ratio=0.778", 124, 576 * (1 - 0.778)),
    ("dart:reduction_ratio=0.889", 60, 576 * (1 - 0.889)),
    ("dart:reduction_ratio=0.75", 148, 144),
    ("dart:reduction_ratio=0.5", 292, 288),
    ("dart:reduction_ratio=1.0", 4, 0),
])  # fmt: skip
def test_counts_of_the_authors_code(spec: str, count: int, target: float) -> None:
    method = get_method(spec).solve(LLAVA)
    assert isinstance(method, DART) and method.keep == count == literal.kept_by_the_code(target)
    assert str(method) == f"dart:layer=2,keep={count}" and method.label == spec
    assert get_method(str(method)) == method


def test_a_budget_is_met_exactly() -> None:
    for average, count in zip((192, 144, 128, 88, 64), (166, 115, 98, 55, 30), strict=True):
        assert str(get_method(f"dart@{average}").solve(LLAVA)) == f"dart:layer=2,keep={count}"


@pytest.mark.parametrize(("spec", "message"), [
    ("dart:layer=0,keep=9", "dart: layer=0 is too small; the first is 1"),
    ("dart:keep=0", "dart: keep=0 leaves nothing"),
    ("dart@144:keep=9", "give a budget (@144) or keep=9, not both"),
    ("dart:keep=9,reduction_ratio=0.5", "dart: keep=9 and reduction_ratio=0.5 each say how many stay"),
    ("dart@144:max_num_truncation=128", "dart: @144 and max_num_truncation=128 each say how many stay"),
    ("dart:max_num_truncation=128,reduction_ratio=0.778", "each say how many stay; give one of them"),
    ("dart:max_num_truncation=-1", "dart: max_num_truncation=-1 must not be negative"),
    ("dart:reduction_ratio=1.1", "dart: reduction_ratio=1.1 is a share; it must be from 0 to 1"),
    ("dart:rule=codes", "unknown value of rule for dart 'codes'. Did you mean: code?"),
])  # fmt: skip
def test_bad_parameters_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)


def test_a_target_beyond_the_image_is_refused() -> None:
    """The authors' code fails in its top-k there: 4 pivots and 8 x 72 others are more than 576."""
    with pytest.raises(UserError, match="keep=580 is out of range; an image has 1 to 576"):
        get_method("dart:reduction_ratio=0").solve(LLAVA)


@pytest.mark.parametrize("rule", ["code", "paper"])
def test_nothing_waits_for_the_device(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reads(monkeypatch, f"dart:layer=2,keep=17,rule={rule}") == 0
