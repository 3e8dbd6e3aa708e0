"""The CLIP that compares patches with questions, on a small random one: parts, pieces of long questions, errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn.functional import layer_norm
from transformers import CLIPConfig, CLIPModel, CLIPTextModelWithProjection, CLIPTokenizer, CLIPVisionConfig

from atp_eval.errors import UserError
from atp_eval.models.clip import ClipText

LONG = "is there a red star to the left of the number 7? " * 4  # 104 letters and marks, each a token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    signs = [chr(code) for code in range(33, 127)]
    words = [*signs, *(sign + "</w>" for sign in signs), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **sizes,
            "vocab_size": len(words),
            "eos_token_id": 2,
            "projection_dim": 12,
            "initializer_range": 0.5,
        },
        vision_config={**sizes, "hidden_size": 24, "image_size": 48, "patch_size": 8, "initializer_range": 0.5},
        projection_dim=12,
    )
    model = CLIPModel(config).double()
    torch.nn.init.normal_(model.vision_model.post_layernorm.weight)
    torch.nn.init.normal_(model.vision_model.post_layernorm.bias)
    model.save_pretrained(path)
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def clip(folder: Path) -> ClipText:
    return ClipText.load(str(folder), width=24, dtype=torch.float64)


def patches(batch: int, cells: int = 5) -> torch.Tensor:
    return torch.randn(batch, cells, 24, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def slow(folder: Path, features: torch.Tensor, question: str) -> list[float]:
    """[V] of one sample: transformers' text model for each piece of 77, the vision side from the tensors."""
    file = load_file(folder / "model.safetensors")
    text = CLIPTextModelWithProjection.from_pretrained(folder, dtype=torch.float64).eval()
    ids = CLIPTokenizer.from_pretrained(folder)(question)["input_ids"]
    pieces = [ids[i : i + 77] for i in range(0, len(ids), 77)]
    vectors = []
    for piece in pieces:
        filled, mask = piece + [0] * (77 - len(piece)), [1] * len(piece) + [0] * (77 - len(piece))
        with torch.no_grad():
            made = text(input_ids=torch.tensor([filled]), attention_mask=torch.tensor([mask]))
        vectors.append(made.text_embeds[0])
    norm = (file["vision_model.post_layernorm.weight"], file["vision_model.post_layernorm.bias"])
    found = []
    for patch in features:
        seen = file["visual_projection.weight"] @ layer_norm(patch, (24,), *norm)
        cosines = [(seen @ vector / (seen.norm() * vector.norm())).item() for vector in vectors]
        found.append(sum(cosines) / len(cosines))
    return found


@pytest.mark.parametrize("question", ["a red star?", "", LONG, LONG[: 75 + 26]])
def test_relevance_is_the_cosine_in_the_shared_space(clip: ClipText, folder: Path, question: str) -> None:
    features = patches(1)
    expected = torch.tensor([slow(folder, features[0], question)], dtype=torch.float64)
    torch.testing.assert_close(clip.relevance(features, [question]), expected, rtol=0, atol=1e-10)


def test_a_batch_of_long_and_short_questions_equals_its_samples_alone(clip: ClipText) -> None:
    features, questions = patches(3), ["a red star?", LONG, "7"]
    together = clip.relevance(features, questions)
    for i in range(3):
        alone = clip.relevance(features[i : i + 1], questions[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)


def test_pieces_of_77_hold_every_token_and_zeros_behind(clip: ClipText) -> None:
    start, end = clip.tokenizer.bos_token_id, clip.tokenizer.eos_token_id
    ids = clip.pieces("a 7")
    assert ids.shape == (1, 77) and ids[0, 0] == start and ids[0, 3] == end and not ids[0, 4:].any()
    full = clip.pieces("7" * 75)
    assert full.shape == (1, 77) and full[0, -1] == end  # with start and end exactly one piece
    ids = clip.pieces("7" * 76)
    assert ids.shape == (2, 77) and ids[0, 0] == start and ids[1].tolist() == [end] + [0] * 76
    assert end not in ids[0]


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=200))
def test_any_question_gives_cosines(clip: ClipText, question: str) -> None:
    found = clip.relevance(patches(1), [question])
    assert found.shape == (1, 5) and found.isfinite().all() and (found.abs() <= 1 + 1e-12).all()


def test_the_parts_are_the_checkpoints_and_the_vision_tower_is_let_go(clip: ClipText, folder: Path) -> None:
    file = load_file(folder / "model.safetensors")
    for part, prefix in (
        (clip.text, "text_model"),
        (clip.text_projection, "text_projection"),
        (clip.norm, "vision_model.post_layernorm"),
        (clip.visual_projection, "visual_projection"),
    ):
        assert len(part.state_dict()) > 0 and not part.training
        for key, value in part.state_dict().items():
            assert torch.equal(value, file[f"{prefix}.{key}"])


def test_single_precision_is_the_default_whatever_the_features(folder: Path, clip: ClipText) -> None:
    single, half = ClipText.load(str(folder)), ClipText.load(str(folder), dtype=torch.float16)
    found = single.relevance(patches(1).half(), ["a red star?"])
    assert found.dtype == half.relevance(patches(1), ["a red star?"]).dtype == torch.float32
    torch.testing.assert_close(found.double(), clip.relevance(patches(1), ["a red star?"]), rtol=0, atol=0.01)


def copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def refused(name: str | Path, width: int | None = None) -> str:
    with pytest.raises(UserError) as error:
        ClipText.load(str(name), width=width)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "clip=openai/none is neither a folder nor in the local Hugging Face cache" in refused("openai/none")
    assert "hf download nowhere" in refused("nowhere")
    assert "holds no config.json" in refused(tmp_path)


def test_another_width_or_kind_of_model_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "a vision tower of width 24, the model's has 1024; give the CLIP that" in refused(folder, width=1024)
    CLIPVisionConfig().save_pretrained(tmp_path)
    assert f"clip={tmp_path} is a clip_vision_model model, not a CLIP with a text tower" in refused(tmp_path)


def test_broken_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    pickled = copy(folder, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    assert "weights are read from safetensors only" in refused(pickled)

    cut = copy(folder, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((cut / "model.safetensors").read_bytes()[:2000])
    assert "cannot load clip=" in refused(cut)

    missing = copy(folder, tmp_path / "missing")
    weights = load_file(missing / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, missing / "model.safetensors", metadata={"format": "pt"})
    assert "1 tensors that its config.json asks for are missing or of another shape, such as visual_" in refused(
        missing
    )

    mute = copy(folder, tmp_path / "mute")
    (mute / "tokenizer.json").unlink()
    assert "has a tokenizer of 2 tokens for a text tower of 190; copy the whole folder" in refused(mute)

    garbled = copy(folder, tmp_path / "garbled")
    (garbled / "config.json").write_text(json.dumps({"model_type": 3}))
    assert "clip=" in refused(garbled)


def test_as_many_questions_as_pictures(clip: ClipText) -> None:
    with pytest.raises(UserError, match="1 questions for the patches of 2 pictures"):
        clip.relevance(patches(2), ["a?"])
