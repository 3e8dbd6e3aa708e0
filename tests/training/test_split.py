"""Held-back samples share no picture with those that are trained on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atp_eval.errors import UserError
from atp_eval.training.recipe import split_data

TEXT = 100  # from this number on a sample has no picture


def split(
    pictures: list[int], held_back: int, seed: int = 0, statistics: int = 4
) -> tuple[list[int], list[int], list[int]]:
    """Sample numbers: trained on, held back, for statistics."""
    numbers = np.array(pictures)
    fields = {"pictures": numbers, "pictured": numbers < TEXT, "__len__": lambda self: len(pictures)}
    config: Any = SimpleNamespace(held_back=held_back, seed=seed, statistics=statistics, data="data.json")
    data: Any = type("Data", (), fields)()
    found = split_data(data, config)
    held = list(found.held_back.indices) if found.held_back else []
    return list(found.training.indices), held, list(found.statistics.indices)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=40).filter(lambda p: len(set(p)) > 1),
    st.integers(0, 3), st.integers(0, 6), st.integers(0, 5),
)  # fmt: skip
def test_a_picture_lies_on_one_side(pictures: list[int], texts: int, held_back: int, seed: int) -> None:
    pictures = pictures + [TEXT + i for i in range(texts)]
    try:
        training, held, statistics = split(pictures, held_back, seed)
    except UserError:
        assert held_back > 0
        return
    assert sorted(training + held) == list(range(len(pictures)))
    assert not {pictures[i] for i in training} & {pictures[i] for i in held}
    last = pictures[held[-1]] if held else None
    assert len([i for i in held if pictures[i] != last]) < held_back or not held_back  # no picture more than needed
    assert len(held) >= held_back
    seen = {i for i in training if pictures[i] < TEXT}
    assert set(statistics) <= seen
    assert len(set(statistics)) == len(statistics) == min(4, len(seen))


def test_pictures_of_equal_size_give_the_very_number() -> None:
    pictures = [i // 8 for i in range(160)]
    _, held, _ = split(pictures, 32)
    assert len(held) == 32


def test_the_seed_decides() -> None:
    pictures = [i // 2 for i in range(60)]
    assert split(pictures, 10, seed=1) == split(pictures, 10, seed=1)
    assert set(split(pictures, 10, seed=1)[1]) != set(split(pictures, 10, seed=2)[1])


@pytest.mark.parametrize(("pictures", "held_back"), [([0, 0, 0], 1), ([0, 1, 2], 3), ([0, 1, 2], 4)])
def test_nothing_left_to_train_on_is_refused(pictures: list[int], held_back: int) -> None:
    with pytest.raises(UserError, match=f"held_back {held_back} leaves nothing to train on"):
        split(pictures, held_back)


def test_nothing_to_prune_is_refused() -> None:
    with pytest.raises(UserError, match="no sample to train on has an image"):
        split([TEXT, TEXT + 1, TEXT + 2], 1)
