"""Encoded pictures on the disk: found again, by others too; never believed blindly; never more than the limit."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from asked import answerer, outcomes, questions
from bundles import small_bundle
from safetensors.torch import save

from atp_eval.answering import Answerer
from atp_eval.encoded import Encoded
from atp_eval.engine import VisionStates
from atp_eval.errors import UserError
from atp_eval.features import STALE_SECONDS, FeatureStore
from atp_eval.methods import get_method
from atp_eval.models import Bundle

SIZE = 36 * 32 * 4  # bytes of a picture's features in the small model
STATES = VisionStates(torch.rand(1, 3, 84, 84), torch.rand(1, 37, 32), torch.rand(1, 37, 32))


def store(
    folder: Path, said: list[str] | None = None, limit: int = 2**20, bundle: Bundle | None = None
) -> FeatureStore:
    return FeatureStore(folder, bundle or small_bundle(), limit, [].append if said is None else said.append)


def features(seed: int = 0) -> Encoded:
    return Encoded(torch.rand(36, 32, generator=torch.Generator().manual_seed(seed)))


def filled(folder: Path, said: list[str] | None = None) -> FeatureStore:
    found = store(folder, said)
    found.put("a", features())
    found.flush()
    return found


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.safetensors"))


def towers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each pass of the vision tower takes."""
    seen: list[int] = []
    encode = Bundle.encode_pixels
    monkeypatch.setattr(Bundle, "encode_pixels", lambda self, pixels: seen.append(len(pixels)) or encode(self, pixels))
    return seen


def test_a_second_run_needs_no_vision_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, answers = towers(monkeypatch), []
    write = FeatureStore._write
    monkeypatch.setattr(FeatureStore, "_write", lambda *args: time.sleep(0.05) or write(*args))
    for _ in range(2):
        found = answerer(store=store(tmp_path))
        found.answer(questions())
        assert len(files(tmp_path)) == 4  # all are there when the questions are answered
        answers.append(outcomes(found))
    assert sum(seen) == 4
    plain = answerer()
    plain.answer(questions())
    assert answers[0] == answers[1] == outcomes(plain)


