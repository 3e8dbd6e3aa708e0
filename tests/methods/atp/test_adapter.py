"""Adapter folders: what is saved is what is loaded; what is missing, damaged or does not fit is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.proofs import batch_equals_singles
from engine.small import answer, make_batch, small_llava
from engine.test_block import attached
from safetensors.torch import load_file, save_file

from atp_eval.engine import prune
from atp_eval.errors import UserError
from atp_eval.methods.atp import ATP, Adapter, adapter, load_adapter, read_config
from methods.adapters import random_adapter
from methods.atp.proofs import made, ragged

CONFIG, MODULES, LANGUAGE_MODEL = "config.json", "modules.safetensors", "language_model.safetensors"


@pytest.fixture(scope="module")
def model() -> Any:
    return small_llava()


def language_model() -> dict[str, torch.Tensor]:
    """Another one."""
    named = small_llava(seed=3, dtype=torch.float32).named_parameters()
    return {name: p.detach() for name, p in named if "language_model" in name or "lm_head" in name}


def with_language_model(model: Any, **options: Any) -> Adapter:
    plain = random_adapter(model, **options)
    return replace(
        plain, config=plain.config.model_copy(update={"language_model": True}), language_model=language_model()
    )


@pytest.fixture
def folder(model: Any, tmp_path: Path) -> Path:
    """A good adapter, for the test to break."""
    with_language_model(model).save(tmp_path / "adapter")
    return tmp_path / "adapter"


def edit(folder: Path, **changes: Any) -> None:
    """Write values into config.json; `base__grid` is `grid` under `base`."""
    data = json.loads((folder / CONFIG).read_text())
    for name, value in changes.items():
        *parents, key = name.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[key] = value
    (folder / CONFIG).write_text(json.dumps(data))


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Put tensors into modules.safetensors; None takes one out."""
    tensors = {**load_file(folder / MODULES), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / MODULES)


@pytest.mark.parametrize("options", [
    {},
    {"learned_mix": True, "score_norm": "rank", "causal_self": True},
    {"positions": "2d", "layers": (1, 2, 4), "rules": "spatial", "scores": "cross", "lambda_sample": 1.5,
     "strides": (2, 5), "hidden": 3},
])  # fmt: skip
def test_what_is_saved_is_loaded(model: Any, options: dict[str, Any], tmp_path: Path) -> None:
    before = random_adapter(model, **options)
    config = before.config.model_copy(update={"target": 12.0, "average": 12.5, "training": {"seed": 3, "lr": 1e-4}})
    replace(before, config=config).save(tmp_path)
    after = load_adapter(tmp_path)
    assert after.config == config == read_config(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, MODULES]
    state = before.modules.state_dict()
    assert list(after.modules.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in after.modules.state_dict().items())
    assert torch.equal(after.theta, before.theta) and torch.equal(after.counts, before.counts)
    assert after.language_model is None
    assert not any(p.requires_grad for p in after.modules.parameters()) and not after.modules.training


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_others_may_read_what_the_umask_lets_them(model: Any, tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with_language_model(model).save(tmp_path)
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, MODULES, LANGUAGE_MODEL}
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o666 & ~umask}


