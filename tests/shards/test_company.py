"""Who is there, who is no more and who tells of it, without processes: a dictionary is the store."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from atp_eval.shards import company
from atp_eval.shards.company import Company, Lost, Place, Told, join, lives

NOBODY = 2**22 + 1  # above the greatest process number that Linux gives


class Kept(dict[str, bytes]):
    """What all ranks of a test talk through."""

    def set(self, key: str, value: str) -> None:
        self[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def get(self, key: str) -> Any:  # type: ignore[override]
        return self[key]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set."""
    now = [0.0]
    monkeypatch.setattr(company.time, "monotonic", lambda: now[0])
    return now


def ranks(number: int = 2) -> list[Company]:
    store = Kept()
    return [Company(store, Place(rank, number, rank, number)) for rank in range(number)]


def introduced(one: Company, host: str = "elsewhere", pid: int = 1) -> None:
    one.store.set(f"who/{one.rank}", f"{host} {pid}")
    one._look()


def test_a_rank_that_has_not_come_yet_is_not_lost(clock: list[float]) -> None:
    first, _ = ranks()
    clock[0] = 1e6
    first._look()
    first.check()


def test_a_rank_of_another_machine_is_given_up_when_its_signs_stop(clock: list[float]) -> None:
    first, second = ranks()
    introduced(first)
    introduced(second)
    for _ in range(3):
        clock[0] += company.PATIENCE - 1
        second._look()
        first._look()
        first.check()
    clock[0] += company.PATIENCE - 1
    first._look()
    first.check()
    clock[0] += 1
    first._look()
    with pytest.raises(Lost) as caught:
        first.check()
    assert (caught.value.rank, caught.value.why) == (1, "no sign of life for 60 seconds")
    assert first.named(1) == "rank 1 of 2 (process 1 on elsewhere)"


def test_a_process_of_this_machine_that_is_gone_is_lost_at_once(clock: list[float]) -> None:
    first, second = ranks()
    introduced(second, socket.gethostname(), os.getpid())
    first._look()
    first.check()
    first, second = ranks()
    introduced(second, socket.gethostname(), NOBODY)
    first._look()
    with pytest.raises(Lost, match="killed"):
        first.check()


class Gone(Kept):
    """A store whose holder is no more."""

    def check(self, keys: list[str]) -> bool:
        raise RuntimeError("Connection reset by peer")


@pytest.mark.parametrize(
    ("pid", "why"), [(os.getpid(), "the store .* is gone"), (2**22 + 1, "killed")], ids=["alive", "dead"]
)
def test_a_store_that_is_gone_is_the_first_ranks_end(clock: list[float], pid: int, why: str) -> None:
    store = Kept()
    first, second = (Company(store, Place(rank, 2, rank, 2)) for rank in range(2))
    introduced(first, socket.gethostname(), pid)
    second._who(0)
    second.store = company.Guarded(Gone(store))
    with pytest.raises(Lost, match="store"):
        second.wait(["ready"])
    lost = second.who_died()
    assert lost is not None and lost.rank == 0 and second.speaks()
    with pytest.raises(Lost, match=why):
        second.check()
    second.end("cannot be told")


def test_a_rank_that_has_done_its_work_may_go(clock: list[float]) -> None:
    first, second = ranks()
    introduced(second, socket.gethostname(), NOBODY)
    second.end()
    first.wait_for_all()


def test_a_rank_that_gives_up_says_why(clock: list[float]) -> None:
    first, second, third = ranks(3)
    introduced(first)
    introduced(second)
    second.end("the disk is full")
    first._look()
    with pytest.raises(Lost, match="the disk is full"):
        first.check()
    third._look()  # looks at the first only
    third.check()
    first.end("ended")
    third._look()
    with pytest.raises(Lost):
        third.check()


@pytest.fixture
def passing(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes by while a rank sleeps."""
    monkeypatch.setattr(company.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))


def all_here(number: int = 3, dead: int | None = None) -> list[Company]:
    """Ranks of this machine, of which one may be dead."""
    found = ranks(number)
    for one in found:
        introduced(one, socket.gethostname(), NOBODY if one.rank == dead else os.getpid())
    return found


def test_who_only_followed_is_not_taken_for_the_cause_and_one_rank_speaks(passing: None) -> None:
    first, second, _ = all_here(dead=2)
    first._look()
    first.end(company.FOLLOWED)
    second._look()
    with pytest.raises(Lost, match="since another rank did"):
        second.check()
    second.end(company.FOLLOWED)
    for one in (first, second):
        lost = one.who_died()
        assert lost is not None and (lost.rank, lost.why) == (2, company.KILLED)
    assert first.speaks() and not second.speaks()


def test_the_first_may_hear_of_a_follower_before_it_sees_the_dead(passing: None) -> None:
    first, second, third = all_here()
    second.end(company.FOLLOWED)
    first._look()
    introduced(third, socket.gethostname(), NOBODY)
    first._known.clear()
    lost = first.who_died()
    assert lost is not None and lost.rank == 2 and first.speaks()


def test_of_ranks_that_are_all_told_to_end_the_first_says_so(passing: None) -> None:
    found = all_here()
    for one in found:
        one.end(company.TOLD)
    assert [(one.who_died(), one.speaks()) for one in found] == [(None, True), (None, False), (None, False)]


def test_one_that_was_told_to_end_is_named_by_the_first(passing: None) -> None:
    first, second, _ = all_here()
    second.end(company.TOLD)
    first._look()
    lost = first.who_died()
    assert lost is not None and (lost.rank, lost.why) == (1, company.TOLD) and first.speaks()
    assert second.who_died() is None and not second.speaks()


def test_what_the_first_says_itself_no_other_repeats(passing: None) -> None:
    first, second, _ = all_here()
    first.end("runs/x is in use by process 7")
    second._look()
    lost = second.who_died()
    assert lost is not None and lost.rank == 0 and not second.speaks()


def test_the_first_that_lives_speaks() -> None:
    first, second, third = ranks(3)
    assert [one.speaks() for one in (first, second, third)] == [True, False, False]
    for one in (second, third):
        one._lost = Lost(0, "killed")
    assert [one.speaks() for one in (second, third)] == [True, False]


def test_of_every_machine_one_speaks_where_the_first_is_gone() -> None:
    places = [Place(rank, 4, rank % 2, 2) for rank in range(1, 4)]
    others = [Company(Kept(), place) for place in places]
    for one in others:
        one._lost = Lost(0, "the store is gone")
    assert [one.speaks() for one in others] == [True, True, False]


def test_a_rank_that_ends_is_not_told_to_end_again() -> None:
    first, _ = ranks()
    with pytest.raises(Told):
        first._told(15, None)
    first.end(company.FOLLOWED)
    first._told(15, None)


def test_answers_of_all_are_added_up(clock: list[float]) -> None:
    first, second = ranks()
    introduced(first)
    introduced(second)
    first.answered, second.answered = 3, 4
    second._look()
    first._look()
    assert first.answered_by_all() == 7


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1", "RANK": "0"}, {"WORLD_SIZE": "2"}])
def test_a_process_without_others_has_no_company(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in company.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert join() is None


def test_this_process_lives() -> None:
    assert lives(os.getpid()) and not lives(NOBODY)