def test_states_are_kept_for_methods_that_look_at_the_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run without such methods leaves files without; one with them makes these again, and then they serve both."""
    seen, bundle = towers(monkeypatch), small_bundle()

    def passes(spec: str) -> int:
        kept, before = store(tmp_path), sum(seen)
        found = Answerer(bundle, {spec: get_method(spec).solve(bundle.geometry)}, batch_size=4, store=kept)
        found.answer(questions())
        assert all(record.error is None for record in found.recorded(spec, "gqa").values())
        return sum(seen) - before

    assert [passes(spec) for spec in ("fastv@18", "visionzip@9", "fastv@18", "visionzip@9")] == [4, 4, 0, 0]


def test_what_comes_back_is_what_was_put(tmp_path: Path) -> None:
    kept, given = store(tmp_path), Encoded(features().features, STATES)
    kept.put("a", given)
    kept.flush()
    for found in (kept.get("a", states=True), store(tmp_path).get("a", states=True)):
        assert found is not None and found.states is not None
        assert torch.equal(found.features, given.features)
        assert all(torch.equal(a, b) for a, b in zip(found.states, STATES, strict=True))
    assert kept.get("b") is None


@pytest.mark.parametrize(
    "other",
    [
        lambda b: replace(b, weight_hash="others"),
        lambda b: replace(b, image_mode="crop"),
        lambda b: replace(b, dtype=torch.bfloat16),
    ],
)
def test_another_model_or_transform_finds_nothing(other: Any, tmp_path: Path) -> None:
    filled(tmp_path)
    assert store(tmp_path, bundle=other(small_bundle())).get("a") is None
    assert store(tmp_path).get("a") is not None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def of_another(path: Path) -> None:
    kept = store(path.parents[1])
    kept.put("b", features(1))
    kept.flush()
    os.replace(kept.path("b"), path)


def without_checksums(path: Path) -> None:
    path.write_bytes(save({"features": torch.zeros(36, 32)}, {"image": "a", "made_by": store(path.parents[1]).made_by}))


@pytest.mark.parametrize("damage", [cut, emptied, flipped, of_another, without_checksums])
def test_damaged_files_are_made_again_with_one_note(damage: Any, tmp_path: Path) -> None:
    said: list[str] = []
    kept = filled(tmp_path, said)
    for _ in range(2):
        damage(kept.path("a"))
        assert kept.get("a") is None and not kept.path("a").exists()
        kept.put("a", features())
        kept.flush()
        assert kept.get("a") is not None
    assert len(said) == 1 and said[0].startswith("cached features are damaged and made again, first ")


def test_what_cannot_be_read_is_said_once_and_ends_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    kept = filled(tmp_path, said)
    kept.path("a").unlink()
    kept.path("a").mkdir()
    assert kept.get("a") is None and kept.get("a") is None
    assert len(said) == 1
    assert said[0].startswith(f"cached features cannot be read; going on without, first {kept.path('a').name}: ")


def test_files_of_others_are_read_and_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: Any, **options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    said: list[str] = []
    kept = filled(tmp_path, said)
    monkeypatch.setattr(os, "utime", refused)
    assert kept.get("a") is not None and said == []
    cut(kept.path("a"))
    monkeypatch.setattr(Path, "unlink", refused)
    assert kept.get("a") is None and len(said) == 1


def test_a_lock_that_is_none_of_ours_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / ".trim.lock").mkdir()
    kept = filled(tmp_path)
    kept.trim()
    assert kept.get("a") is not None


def test_the_least_recently_used_leave_beyond_the_limit(tmp_path: Path) -> None:
    kept = store(tmp_path, limit=10 * (SIZE + 400))
    for i in range(8):
        kept.put(f"{i}", features(i))
    kept.flush()
    for i in range(8):
        os.utime(kept.path(f"{i}"), (i, i))
    assert kept.get("0") is not None  # used now
    for i in range(8, 12):
        kept.put(f"{i}", features(i))
    kept.flush()
    kept.trim()
    assert sum(path.stat().st_size for path in files(tmp_path)) <= kept.limit
    there = [i for i in range(12) if kept.path(f"{i}").exists()]
    assert {0, 8, 9, 10, 11} <= set(there) and 1 not in there and 2 not in there


def test_what_killed_processes_left_half_written_goes(tmp_path: Path) -> None:
    kept = filled(tmp_path)
    old, young = (kept.path("a").with_name(f".x.safetensors.{pid}") for pid in (1, 2))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, os.path.getmtime(young) - 2 * STALE_SECONDS))
    kept.trim()
    assert not old.exists() and young.exists() and kept.get("a") is not None


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []

    def killed(source: Path, target: Path) -> None:
        there.append(target.exists())
        raise OSError(5, "killed here")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        kept = filled(tmp_path)
    assert there == [False] and kept.get("a") is None and list(tmp_path.glob("??/*")) == []


def test_processes_of_equal_numbers_write_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of two containers are, on a folder that they share."""
    used: list[Path] = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda source, target: used.append(source) or replace(source, target))
    for _ in range(2):
        filled(tmp_path)
    assert len(used) == len(set(used)) == 2


def test_whatever_ends_the_writing_of_a_picture_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> bytes:
        raise RuntimeError("no such type")

    monkeypatch.setattr("atp_eval.features.save", broken)
    said: list[str] = []
    kept = filled(tmp_path, said)
    kept.put("b", features(1))
    kept.flush()
    assert said == [f"cannot keep pictures in {tmp_path}: RuntimeError: no such type"]


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache-features .*file cannot be written: .*Name another folder"):
        store(tmp_path / "file")


def test_a_disk_that_takes_no_more_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    kept = store(tmp_path, said)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    for i in range(100):  # more than may wait
        kept.put(f"{i}", features(i))
    kept.flush()
    assert said == [f"cannot write to {tmp_path}: No space left on device; going on without"]
    assert kept.get("0") is None and not list(tmp_path.glob("??/*"))


BESIDE = """
import sys
from pathlib import Path
from test_features import features, store
said = []
kept = store(Path(sys.argv[1]), said, limit=40000)
for turn in range(3):
    for i in range(20):
        kept.put(f"{i}", features(i))
        found = kept.get(f"{(7 * i) % 20}")
        assert found is None or (found.features == features((7 * i) % 20).features).all()
kept.flush()
assert not said, said
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """They write, read and remove the same pictures at once: none sees half a file or another's picture."""
    command = [sys.executable, "-c", BESIDE, str(tmp_path)]
    beside = [subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.PIPE) for _ in range(2)]
    for process in beside:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
