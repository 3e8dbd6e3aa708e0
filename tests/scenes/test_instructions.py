"""Training data about scenes: LLaVA's format, held-in scenes, balanced, the same everywhere."""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from atp_eval.errors import UserError
from atp_eval.models import tiny
from atp_eval.scenes import instructions
from atp_eval.scenes.instructions import SHARES, write_instructions
from atp_eval.scenes.prompts import FORMS, LETTERS, SEVERAL, SHORT, pose
from atp_eval.scenes.questions import BENCHMARK_KINDS
from atp_eval.scenes.render import render
from atp_eval.scenes.world import sample_scene, split_of


def composed(images: int, per_image: int, seed: int = 0) -> list[dict[str, Any]]:
    """The rows alone, without pictures."""
    return list(instructions._rows((sample_scene(i, "train") for i in range(images)), per_image, seed))


ROWS = composed(150, 6)


def asked(row: dict[str, Any]) -> tuple[str, str]:
    """Benchmark and kind."""
    benchmark, kind = row["id"].split("/")[2:]
    return benchmark, kind


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_files_are_in_llavas_format(tmp_path: Path) -> None:
    path = write_instructions(tmp_path, images=3, per_image=4, seed=0)
    assert path == tmp_path / "instructions.json"
    rows = json.loads(path.read_text())
    assert len(rows) == 12 and len({row["id"] for row in rows}) == 12
    for i, row in enumerate(rows):
        assert list(row) == ["id", "image", "conversations"]
        human, gpt = row["conversations"]
        assert human["from"] == "human" and human["value"].startswith("<image>\n")
        assert gpt["from"] == "gpt" and gpt["value"]
        picture = np.asarray(Image.open(tmp_path / row["image"]))
        assert np.array_equal(picture, render(sample_scene(i // 4, "train")).image)
    assert len(content(tmp_path)) == 4


def test_scenes_are_not_those_of_the_evaluation() -> None:
    for row in ROWS:
        scene = sample_scene(int(row["id"].split("/")[0].removeprefix("scene-")), "train")
        assert split_of(scene.setting, scene.things) == "train"
    assert len({row["image"] for row in ROWS}) == 150


def test_questions_are_the_benchmarks_strings() -> None:
    """Every prompt can be posed, with this answer, in the form of its benchmark; and the tiny model knows its words."""
    tokenizer = tiny.tokenizer()
    for row in ROWS:
        benchmark, kind = asked(row)
        text, answer = (turn["value"] for turn in row["conversations"])
        prompt = text.removeprefix("<image>\n")
        lines = prompt.split("\n")
        if FORMS[benchmark] == "choice":
            assert answer in LETTERS and any(line.startswith(f"{answer}. ") for line in lines)
            assert (SEVERAL in prompt) == (benchmark == "mmb") and prompt.startswith("Context: ") == (
                benchmark == "sqa"
            )
        else:
            assert lines[1:] == [SHORT]
            assert FORMS[benchmark] == "open" or answer in ("yes", "no")
        assert tokenizer.unk_token_id not in tokenizer(f"{prompt} {answer}").input_ids
    row = ROWS[0]
    scene, (benchmark, kind) = sample_scene(0, "train"), asked(row)
    found = [pose(scene, benchmark, kind, random.Random(i)) for i in range(400)]
    said = tuple(turn["value"] for turn in row["conversations"])
    assert said in {(f"<image>\n{p.prompt}", p.answer) for p in found if p}


def test_benchmarks_and_kinds_have_their_shares() -> None:
    assert sum(SHARES.values()) == pytest.approx(1)
    found = Counter(map(asked, ROWS))
    assert {pair: found[pair] / len(ROWS) for pair in SHARES} == pytest.approx(SHARES, abs=0.005)
    assert set(found) == {(benchmark, kind) for benchmark, kinds in BENCHMARK_KINDS.items() for kind in kinds}
    head = Counter(benchmark for benchmark, _ in map(asked, ROWS[:140]))
    assert all(abs(head[benchmark] - 20) <= 6 for benchmark in FORMS)


def test_answers_are_balanced() -> None:
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in ROWS:
        found[FORMS[asked(row)[0]]][row["conversations"][1]["value"]] += 1
    assert found["yesno"]["yes"] / found["yesno"].total() == pytest.approx(0.5, abs=0.02)
    assert all(found["choice"][letter] / found["choice"].total() > 0.15 for letter in LETTERS)
    assert max(found["open"].values()) / found["open"].total() < 0.15


def test_no_question_is_asked_twice_about_a_picture() -> None:
    """Not even with its options in another order."""
    asked_of = [
        (row["image"], FORMS[asked(row)[0]], *re.findall(r"[^\n?]*\?", row["conversations"][0]["value"]))
        for row in ROWS
    ]
    assert len(set(asked_of)) == len(asked_of)


def test_everything_follows_from_the_seed(tmp_path: Path) -> None:
    for name, options in (("a", {}), ("b", {"workers": 2}), ("c", {"seed": 2})):
        write_instructions(tmp_path / name, images=3, per_image=2, **options)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_a_broken_off_writing_leaves_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, number: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(instructions, "_draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_instructions(tmp_path, images=2, per_image=1)
    assert content(tmp_path) == {}


def test_more_questions_than_a_scene_allows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = instructions.pose
    monkeypatch.setattr(instructions, "pose", lambda *args: real(*args) if args[2] == "setting" else None)
    with pytest.raises(UserError, match=r"scene 1000000 allows [4-7] questions; per_image 50 is too many"):
        write_instructions(tmp_path, images=1, per_image=50)  # a choice, true, or one of five lies
    with pytest.raises(UserError, match="images 0: give 1 to 1000000"):
        write_instructions(tmp_path, images=0, per_image=1)
