"""The embedded suite: enough questions, balanced, held out, the same everywhere, and repaired when damaged."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Features

from atp_eval.benchmarks import MAIN, MINI_MME, get_benchmark
from atp_eval.scenes import suite
from atp_eval.scenes.prompts import FORMS
from atp_eval.scenes.questions import BENCHMARK_KINDS
from atp_eval.scenes.schemas import features
from atp_eval.scenes.world import sample_scene, split_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return suite.materialise(tmp_path_factory.mktemp("suite") / "a")


@pytest.fixture(scope="module")
def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(folder / f"{name}.parquet") for name in MAIN}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "IMAGES", 6)
    monkeypatch.setattr(suite, "QUESTIONS", 12)


def answers(name: str, table: pd.DataFrame) -> pd.Series:
    """The texts of the right answers."""
    if name == "sqa":
        return pd.Series([choices[i] for choices, i in zip(table["choices"], table["answer"], strict=True)])
    if name == "seed":
        return pd.Series([row[f"choice_{row['answer'].lower()}"] for _, row in table.iterrows()])
    if name == "mmb":
        return pd.Series([row[row["answer"]] for _, row in table.iterrows()])
    return table["multiple_choice_answer" if name == "vqav2" else "answer"].str.lower()


def letters(name: str, table: pd.DataFrame) -> pd.Series:
    return table["answer"].map("ABCD".__getitem__) if name == "sqa" else table["answer"]


@pytest.mark.parametrize("name", MAIN)
def test_enough_questions_several_an_image(name: str, tables: dict[str, pd.DataFrame]) -> None:
    table = tables[name]
    assert len(table) >= 300
    assert table["scene_seed"].nunique() >= 100
    assert len(table) / table["scene_seed"].nunique() >= 2
    assert set(table["level"]) <= {"coarse", "middle", "fine"}


@pytest.mark.parametrize("name", MAIN)
def test_rows_are_of_the_real_schema(name: str, folder: Path) -> None:
    assert Features.from_arrow_schema(pq.read_schema(folder / f"{name}.parquet")) == features(name)


@pytest.mark.parametrize("name", MAIN)
def test_kinds_follow_their_weights(name: str, tables: dict[str, pd.DataFrame]) -> None:
    weights = BENCHMARK_KINDS[name]
    shares = tables[name]["kind"].value_counts(normalize=True)
    assert {kind: shares.get(kind, 0) for kind in weights} == pytest.approx(
        {kind: w / sum(weights.values()) for kind, w in weights.items()}, abs=0.02
    )


@pytest.mark.parametrize("name", MAIN)
def test_answers_are_balanced(name: str, tables: dict[str, pd.DataFrame]) -> None:
    """No answer of a kind beyond a quarter, or beyond an equal share where there are fewer answers."""
    table = tables[name].assign(text=answers(name, tables[name]))
    for kind, rows in table.groupby("kind"):
        share = max(0.25, 1 / rows["text"].nunique())
        assert rows["text"].value_counts().max() <= math.ceil(share * len(rows)), kind


@pytest.mark.parametrize("name", [n for n in MAIN if FORMS[n] == "yesno"])
def test_yes_and_no_are_equally_often_right(name: str, tables: dict[str, pd.DataFrame]) -> None:
    table = tables[name]
    for _, rows in table.groupby("kind"):
        assert abs((rows["answer"].str.lower() == "yes").mean() - 0.5) <= 1 / len(rows)


@pytest.mark.parametrize("name", [n for n in MAIN if FORMS[n] == "choice"])
def test_letters_are_balanced_and_options_differ(name: str, tables: dict[str, pd.DataFrame]) -> None:
    table = tables[name]
    shares = letters(name, table).value_counts(normalize=True)
    assert len(shares) == 4 and (shares - 0.25).abs().max() <= 0.06  # D is missing where a row has three options
    for _, row in table.iterrows():
        if name == "mmb":
            options = [row[x] for x in "ABCD" if row[x] != "nan"]
        else:
            options = list(row["choices"]) if name == "sqa" else [row[f"choice_{x}"] for x in "abcd"]
        assert len(set(options)) == len(options) >= 3


def test_mme_comes_in_pairs_of_the_announced_categories(tables: dict[str, pd.DataFrame]) -> None:
    table = tables["mme"]
    assert set(table["category"]) == set(MINI_MME)
    for _, pair in table.groupby("question_id"):
        assert sorted(pair["answer"]) == ["No", "Yes"] and pair["category"].nunique() == 1
    assert table.groupby(["category", "scene_seed"]).size().eq(2).all()
    assert get_benchmark("mme").mini_scale == 200 * table["category"].nunique()


@pytest.mark.parametrize("name", MAIN)
def test_questions_are_not_repeated_about_an_image(name: str, tables: dict[str, pd.DataFrame]) -> None:
    if name == "mme":  # "Is there …?" may be a pair's true and another pair's false claim
        return
    assert not tables[name].duplicated(["scene_seed", "question"]).any()


@pytest.mark.parametrize("name", MAIN)
def test_a_first_part_is_balanced_too(name: str, tables: dict[str, pd.DataFrame]) -> None:
    head = tables[name].head(60)
    assert set(head["kind"]) == set(BENCHMARK_KINDS[name])
    assert head["scene_seed"].nunique() >= 30


def test_only_held_out_scenes_are_asked_about(tables: dict[str, pd.DataFrame]) -> None:
    for seed in set().union(*(t["scene_seed"] for t in tables.values())):
        scene = sample_scene(int(seed), "eval")
        assert split_of(scene.setting, scene.things) == "eval"


def test_cells_say_where_the_things_are(tables: dict[str, pd.DataFrame]) -> None:
    for table in tables.values():
        about_things = table[~table["kind"].isin(["setting", "animal"])]
        assert about_things["things_cells"].map(len).median() > 4
        assert about_things["things_cells"].map(lambda c: all(0 <= x < 576 for x in c)).all()
        assert (table[table["kind"].isin(["setting", "animal"])]["things_cells"].map(len) == 0).all()


def test_objects_are_the_things_of_the_scene(tables: dict[str, pd.DataFrame]) -> None:
    for table in tables.values():
        for row in table.head(40).itertuples():
            assert row.objects == len(sample_scene(row.scene_seed, "eval").things)
        assert table["objects"].nunique() > 2


def test_training_data_are_no_part_of_the_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another version of the suite's code is another suite; another one of instructions.py is not."""
    for path in Path(suite.__file__).parent.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(suite, "__file__", str(tmp_path / "suite.py"))
    before = suite.source_hash()
    (tmp_path / "instructions.py").write_text("changed = True")
    assert suite.source_hash() == before
    (tmp_path / "prompts.py").write_text("changed = True")
    assert suite.source_hash() != before


