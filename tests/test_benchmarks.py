"""The table of benchmarks, and what is computed from samples by it."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_schemas import hub_rows

from atp_eval.benchmarks import (
    BENCHMARKS,
    MAIN,
    SUPPLEMENTARY,
    aggregate,
    describe,
    get_benchmark,
    is_valid_answer,
    sample_score,
    whole_groups,
)
from atp_eval.documents import letter_of
from atp_eval.errors import UserError

REPOSITORIES = {
    name: next(k for k in hub_rows() if k[0] == b.dataset.split("/")[1] and k[1] == (b.config or "default"))
    for name, b in BENCHMARKS.items()
}


def test_names_are_the_short_ones_everywhere() -> None:
    assert MAIN == ("gqa", "mmb", "mme", "pope", "seed", "sqa", "vqav2")
    assert len(SUPPLEMENTARY) == 8 and not set(MAIN) & set(SUPPLEMENTARY)


def test_unknown_names_are_refused_with_the_closest() -> None:
    with pytest.raises(UserError, match=r"unknown benchmark 'gqaa'. Did you mean: gqa"):
        get_benchmark("gqaa")
    with pytest.raises(UserError, match="docvqa"):
        get_benchmark("docvqa").task("mini")


@pytest.mark.parametrize(
    ("name", "raw", "printed"), [("gqa", 0.62, 62.0), ("mme", 1510.7, 1510.7), ("mmb", 64.3, 64.3)]
)
def test_metrics_in_the_papers_unit(name: str, raw: float, printed: float) -> None:
    assert get_benchmark(name).in_paper_unit(raw) == pytest.approx(printed)
    assert get_benchmark(name).paper["llava-1.5-7b"] == printed


def test_limits_come_in_whole_pairs() -> None:
    assert [whole_groups(get_benchmark("mme"), n) for n in (1, 2, 5, None)] == [2, 2, 6, None]
    assert whole_groups(get_benchmark("gqa"), 5) == 5


def test_mme_adds_accuracy_and_pair_accuracy_over_categories() -> None:
    scores = [1, 1, 1, 0, 0, 0, 1, 1]
    categories = ["count"] * 4 + ["color"] * 2 + ["code_reasoning"] * 2  # cognition is another metric
    groups = ["a", "a", "b", "b", "a", "a", "c", "c"]
    assert aggregate(get_benchmark("mme"), scores, categories, groups) == pytest.approx((75 + 50) + 0)
    with pytest.raises(ValueError, match="pair"):
        aggregate(get_benchmark("mme"), [1, 0, 1], ["count"] * 3, ["a", "a", "b"])


def test_mmbench_counts_circular_rows_all_or_nothing() -> None:
    assert aggregate(get_benchmark("mmb"), [1, 1, 0, 1], ["x"] * 4, ["1", "2", "1", "3"]) == pytest.approx(200 / 3)


def test_nothing_answered_is_not_zero() -> None:
    assert math.isnan(aggregate(get_benchmark("gqa"), [], [], []))
    assert math.isnan(aggregate(get_benchmark("mmb"), [], [], []))
    assert math.isnan(aggregate(get_benchmark("mme"), [], [], []))


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(["count", "OCR"])), min_size=1), st.randoms())
def test_mme_does_not_depend_on_the_order(pairs: list[tuple[bool, bool, str]], rng: random.Random) -> None:
    rows = [(float(s), c, str(i)) for i, (a, b, c) in enumerate(pairs) for s in (a, b)]
    before = aggregate(get_benchmark("mme"), *zip(*rows, strict=True))
    rng.shuffle(rows)
    assert aggregate(get_benchmark("mme"), *zip(*rows, strict=True)) == pytest.approx(before)
    assert 0 <= before <= 400


@pytest.mark.parametrize(
    ("name", "response", "options", "valid"),
    [
        ("pope", "Yes.", 0, True),
        ("pope", "no", 0, True),
        ("pope", "yesterday", 0, False),
        ("pope", "There is no dog", 0, False),
        ("mme", "", 0, False),
        ("seed", "B", 4, True),
        ("seed", " (c) ", 4, True),
        ("seed", "B. two", 4, True),
        ("seed", "E", 4, False),
        ("seed", "Because", 4, False),
        ("seed", "a dog", 4, False),
        ("sqa", "D", 3, False),
        ("gqa", "?!", 0, False),
        ("gqa", "\u00e9", 0, True),
        ("mmmu", "24", 0, True),  # an open question of a benchmark of choices
        ("gqa", None, 0, False),
    ],
)
def test_invalid_answers(name: str, response: str | None, options: int, valid: bool) -> None:
    assert is_valid_answer(get_benchmark(name), response, ["x"] * options) is valid


@given(st.text(), st.integers(1, 5))
def test_any_text_is_judged(text: str, options: int) -> None:
    letter = letter_of(text, options)
    assert letter is None or letter in "ABCDE"[:options]
    for name in ("pope", "seed", "gqa"):
        assert is_valid_answer(get_benchmark(name), text, ["x"] * options) in (True, False)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_real_documents_are_described(name: str) -> None:
    """Every real row has a question without prompts, and a target that would be scored as an answer."""
    benchmark = get_benchmark(name)
    for row in hub_rows()[REPOSITORIES[name]]:
        if row.get("data_type") == "video":
            continue
        info = describe(benchmark, row)
        assert info.question and "Answer" not in info.question and "yes or no" not in info.question
        assert is_valid_answer(benchmark, info.target, info.options)
        assert info.kind is None and info.cells is None


def test_what_the_real_rows_say() -> None:
    rows = {name: [describe(get_benchmark(name), r) for r in hub_rows()[key]] for name, key in REPOSITORIES.items()}
    assert [r.group for r in rows["mmb"]] == ["241", "241", "252"]
    assert rows["mmb"][2].options == ("day", "night") and rows["mmb"][0].level == "coarse"
    assert len({r.group for r in rows["mme"]}) == 3
    assert (rows["seed"][0].category, rows["seed"][0].level) == ("Instances Counting", "fine")
    assert rows["gqa"][0].image_key == rows["gqa"][1].image_key == "n161313"
    assert [r.target for r in rows["sqa"]] == ["B", "A"]
    assert rows["vqav2"][0].target == "net" and rows["mmmu"][0].category == "Accounting"


def test_scores_of_logged_samples() -> None:
    assert sample_score(get_benchmark("gqa"), {"exact_match": 0.3}) == 0.3
    assert sample_score(get_benchmark("mme"), {"mme_cognition_score": {"score": 1.0}}) == 1.0
    assert sample_score(get_benchmark("seed"), {"seed_image": {"pred": "b", "answer": "B "}}) == 1.0
    assert sample_score(get_benchmark("gqa"), {"resps": []}) is None


def test_the_manual_says_how_to_get_every_benchmarks_data() -> None:
    manual = (Path(__file__).parent.parent / "docs" / "real-models.md").read_text(encoding="utf-8")
    said = [line.replace('"', "").split()[1:] for line in manual.splitlines() if line.startswith("get ")]
    for benchmark in BENCHMARKS.values():
        assert [benchmark.dataset, f"{benchmark.config or 'data'}/{benchmark.split}-*"] in said