def test_a_new_adapter_takes_the_place_of_the_old_one_as_a_whole(model: Any, folder: Path) -> None:
    """Also one without a language model. A failure while writing leaves the old one, one later leaves none."""
    old, new = load_adapter(folder), random_adapter(model, hidden=3)
    for writes in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(adapter, "write_tensors", failing(adapter.write_tensors, writes))
            with pytest.raises(OSError, match="disk full"):
                with_language_model(model, hidden=3).save(folder)
        assert load_adapter(folder).digest() == old.digest()
    for renames in (0, 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("os.replace", failing(os.replace, renames))
            with pytest.raises(OSError, match="disk full"):
                new.save(folder)
        with pytest.raises(UserError, match=r"no adapter at .*it holds no config\.json"):
            load_adapter(folder)
    new.save(folder)
    assert load_adapter(folder).digest() == new.digest() != old.digest()
    assert {CONFIG, MODULES} <= {path.name for path in folder.iterdir()} and not (folder / LANGUAGE_MODEL).exists()


def failing(function: Any, after: int) -> Any:
    """The function, until it has been called so often."""
    calls = iter(range(after))

    def called(*args: Any) -> Any:
        if next(calls, None) is None:
            raise OSError("disk full")
        return function(*args)

    return called


def test_a_loaded_adapter_prunes_like_the_one_that_was_saved(model: Any, folder: Path) -> None:
    batch, adapter = ragged(), with_language_model(model)
    with prune(model, made(adapter)) as pruned:
        before, kept = answer(model, batch).logits, [trace.to_json() for trace in pruned.traces]
    with prune(model, f"atp:adapter={folder}") as pruned:
        assert torch.equal(answer(model, batch).logits, before)
        assert [trace.to_json() for trace in pruned.traces] == kept
        assert pruned.method.label == f"atp:adapter={folder}"
        assert str(pruned.method) == f"atp:adapter={folder},layers=1-3"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda f: shutil.rmtree(f), "no adapter at '{folder}': it holds no config.json"),
    "a file in its place": (lambda f: (shutil.rmtree(f), f.write_text("x")), "no adapter at '{folder}'"),
    "no config": (lambda f: (f / CONFIG).unlink(), "no adapter at '{folder}': it holds no config.json"),
    "config is no JSON": (lambda f: truncate(f / CONFIG), "config.json is not JSON; the adapter is damaged"),
    "config is no text": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe"), "config.json is not JSON"),
    "config is a list": (lambda f: (f / CONFIG).write_text("[]"), "has schema version None"),
    "no schema version": (lambda f: (f / CONFIG).write_text("{}"), "has schema version None"),
    "a later schema": (lambda f: edit(f, schema_version=2), "has schema version 2; this atp-eval reads version 1"),
    "a schema as text": (lambda f: edit(f, schema_version="1"), "has schema version '1'"),
    "an unknown key": (lambda f: edit(f, colour="red"), "config.json: colour: Extra inputs are not permitted"),
    "an unknown option": (lambda f: edit(f, options__depth=3), "options.depth: Extra inputs are not permitted"),
    "an unknown norm": (lambda f: edit(f, options__score_norm="max"), "options.score_norm: Input should be 'minmax'"),
    "layers that fall": (lambda f: edit(f, options__layers=[3, 1]), "layers 3-1 must rise and start at 1"),
    "a layer before all": (lambda f: edit(f, options__layers=[0, 3]), "layers 0-3 must rise and start at 1"),
    "no layers": (lambda f: edit(f, options__layers=[]), "options.layers: Tuple should have at least 1 item"),
    "a layer after all": (lambda f: edit(f, options__layers=[1, 5]), "layers 1-5: small has layers 0 to 4"),
    "a stride of 0": (lambda f: edit(f, options__strides=[0]), "strides (0,) must be 1 or more"),
    "no base": (lambda f: edit(f, base=None), "config.json: base: "),
    "no modules": (lambda f: (f / MODULES).unlink(), "modules.safetensors is missing; the adapter is incomplete"),
    "modules cut off": (lambda f: truncate(f / MODULES), "modules.safetensors cannot be read"),
    "modules empty": (lambda f: (f / MODULES).write_bytes(b""), "modules.safetensors cannot be read"),
    "another width": (lambda f: edit(f, options__hidden=9), "does not hold what config.json says: 2 threshold modules "
                      "with hidden=9, learned_mix=False"),
    "fewer modules": (lambda f: edit(f, options__layers=[1, 2, 3]), "what config.json says: 3 threshold modules"),
    "more modules": (lambda f: edit(f, options__layers=[1]), "what config.json says: 1 threshold module"),
    "a mix that was not trained": (lambda f: edit(f, options__learned_mix=True), "what config.json says"),
    "no theta": (lambda f: edit_tensors(f, theta=None), "what config.json says"),
    "theta of other layers": (lambda f: edit_tensors(f, theta=torch.zeros(3, 2)), "what config.json says"),
    "counts of other layers": (lambda f: edit_tensors(f, counts=torch.ones(9, 1)), "what config.json says"),
    "no language model": (lambda f: (f / LANGUAGE_MODEL).unlink(), "language_model.safetensors is missing"),
    "language model cut off": (lambda f: truncate(f / LANGUAGE_MODEL), "language_model.safetensors cannot be read"),
    "another depth": (lambda f: edit(f, base__num_layers=8), "the adapter is for small with 8 layers and 6 x 6 visual "
                      "tokens; this model has 5 and 6 x 6. Train one: atp-eval train"),
    "another grid": (lambda f: edit(f, base__grid=[24, 24]), "5 layers and 24 x 24 visual tokens; this model has 5 and "
                     "6 x 6"),
    "other weights": (lambda f: edit(f, base__fingerprint="0123456789ab"), "was trained on small (weights 0123456789ab)"
                      ", this model has weights "),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_wrong_adapter_is_one_clear_line_and_leaves_nothing(model: Any, folder: Path, name: str) -> None:
    before = attached(model)
    breaking, message = BROKEN[name]
    breaking(folder)
    with pytest.raises(UserError) as error, prune(model, f"atp:adapter={folder}"):
        pass
    assert message.format(folder=folder) in str(error.value)
    assert "\n" not in str(error.value)
    assert attached(model) == before


