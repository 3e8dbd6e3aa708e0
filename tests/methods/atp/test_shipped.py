"""The adapters that come with the package: they fit the embedded model, and keep about as many tokens as they say."""

from __future__ import annotations

import pytest

from atp_eval import load_model
from atp_eval.engine.fingerprint import fingerprint
from atp_eval.methods import get_method
from atp_eval.methods.atp.adapter import load_adapter, shipped
from atp_eval.models import Bundle


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_model("tiny")


def test_the_budgets_that_the_readme_promises_ship() -> None:
    assert {load_adapter(folder).config.budget for folder in shipped().values()} >= {144, 88}


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_adapter_was_trained_on_the_embedded_model(name: str, bundle: Bundle) -> None:
    config = load_adapter(shipped()[name]).config
    assert config.base.id == "tiny"
    assert config.base.fingerprint == fingerprint(bundle.model)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_what_it_kept_of_held_back_samples_is_within_five_per_cent_of_its_target(name: str) -> None:
    config = load_adapter(shipped()[name]).config
    assert config.average is not None and config.target is not None
    assert abs(config.average - config.target) <= 0.05 * config.target
    assert config.budget in (None, config.target)


def test_a_budget_finds_its_adapter(bundle: Bundle) -> None:
    solved = get_method("atp@144").solve(bundle.geometry)
    assert solved.label == "atp@144" and solved.prune_layers == (1, 3, 6)
