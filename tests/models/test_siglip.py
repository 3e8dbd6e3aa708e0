"""A vision tower without a CLS token: what loads, what is refused, and pruning from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import proofs
from engine.small import answer, make_batch
from transformers import LlavaForConditionalGeneration, PreTrainedConfig

from atp_eval.engine import model_geometry, prune
from atp_eval.errors import UserError
from atp_eval.methods import get_method
from atp_eval.models import load_model, model_config
from models.hub_folder import write_hub_folder
from models.siglip import siglip_config


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    model: Any = LlavaForConditionalGeneration(siglip_config()).eval().double()
    model.generation_config.eos_token_id = None
    return model


def test_the_geometry_tells_towers_with_and_without_cls_apart(model: Any, tmp_path: Path) -> None:
    write_hub_folder(tmp_path / "clip")
    assert model_geometry(model_config(str(tmp_path / "clip"))).has_cls
    found = model_geometry(model.config)
    assert (found.has_cls, found.grid, found.vision.pooling_head) == (False, (6, 6), True)


@pytest.mark.parametrize("spec", ["grid@36:layer=0", "random:layer=2,keep=36", "pool@36"])
def test_keep_everything_equals_the_untouched_model(model: Any, spec: str) -> None:
    proofs.keep_everything(prune, model, spec, proofs.mixed())


@pytest.mark.parametrize("spec", ["grid@9:layer=0", "grid@9", "pool@9", "fastv@20", "divprune@9"])
def test_pruning_equals_the_masked_reference_and_singles(model: Any, spec: str) -> None:
    batch = proofs.mixed()
    proofs.masked_reference(prune, model, spec, batch.single(0))
    proofs.batch_equals_singles(prune, model, spec, batch)


def test_the_budget_is_met(model: Any) -> None:
    with prune(model, "grid@9:layer=0") as pruned:
        answer(model, make_batch((5, 9)), steps=2)
    assert pruned.trace.tokens_per_layer().tolist() == [9] * 5


def test_a_method_that_needs_cls_is_refused_by_name(model: Any) -> None:
    with pytest.raises(UserError, match=r"vispruner.*CLS"), prune(model, "vispruner@9"):
        pass
    assert get_method("vispruner@9").solve(model_geometry(proofs.small_llava().config))


def test_a_folder_with_siglip_is_read(model: Any, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    found = model_config(str(tmp_path))
    assert found.vision_config.model_type == "siglip_vision_model"
    with pytest.raises(UserError, match=r"image mode crop: the SigLIP processor of .* use pad"):
        load_model(str(tmp_path), image="crop")


def with_config(folder: Path, **changes: Any) -> str:
    """A folder with a CLIP model's configuration and these changes in it."""
    write_hub_folder(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    return str(folder)


def test_clip_with_its_cls_token_among_the_cells_is_refused(tmp_path: Path) -> None:
    folder = with_config(tmp_path, vision_feature_select_strategy="full")
    with pytest.raises(UserError, match="'full' does not fit a clip_vision_model vision tower, which has a CLS token"):
        model_config(folder)


def test_siglip_without_its_first_cell_is_refused(tmp_path: Path) -> None:
    siglip_config("default").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'default' does not fit a siglip_vision_model vision tower.* to 'full'"):
        model_config(str(tmp_path))


def test_other_towers_and_several_layers_are_refused_by_name(tmp_path: Path) -> None:
    folder = with_config(tmp_path / "a", vision_config={"model_type": "pixtral"})
    with pytest.raises(UserError, match="has a pixtral vision tower; there are clip_vision_model, siglip_vision_model"):
        model_config(folder)
    folder = with_config(tmp_path / "b", vision_feature_layer=[-2, -5])
    with pytest.raises(UserError, match=r"image tokens from \[-2, -5\]; only one layer"):
        model_config(folder)
    other: Any = PreTrainedConfig()
    other.model_type = "pixtral"
    config = siglip_config()
    config.vision_config = other
    with pytest.raises(UserError, match="a pixtral vision tower is not supported"):
        model_geometry(config)
