"""A deepened language model: the old layers one place further down, behind a first one that adds nothing."""

from __future__ import annotations

import torch

from atp_eval.models import tiny
from atp_eval.tiny.deepen import LAYERS, deepen


@torch.no_grad()
def test_a_deepened_model_is_the_old_one_without_the_layer_left_out():
    torch.manual_seed(0)
    model = tiny.build().eval()
    llm = model.model.language_model
    x = torch.randn(1, 30, 128)
    kept = [layer for i, layer in enumerate(llm.layers) if i != 6]
    shorter = torch.nn.ModuleList(kept)
    full, llm.layers, llm.config.num_hidden_layers = llm.layers, shorter, 7
    wanted = llm(inputs_embeds=x, use_cache=False).last_hidden_state
    llm.layers, llm.config.num_hidden_layers = full, 8
    model.load_state_dict(deepen(model.state_dict()))
    assert torch.allclose(llm(inputs_embeds=x, use_cache=False).last_hidden_state, wanted, atol=1e-5)


def test_the_new_first_layer_looks_where_the_old_one_looked():
    state = tiny.build().state_dict()
    deep = deepen(state)
    assert deep.keys() == state.keys()
    assert torch.equal(deep[f"{LAYERS}0.self_attn.q_proj.weight"], state[f"{LAYERS}0.self_attn.q_proj.weight"])
    assert not deep[f"{LAYERS}0.self_attn.o_proj.weight"].any()
