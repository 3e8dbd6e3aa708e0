"""The packed forward pass and the pruned answers are those of the stock model."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

from atp_eval.models import tiny
from atp_eval.scenes.world import sample_scene
from atp_eval.tiny import packed
from atp_eval.tiny.drills import LATER
from atp_eval.tiny.geometry import CELLS
from atp_eval.tiny.prune import Plan, answers, kept
from atp_eval.tiny.rows import Mix, drawn, encode, pack

MIX = Mix(0.3, 0.3, 0.1, 0.5, LATER)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny.build().eval()


def stock(model, image, tokens):
    """Logits of the stock model for `<s> USER: image tokens`."""
    embed = model.model.language_model.embed_tokens
    x = torch.cat([embed(torch.tensor(packed.PREFIX_IDS)), image, embed(torch.tensor(tokens))])[None]
    return model(inputs_embeds=x, attention_mask=torch.ones(1, x.shape[1])).logits[0, -len(tokens) :]


@torch.no_grad()
def test_packed_rows_equal_the_stock_model(model):
    rng = random.Random(0)
    rows = pack([sample_scene(1, "train")] * 2, lambda s: drawn(s, rng, MIX))
    image = torch.randn(1, CELLS, 128) * 0.1
    mask = packed.block_mask(rows.segments, CELLS + len(packed.PREFIX), torch.float32)
    places = torch.arange(CELLS)[None] + len(packed.PREFIX)
    seeing = torch.zeros(2, 1, 1, 1)
    out = packed.forward(model.model.language_model, image, places, rows.tokens, rows.positions, mask, seeing)
    for row in range(2):
        for segment in range(int(rows.segments[row].max()) + 1):
            at = (rows.segments[row] == segment).nonzero()[:, 0]
            wanted = stock(model, image[0], rows.tokens[row, at].tolist())
            assert torch.allclose(out[row, at], wanted, atol=2e-4)


@torch.no_grad()
def test_blind_rows_do_not_see_the_picture_in_the_first_layer(model):
    rng, llm = random.Random(0), copy.deepcopy(model.model.language_model)
    rows = pack([sample_scene(1, "train")] * 2, lambda s: drawn(s, rng, MIX))
    mask = packed.block_mask(rows.segments, CELLS + len(packed.PREFIX), torch.float32)
    places = torch.arange(CELLS)[None] + len(packed.PREFIX)
    blind = torch.tensor([packed.HIDDEN, 0.0])[:, None, None, None]
    llm.layers = llm.layers[:1]
    pictures = torch.randn(2, 1, CELLS, 128)
    one, other = (packed.forward(llm, x, places, rows.tokens, rows.positions, mask, blind) for x in pictures)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


@torch.no_grad()
def test_unpruned_answers_are_those_of_the_stock_model(model):
    image = torch.randn(CELLS, 128) * 0.1
    questions = [encode("What color is the star?"), encode("How many large red stars are there?")]
    found = answers(model.model.language_model, image, questions, [range(CELLS)] * 2, 0)
    assert found == [int(stock(model, image, q)[-1].argmax()) for q in questions]


@torch.no_grad()
def test_keeping_all_but_one_is_the_stock_model_without_it(model):
    """Dropped before layer 0, with places that stay as they were."""
    llm, image = model.model.language_model, torch.randn(CELLS, 128) * 0.3
    question = encode("What color is the star?")
    x = torch.cat([llm.embed_tokens(torch.tensor(packed.PREFIX_IDS)), image, llm.embed_tokens(torch.tensor(question))])
    index = torch.cat([torch.arange(40), torch.arange(41, len(x))])
    wanted = model(inputs_embeds=x[index][None], position_ids=index[None], attention_mask=None).logits[0, -1].argmax()
    keep = [i for i in range(CELLS) if i != 38]
    assert answers(llm, image, [question], [keep], 0) == [int(wanted)]


@torch.no_grad()
def test_a_dropped_token_matters_only_to_the_layers_before(model):
    """What it held reaches no answer when it goes before layer 0, and some when it goes before layer 1."""
    llm, image, cells = model.model.language_model, torch.randn(CELLS, 128), list(range(1, CELLS))
    questions = [encode(f"What color is the {word}?") for word in ("star", "circle", "cross", "red object", "square")]
    changed = {}
    for layer in (0, 1):
        other = image.clone()
        other[0] = 40 * torch.randn(128)
        same = [answers(llm, x, questions, [cells] * len(questions), layer) for x in (image, other)]
        changed[layer] = same[0] != same[1]
    assert changed == {0: False, 1: True}


def test_controls_keep_what_they_say():
    rng, asked, things = np.random.RandomState(0), [3, 9, 40], [3, 9, 40, 100, 101]
    for seed in range(20):
        rng = np.random.RandomState(seed)
        assert set(things) <= set(kept(Plan("oracle", 1, 82), asked, things, rng))
        assert set(kept(Plan("oracle", 1, 2), asked, things, rng)) < set(asked)
        assert not set(asked) & set(kept(Plan("background", 1, 82), asked, things, rng))
        found = kept(Plan("random", 1, 82), asked, things, rng)
        assert len(set(found)) == 82 and found == sorted(found)
    assert kept(Plan("background", 0, CELLS), asked, things, rng) == list(range(CELLS))
    assert Plan("random", 1, 82).average == pytest.approx(143.75)
