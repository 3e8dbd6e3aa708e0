"""Results come in order, only so many ahead of who takes them, with their errors, and no thread stays behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from atp_eval.loading import ahead


@pytest.mark.parametrize("loaders", [0, 1, 3])
def test_results_come_in_the_order_of_the_items(loaders: int) -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.02 if item == 0 else 0)
        return item * item

    assert list(ahead(slow_first, range(10), loaders)) == [i * i for i in range(10)]


@pytest.mark.parametrize("loaders", [0, 1, 2])
def test_only_so_many_items_are_taken_ahead(loaders: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(10):
            taken.append(i)
            yield i

    with closing(ahead(lambda item: item, items(), loaders)) as results:
        for i in range(3):
            assert next(results) == i
            assert len(taken) == i + 1 + loaders


def test_they_are_made_while_the_caller_works() -> None:
    began = threading.Event()

    def make(item: int) -> int:
        if item == 1:
            began.set()
        return item

    with closing(ahead(make, range(2), 1)) as results:
        assert next(results) == 0
        assert began.wait(5)  # without anyone asking for it


@pytest.mark.parametrize("loaders", [0, 2])
def test_an_error_comes_in_the_place_of_its_result(loaders: int) -> None:
    def make(item: int) -> int:
        if item == 2:
            raise ValueError("the third")
        return item

    results = ahead(make, range(5), loaders)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="the third"):
        next(results)


def test_whoever_stops_leaves_no_work_behind() -> None:
    made: list[int] = []
    gate = threading.Event()

    def make(item: int) -> int:
        if item:
            gate.wait(5)
        made.append(item)
        return item

    with closing(ahead(make, range(100), 2)) as results:
        assert next(results) == 0
    gate.set()
    for thread in threading.enumerate():
        if thread.name.startswith("loader"):
            thread.join(5)
            assert not thread.is_alive()
    assert set(made) <= {0, 1, 2}  # those that were begun; nothing that waited
