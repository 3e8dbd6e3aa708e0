"""What votes add up to, by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from annotation.made import merged
from made import pool, votes

from atp_eval.analysis.significance import wilson
from atp_eval.annotation.export import to_csv, to_json, write_result
from atp_eval.annotation.merge import Preference
from atp_eval.annotation.votes import Look, Missing, Vote
from atp_eval.annotation.words import notes, to_rich, verdict


def shown(found: Preference) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=None)
    with console.capture() as capture:
        console.print(to_rich(found))
    return capture.get()


def test_a_choice_of_a_place_is_a_choice_of_who_stood_there() -> None:
    winners = [Look(left=left, choice=choice).winner for left in "ab" for choice in ("left", "right", "tie")]  # type: ignore[arg-type]
    assert winners == ["a", "b", "tie", "b", "a", "tie"]


@pytest.mark.parametrize(
    ("first", "second", "winner", "contradicts"),
    [
        ("left", "right", "a", False),  # a in both orders
        ("right", "left", "b", False),
        ("left", "left", "tie", True),  # the first place in both
        ("right", "right", "tie", True),
        ("left", "tie", "tie", False),
        ("tie", "tie", "tie", False),
    ],
)
def test_both_orders_have_to_agree(first: Any, second: Any, winner: str, contradicts: bool) -> None:
    looks = (Look(left="a", choice=first), Look(left="b", choice=second))
    vote = Vote(benchmark="gqa", doc_id=1, picture=None, looks=looks)
    assert (vote.winner, vote.contradicts) == (winner, contradicts)


def test_rates_of_one_person_are_counts_with_wilsons_intervals() -> None:
    lefts = {f"gqa/{i}": "b" for i in range(5)}
    chosen = {**{f"gqa/{i}": "left" for i in range(5)}, **{f"gqa/{i}": "left" for i in range(5, 8)}, "gqa/8": "tie"}
    found = merged(votes("Ada", chosen, lefts=lefts)).annotators[0]  # type: ignore[arg-type]
    assert (found.votes, found.samples, found.wins, found.losses, found.ties) == (9, 9, 5, 3, 1)
    assert (found.win, found.loss, found.tie) == (wilson(5, 9), wilson(3, 9), wilson(1, 9))
    assert found.half.value == pytest.approx(5.5 / 9)
    assert found.half.low < 5.5 / 9 < found.half.high


def test_the_same_vote_of_three_people_is_not_three_samples() -> None:
    rng = np.random.default_rng(0)
    chosen = {f"gqa/{i}": str(rng.choice(["left", "right"])) for i in range(60)}
    one = merged(votes("Ada", chosen))  # type: ignore[arg-type]
    three = merged(*(votes(name, chosen) for name in ("Ada", "Bo", "Cy")))  # type: ignore[arg-type]
    assert three.pooled.votes == 180 and three.pooled.samples == 60
    assert three.pooled.half == pytest.approx(one.pooled.half)
    # Votes of different people on samples of their own are: the interval shrinks.
    apart = {f"gqa/{i + 60 * k}": c for k in range(3) for i, c in enumerate(chosen.values())}
    wide = merged(votes("Ada", apart))  # type: ignore[arg-type]
    assert wide.pooled.half.high - wide.pooled.half.low < 0.7 * (one.pooled.half.high - one.pooled.half.low)


def test_samples_of_one_picture_are_drawn_together() -> None:
    chosen = {f"gqa/{i}": ("left" if i // 10 % 2 else "right") for i in range(80)}
    alone = merged(votes("Ada", chosen)).pooled.half  # type: ignore[arg-type]
    pictures = {f"gqa/{i}": f"picture-{i // 10}" for i in range(80)}
    together = merged(votes("Ada", chosen, pictures=pictures)).pooled.half  # type: ignore[arg-type]
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_votes_that_are_all_alike_give_no_certainty() -> None:
    found = merged(votes("Ada", {f"gqa/{i}": "right" for i in range(6)}))
    assert found.pooled.half.value == 1.0 and not found.pooled.half.bounded
    assert "too little varies for an interval" in verdict(found)


def test_over_all_answered_benchmarks_weigh_by_their_samples_and_same_answers_are_ties() -> None:
    # gqa: 100 answered, 60 alike, 4 drawn for 40, b wins 3 of 4. mme: 20, 10 alike, 2 drawn for 10, one tied.
    chosen = {"gqa/0": "right", "gqa/1": "right", "gqa/2": "right", "gqa/3": "left", "mme/0": "left", "mme/1": "tie"}
    pools = {"gqa": pool(4, answered=100, identical=60), "mme": pool(2, answered=20, identical=10)}
    found = merged(votes("Ada", chosen, pools=pools))  # type: ignore[arg-type]
    assert found.overall is not None
    assert found.overall.value == pytest.approx((40 * 0.75 + 10 * 0.25 + 70 * 0.5) / 120)
    assert (found.answered, found.identical, found.drawn) == (120, 70, 6)
    assert [(r.who, r.half.value) for r in found.by_benchmark] == [("gqa", 0.75), ("mme", 0.25)]
    assert "Of 120 samples that both answered, 70 have the same answer" in notes(found)[0]
    silent = merged(votes("Ada", {"gqa/0": "right"}, pools=pools))
    assert silent.overall is None  # nobody voted on mme


def test_position_by_hand() -> None:
    # Eight votes for the left, two for the right, one tie; b stands left on the even samples.
    chosen = {f"gqa/{i}": "left" if i < 8 else "right" if i < 10 else "tie" for i in range(11)}
    lefts = {f"gqa/{i}": "ab"[i % 2 == 0] for i in range(11)}
    found = merged(votes("Ada", chosen, lefts=lefts)).positions[0]  # type: ignore[arg-type]
    assert found.looks == 10 and found.left == wilson(8, 10)
    assert found.p == pytest.approx(2 * (1 + 10 + 45) / 2**10)  # binomial, two-sided
    assert found.b_left == pytest.approx((4 + 0 + 0.5) / 6)  # 0, 2, 4, 6 won; 8 lost; 10 tied
    assert found.b_right == pytest.approx((0 + 1) / 5)  # 1, 3, 5, 7 lost; 9 won
    assert found.contradictions is None


def test_a_judge_that_always_takes_the_first_place_has_no_wins() -> None:
    found = merged(votes("judge:m", {f"gqa/{i}": ("left", "left") for i in range(10)}))
    assert found.pooled.who == "all judges" and found.pooled.ties == 10
    place = found.positions[0]
    assert place.left.value == 1.0 and place.contradictions == wilson(10, 10)
    assert place.p == pytest.approx(2 / 2**10)
    fair = merged(votes("judge:m", {f"gqa/{i}": ("left", "right") for i in range(10)})).positions[0]
    assert fair.left.value == 0.5 and fair.p == 1.0 and fair.contradictions == wilson(0, 10)


def test_agreement_and_pairs_with_votes_that_are_missing() -> None:
    ada = votes("Ada", {"gqa/0": "left", "gqa/1": "right", "gqa/2": "tie", "gqa/3": "left"})
    bo = votes("Bo", {"gqa/0": "left", "gqa/1": "right", "gqa/2": "left", "gqa/4": "right"})
    found = merged(ada, bo)
    assert [(q.first, q.second, q.samples, q.same) for q in found.pairs] == [("Ada", "Bo", 3, wilson(2, 3))]
    agreed = found.agreements[0]
    assert (agreed.whose, agreed.annotators, agreed.samples) == ("people", 2, 3)
    # Pairs: a a, b b, tie a. Votes a 3, tie 1, b 2. Observed 2 of 6; expected (2 * (3 + 6 + 2)) / 30.
    assert agreed.nominal.value == pytest.approx(1 - (2 / 6) / (22 / 30))
    # Ordinal squares: a-tie (3/2 + 1/2)^2 = 4, tie-b (1/2 + 1)^2 = 2.25, a-b (3/2 + 1 + 1)^2 = 12.25.
    assert agreed.ordinal.value == pytest.approx(1 - (2 * 4 / 6) / (2 * (3 * 4 + 2 * 2.25 + 6 * 12.25) / 30))


def test_the_interval_of_alpha_covers_chance_for_random_votes_and_not_for_like_ones() -> None:
    rng = np.random.default_rng(1)

    def noisy(share: float) -> dict[str, Any]:
        luck = np.random.default_rng(5).choice(["left", "right", "tie"], 150)
        own = rng.choice(["left", "right", "tie"], 150)
        return {
            f"gqa/{i}": str(a if rng.random() < share else b) for i, (a, b) in enumerate(zip(luck, own, strict=True))
        }

    chance = merged(*(votes(name, noisy(0.0)) for name in "abc")).agreements[0].nominal
    alike = merged(*(votes(name, noisy(0.9)) for name in "abc")).agreements[0].nominal
    assert chance.low < 0 < chance.high
    assert 0 < alike.low < alike.value < alike.high <= 1


def test_people_and_judges_are_pooled_apart() -> None:
    person = votes("Ada", {f"gqa/{i}": "left" if i % 2 else "tie" for i in range(8)})
    model = votes("judge:m", {f"gqa/{i}": ("right", "left") for i in range(8)})
    found = merged(person, model)
    assert found.pooled.who == "all people" and found.pooled.wins == 0 and found.pooled.votes == 8
    assert [r.who for r in found.annotators] == ["Ada", "judge:m"]
    assert [a.whose for a in found.agreements] == ["people and judges"]
    assert verdict(found).startswith("8 votes by 1 person on 8 samples")


@pytest.mark.parametrize(
    ("wins", "said"), [(50, "is preferred."), (25, "do not tell the two apart"), (5, "upper_bound is")]
)
def test_the_verdict_follows_the_interval(wins: int, said: str) -> None:
    found = merged(votes("Ada", {f"gqa/{i}": "right" if i < wins else "left" for i in range(55)}))
    assert said in verdict(found)
    assert f"atp@144 won {100 * wins / 55:.1f} %" in verdict(found)


def test_the_papers_figures_are_quoted_for_its_pair_only_and_never_as_results() -> None:
    own = merged(votes("Ada", {"gqa/0": "left", "gqa/1": "right"}))
    text = notes(own)[-1]
    assert "h1 51.0, h2 46.5, h3 51.5, human_average 49.7, gpt4v 48.5" in text and "A claim, not comparable" in text
    assert to_json(own)["printed_in_the_paper"]["gpt4v"] == 48.5
    other = merged(votes("Ada", {"gqa/0": "left", "gqa/1": "right"}, b="fastv@144"))
    assert not any("Tab. 5" in note for note in notes(other)) and to_json(other)["printed_in_the_paper"] is None


def test_what_is_missing_is_said() -> None:
    lost = [Missing(benchmark="gqa", doc_id=i, reason="an empty answer") for i in (7, 8)]
    pools = {"gqa": pool(10)}
    judge = votes("judge:m", {"gqa/0": ("left", "right")}, pools=pools, missing=lost)
    found = merged(votes("Ada", {"gqa/0": "left", "gqa/1": "tie"}, pools=pools), judge)
    said = " ".join(notes(found))
    assert "Ada voted on 2 of 10 samples." in said
    assert "judge:m gave no vote on 2 samples: 2 × an empty answer." in said
    assert "judge:m: 2 answers, 10 + 1 tokens, cost unknown: no prices were given." in said


def test_tables_json_and_csv_say_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = ["=Ada", "Bo [bold]"]
    found = merged(
        *(votes(n, {f"gqa/{i}": str(rng.choice(["left", "right", "tie"])) for i in range(30)}) for n in names)
    )  # type: ignore[misc]
    text = shown(found)
    assert "Bo [bold]" in text and "=Ada" in text and "Krippendorff" in text
    half = found.pooled.half
    assert f"{100 * half.value:.1f} [{100 * half.low:.1f}, {100 * half.high:.1f}]" in text
    data = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert data["pooled"]["half"] == {"value": half.value, "low": half.low, "high": half.high}
    for name in ("p.csv", "p.json"):
        write_result(found, tmp_path / name)
    rows = pd.read_csv(tmp_path / "p.csv")
    row = rows[(rows["who"] == "all people") & (rows["quantity"] == "ties as half")].iloc[0]
    assert (row["value"], row["low"], row["high"], row["n"]) == (half.value, half.low, half.high, 60)
    assert {"'=Ada", "Bo [bold]", "people", "benchmark gqa", "=Ada and Bo [bold]"} & set(rows["who"]) >= {
        "'=Ada",
        "people",
    }
    assert json.loads((tmp_path / "p.json").read_text())["verdict"] == verdict(found)


def test_undefined_figures_are_dashes_and_nulls() -> None:
    found = merged(*(votes(name, {"gqa/0": "left"}) for name in ("Ada", "Bo")))
    assert math.isnan(found.agreements[0].nominal.value)
    assert to_json(found)["agreements"][0]["nominal"] == {"value": None, "low": None, "high": None}
    assert "–" in shown(found) and "nan" not in shown(found) + to_csv(found)
