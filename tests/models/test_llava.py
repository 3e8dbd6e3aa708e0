"""Loading and asking LLaVA-1.5 checkpoints, on a folder in the layout of llava-hf/llava-1.5-7b-hf."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file, save_file

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.models import Bundle, load_model
from atp_eval.models.llava import VICUNA_V1
from atp_eval.models.pictures import seen, squared
from atp_eval.models.weights import weight_hash
from models.hub_folder import MEAN, write_hub_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hub") / "llava-1.5-7b-hf"
    write_hub_folder(path)
    return path


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_model(str(folder))


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


def test_the_hub_layout_loads_with_its_weights(bundle: Bundle, tmp_path: Path) -> None:
    model = write_hub_folder(tmp_path)
    loaded = bundle.model.state_dict()
    assert set(loaded) == set(model.state_dict())
    assert all(torch.equal(loaded[key], tensor) for key, tensor in model.state_dict().items())
    assert bundle.geometry.grid == (24, 24) and bundle.geometry.num_layers == 4 and bundle.geometry.head_dim == 8
    assert bundle.geometry.vision.feature_layer == -2
    assert bundle.device == torch.device("cpu") and bundle.dtype == torch.float32
    assert bundle.tokenizer.padding_side == "left"
    assert bundle.weight_hash == weight_hash(tmp_path) and len(bundle.weight_hash) == 64


def test_prompts_are_the_checkpoints_or_vicunas(bundle: Bundle, folder: Path) -> None:
    assert bundle.prompt("What is it?") == "USER: <image>\nWhat is it? ASSISTANT:"
    assert bundle.prompt("What is it?", images=0) == "USER: What is it? ASSISTANT:"
    vicuna = load_model(str(folder), prompt="vicuna_v1")
    assert vicuna.prompt("What is it?") == VICUNA_V1 + "USER: <image>\nWhat is it? ASSISTANT:"
    assert vicuna.prompt("Hi", images=0) == VICUNA_V1 + "USER: Hi ASSISTANT:"
    with pytest.raises(UserError, match="2 images in one question"):
        bundle.prompt("What is it?", images=2)


def test_features_then_generate_equals_transformers_own_way(bundle: Bundle) -> None:
    texts, images = ["What is in the picture?", "a number?"], [picture(200, 336), picture(336, 336, 1)]
    plain = bundle.processor(
        text=[bundle.prompt(text) for text in texts],
        images=[squared(image, "pad", tuple(MEAN)) for image in images],
        return_tensors="pt",
        padding=True,
    )
    features = bundle.encode(images)
    assert features.shape == (2, 576, 32)
    inputs = bundle.inputs(texts, list(features))
    assert torch.equal(inputs["input_ids"], plain["input_ids"])
    assert torch.equal(inputs["attention_mask"], plain["attention_mask"])
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    for mode in ({}, {"num_beams": 2}):
        own = bundle.model.generate(**plain, **options, **mode)  # type: ignore[operator]
        assert torch.equal(bundle.generate(inputs, **options, **mode), own)


def test_questions_with_and_without_an_image_share_a_batch_and_an_encoding(bundle: Bundle) -> None:
    calls = []
    hook = bundle.model.model.vision_tower.register_forward_pre_hook(lambda *args: calls.append(1))
    one, two = bundle.encode([picture(336, 336), picture(100, 50, 1)])
    texts, images = ["a star?", "Hi", "What is the number?", "a picture?"], [one, None, two, one]
    inputs = bundle.inputs(texts, images)
    for spec in ("upper_bound", "fastv@288", "pool@144"):
        with prune(bundle.model, spec) as pruned:
            together = bundle.generate(inputs, max_new_tokens=4, min_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
            assert [trace.grid for trace in pruned.traces] == [(24, 24), (0, 0), (24, 24), (24, 24)]
            for row, (text, image) in enumerate(zip(texts, images, strict=True)):
                single = bundle.inputs([text], [image])
                alone = bundle.generate(single, max_new_tokens=4, min_new_tokens=4)
                assert torch.equal(alone[0, single["input_ids"].shape[1] :], together[row])
    hook.remove()
    assert len(calls) == 1
    assert "get_image_features" not in vars(bundle.model.model)


def test_features_are_handed_back_after_an_exception(bundle: Bundle) -> None:
    inputs = bundle.inputs(["a star?"], [bundle.encode([picture(9, 9)])[0]])
    with pytest.raises(ValueError):
        bundle.generate(inputs, max_new_tokens=-1)
    assert "get_image_features" not in vars(bundle.model.model)


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(max_size=60)
    | st.sampled_from(["<image>", "a <image> b <image>", "<ima<image>ge>", "</s><pad>", "{{ 7*7 }}"])
)
def test_any_text_has_exactly_one_image(bundle: Bundle, text: str) -> None:
    inputs = bundle.inputs([text, text], [torch.zeros(576, 32), None])
    assert (inputs["input_ids"] == bundle.model.config.image_token_id).sum(1).tolist() == [576, 0]


@given(width=st.integers(1, 500), height=st.integers(1, 500), mode=st.sampled_from(["pad", "crop"]))
@settings(max_examples=30, deadline=None)
def test_the_view_is_a_square_of_the_towers_size(width: int, height: int, mode: Any) -> None:
    if max(width, height) > 20 * min(width, height):
        return
    assert seen(Image.new("RGB", (width, height)), mode, tuple(MEAN), 336).size == (336, 336)


@pytest.mark.parametrize("mode", ["pad", "crop"])
@pytest.mark.parametrize("size", [(336, 336), (500, 336), (200, 400), (336, 100)])
def test_the_view_lies_where_the_tower_looks(bundle: Bundle, mode: Any, size: tuple[int, int]) -> None:
    """A smooth picture, so that only the geometry can differ from what the processor hands to the tower."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], -1).astype(np.uint8))
    processor = bundle.processor.image_processor
    pixels = processor([squared(image, mode, tuple(MEAN))], return_tensors="pt")["pixel_values"][0].numpy()
    tower = pixels * np.array(processor.image_std)[:, None, None] + np.array(processor.image_mean)[:, None, None]
    view = np.asarray(seen(image, mode, tuple(MEAN), 336)).transpose(2, 0, 1) / 255
    assert np.abs(tower - view).mean() < 0.01