@pytest.mark.parametrize("control", ["static", "shuffled", "fixed"])
def test_a_control_needs_statistics(model: Any, folder: Path, control: str) -> None:
    edit_tensors(folder, counts=torch.ones(0, 2))
    with prune(model, f"atp:adapter={folder}"):
        pass
    wrong = f"control={control} needs the statistics of training samples; {folder} holds none"
    with pytest.raises(UserError, match=wrong), prune(model, f"atp:adapter={folder},control={control}"):
        pass


def test_an_adapter_of_the_same_model_with_other_weights_is_refused(model: Any, folder: Path) -> None:
    with pytest.raises(UserError, match="An adapter fits only its own model"):
        prune(small_llava(seed=3), f"atp:adapter={folder}").__enter__()


def test_a_language_model_that_does_not_fit_is_refused_by_the_name_of_the_weight(model: Any, folder: Path) -> None:
    weights, before = load_file(folder / LANGUAGE_MODEL), attached(model)
    name = "model.language_model.layers.2.mlp.up_proj.weight"
    save_file({**weights, name: torch.zeros(3, 3)}, folder / LANGUAGE_MODEL)
    with pytest.raises(UserError, match=f"does not fit this model: {name}"), prune(model, f"atp:adapter={folder}"):
        pass
    assert attached(model) == before
    with prune(model, "upper_bound"):  # and the model can be pruned again
        pass


@pytest.mark.parametrize("fails", [False, True])
def test_a_trained_language_model_is_there_in_the_block_and_gone_after_it(
    model: Any, folder: Path, fails: bool
) -> None:
    batch, name = ragged(), "model.language_model.layers.2.mlp.up_proj.weight"
    plain, before = answer(model, batch).logits, {key: p.detach().clone() for key, p in model.named_parameters()}
    state, method = attached(model), ATP(adapter=str(folder))
    try:
        with prune(model, method):
            assert torch.equal(model.get_parameter(name), language_model()[name].double())
            inside = answer(model, batch).logits
            assert not torch.equal(inside, plain)
            if fails:
                raise RuntimeError("inside")
    except RuntimeError as error:
        assert fails and str(error) == "inside"
    assert attached(model) == state
    assert all(torch.equal(p, before[key]) for key, p in model.named_parameters())
    assert torch.equal(answer(model, batch).logits, plain)
    with prune(model, method):  # and again
        assert torch.equal(answer(model, batch).logits, inside)


def test_a_batch_equals_its_samples_alone_with_a_trained_language_model(model: Any, folder: Path) -> None:
    edit(folder, options__positions="2d")
    batch_equals_singles(prune, model, f"atp:adapter={folder}", make_batch((5, 9), 20, (3, 14)), num_beams=2)


def test_the_digest_changes_with_whatever_was_trained(model: Any) -> None:
    adapter = random_adapter(model)
    before = adapter.digest()
    assert before == adapter.digest()
    with torch.no_grad():
        next(adapter.modules.parameters()).view(-1)[3] += 1
    assert adapter.digest() != before
    assert replace(adapter, counts=adapter.counts + 1).digest() != adapter.digest()