def test_another_process_builds_the_same(folder: Path, tmp_path: Path) -> None:
    code = "import sys, pathlib, atp_eval.scenes.suite as s; s.materialise(pathlib.Path(sys.argv[1]))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b")], check=True, env=env)
    for name in MAIN:
        a, b = (pd.read_parquet(f / f"{name}.parquet").drop(columns="image") for f in (folder, tmp_path / "b"))
        assert a.to_json() == b.to_json()
    pictures = [{p.name: p.read_bytes() for p in (f / "images").iterdir()} for f in (folder, tmp_path / "b")]
    assert pictures[0] == pictures[1] and len(pictures[0]) == suite.IMAGES


@pytest.mark.usefixtures("small")
def test_an_intact_suite_is_used_again_and_a_damaged_one_replaced(tmp_path: Path) -> None:
    folder = suite.materialise(tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    suite.materialise(folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    victim = folder / "gqa.parquet"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    assert not suite.intact(folder)
    suite.materialise(folder)
    assert victim.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


@pytest.mark.usefixtures("small")
def test_a_moved_suite_is_built_again(tmp_path: Path) -> None:
    moved = suite.materialise(tmp_path / "s").rename(tmp_path / "t")
    assert not suite.intact(moved)  # the rows name the pictures by absolute path


def test_a_broken_off_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(building: Path, folder: Path) -> None:
        building.mkdir()
        (building / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "_build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        suite.materialise(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_kinds_that_scenes_do_not_allow_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = sample_scene(0, "eval")
    monkeypatch.setattr(suite, "ask", lambda *_: None)
    with pytest.raises(ValueError, match="extreme"):
        suite.compose("gqa", [scene], [suite.render(scene)], ["x.webp"])


def test_the_least_used_letter_gets_the_right_option() -> None:
    balance = suite.Balance({"extreme": 1})
    balance.letters = Counter(
        {("extreme", "A"): 2, ("extreme", "B"): 1, ("extreme", "C"): 1, ("", "B"): 5, ("", "C"): 4}
    )
    assert balance.letter("extreme", 3) == 2
    assert balance.letter("extreme", 4) == 3