def test_padding_uses_the_mean_colour_and_centres_the_picture() -> None:
    image = squared(Image.new("RGBA", (10, 4), (255, 0, 0, 255)), "pad", tuple(MEAN))
    assert image.size == (10, 10) and image.mode == "RGB"
    assert image.getpixel((5, 2)) == (122, 116, 104) == image.getpixel((5, 7))
    assert image.getpixel((0, 3)) == (255, 0, 0) == image.getpixel((9, 6))


@pytest.mark.parametrize(("options", "message"), [
    ({"name": "tinny"}, "unknown model 'tinny': no folder of that name, and not a hub id (owner/name). Did you mean: "
     "tiny?"),
    ({"name": "./nowhere/at-all"}, "unknown model './nowhere/at-all'"),
    ({"name": "somebody/no-such-model"}, "not in the local Hugging Face cache and could not be fetched. "
     "With a network: hf download somebody/no-such-model"),
    ({"device": "gpu"}, "unknown device 'gpu'"),
    ({"device": "meta"}, "unknown device 'meta'"),
    ({"dtype": "float31"}, "unknown dtype 'float31'. Did you mean: float"),
    ({"attention": "flash"}, "unknown attention 'flash'. Choose from: sdpa, eager, flash_attention_2."),
    ({"attention": "flash_attention_2", "device": "cpu"}, "flash_attention_2 needs a CUDA device"),
    ({"image": "stretch"}, "unknown image mode 'stretch'"),
    ({"prompt": "vicuna"}, "unknown prompt 'vicuna'. Did you mean: vicuna_v1?"),
    ({"trust_remote_code": True}, "trust_remote_code is not supported"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_one_clear_line(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        load_model(**{"name": str(folder), **options})
    assert message in str(error.value) and "\n" not in str(error.value)


def test_cuda_without_a_gpu_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device is available here; use device cpu or auto"):
        load_model(str(folder), device="cuda")


def test_folders_that_are_no_llava_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no config.json"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="is a llama model; only llava models"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("not json")
    with pytest.raises(UserError, match="cannot read the configuration"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(UserError, match="cannot load") as error:
        load_model(str(tmp_path))
    assert "\n" not in str(error.value)


SHARD = "model-00001-of-00002.safetensors"


def torn(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:1000])


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / SHARD)
    del tensors[min(tensors)]
    save_file(tensors, folder / SHARD, metadata={"format": "pt"})


def of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["intermediate_size"] = 128
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (torn, "cannot load .*invalid header length"),
        (without_a_tensor, "1 tensors that its config.json asks for are missing or of another shape"),
        (of_another_shape, "12 tensors .* such as model.language_model.layers.0.mlp.down_proj.weight"),
    ],
)
def test_weights_are_whole_or_refused(damage: Any, message: str, folder: Path, tmp_path: Path) -> None:
    """transformers would draw what is missing at random and go on with a warning."""
    shutil.copytree(folder, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path / "model"))


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_pixels_are_what_the_tower_is_shown(mode: Any, bundle: Bundle) -> None:
    images, shown = [picture(200, 336), picture(400, 300, 1)], []
    bundle = replace(bundle, image_mode=mode)
    hook = bundle.model.model.vision_tower.register_forward_pre_hook(lambda module, args: shown.append(args[0]))
    bundle.encode(images)
    hook.remove()
    assert bundle.pixels(images).shape == (2, 3, 336, 336)
    assert torch.equal(bundle.pixels(images), shown[0])


def test_the_weight_hash_sees_every_byte_and_samples_large_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(5000))
    whole = weight_hash(tmp_path)
    file.write_bytes(bytes(4999) + b"x")
    assert weight_hash(tmp_path) != whole
    monkeypatch.setattr("atp_eval.models.weights.WHOLE_BYTES", 100)
    monkeypatch.setattr("atp_eval.models.weights.BLOCK_BYTES", 10)
    sampled = weight_hash(tmp_path)
    assert sampled.endswith("-sampled")
    file.write_bytes(b"x" + bytes(4999))
    assert weight_hash(tmp_path) != sampled
    file.write_bytes(bytes(5001))
    assert weight_hash(tmp_path) != sampled
