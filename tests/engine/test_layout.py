"""Which token sits where: against lists in plain Python, for arbitrary prompts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.engine.layout import read_prompts
from atp_eval.errors import UserError

IMAGE, CELLS = 9, 4
rows = st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(1, 3)), min_size=1, max_size=4)
cells = st.lists(st.booleans(), min_size=CELLS, max_size=CELLS)


def prompts(shapes: list[tuple[int, bool, int]]) -> tuple[list[list[int]], torch.Tensor, torch.Tensor]:
    lists = [[1] * before + [IMAGE] * (CELLS if image else 0) + [2] * after for before, image, after in shapes]
    longest = max(map(len, lists))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in lists])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in lists])
    return lists, ids, mask


@settings(max_examples=80, deadline=None)
@given(shapes=rows, data=st.data())
def test_drop_keeps_text_and_chosen_cells_in_order(shapes: list[tuple[int, bool, int]], data: st.DataObject) -> None:
    lists, ids, mask = prompts(shapes)
    found = read_prompts(ids, mask, IMAGE, CELLS)
    assert found.has_image == [image for _, image, _ in shapes]
    assert found.text == [after if image else 0 for _, image, after in shapes]
    assert list(found.layout.lengths) == [len(row) for row in lists]

    layout, places, gone = found.layout, torch.arange(ids.shape[1]).expand(ids.shape), [set[int]() for _ in shapes]
    for _ in range(2):  # twice: pruning what is pruned already
        stay = [data.draw(cells) for _ in shapes]
        expected = []
        for row, (before, image, after) in enumerate(shapes):
            gone[row] |= {cell for cell in range(CELLS) if not stay[row][cell]}
            start = ids.shape[1] - len(lists[row])
            visual = [start + before + cell for cell in range(CELLS) if cell not in gone[row]] if image else []
            tail = range(ids.shape[1] - after, ids.shape[1])
            expected.append([*range(start, start + before), *visual, *tail])
        layout, index = layout.drop(torch.tensor(stay), [len(row) for row in expected])
        places = places.gather(1, index)
        assert [places[row][layout.valid[row]].tolist() for row in range(len(shapes))] == expected
        assert layout.valid.shape[1] == max(map(len, expected))
        assert layout.padded == (min(map(len, expected)) < max(map(len, expected)))
        for row, (_, image, _) in enumerate(shapes):
            there = set(range(CELLS)) - gone[row] if image else set()
            assert set(layout.cell[row][layout.visual[row]].tolist()) == there


def test_cells_and_slots_are_inverse() -> None:
    _, ids, mask = prompts([(2, True, 3), (1, False, 2)])
    layout = read_prompts(ids, mask, IMAGE, CELLS).layout
    values = torch.randn(2, CELLS, 3)
    back = layout.to_cells(layout.to_slots(values, 0.0), -1.0)
    assert torch.equal(back[0], values[0])
    assert (back[1] == -1).all()


def test_prompts_that_cannot_be_pruned_are_refused_by_name() -> None:
    two = torch.tensor([[1, *[IMAGE] * (2 * CELLS), 2]])
    with pytest.raises(UserError, match="prompt 0 of the batch has 8 visual tokens"):
        read_prompts(two, None, IMAGE, CELLS)
    last = torch.tensor([[1, *[IMAGE] * CELLS]])
    with pytest.raises(UserError, match="prompt 0 of the batch ends with its image"):
        read_prompts(last, None, IMAGE, CELLS)
    right = torch.tensor([[1, *[IMAGE] * CELLS, 2, 0]])
    with pytest.raises(UserError, match="padded on the right"):
        read_prompts(right, (right > 0).long(), IMAGE, CELLS)
