"""Break the engine on purpose and see that the proofs notice: proofs that cannot fail prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import proofs
from engine.mutants import NOTICED, Mutant, mutated

MUTANTS: dict[str, Mutant] = {
    "positions are renumbered": (
        "prefill.py",
        "tuple(gather(t, index) for t in self.rotary)",
        "tuple(t[:, : index.shape[1]] for t in self.rotary)",
    ),
    "decoding forgets the padding of pruned rows": (
        "attention.py",
        "if layout.padded:",
        "if layout.padded and not past:",
    ),
    "padding is forgotten when the prompt is read": ("attention.py", "if layout.padded:", "if layout.padded and past:"),
    "prunes one layer too late": (
        "passage.py",
        "prunes = index in self.method.prune_layers",
        "prunes = index - 1 in self.method.prune_layers",
    ),
    "scores count keys of the padding": ("scores.py", " & valid[:, None, :]", ""),
    "scores look ahead": ("scores.py", "<= places[..., None])", "<= length)"),
    "the mean of queries takes in the text": (
        "scores.py",
        "weights = visual.to(query.dtype)",
        "weights = torch.ones_like(visual).to(query.dtype)",
    ),
    "grouped heads are mixed up": (
        "scores.py",
        ".view(batch, groups, -1, size).mean(2)",
        ".view(batch, -1, groups, size).mean(1)",
    ),
    "dropped tokens are counted as padding that is visual": ("layout.py", ".masked_fill(~valid, self.cells)\n", "\n"),
    "kept tokens change their order": (
        "layout.py",
        "return keep.int()",
        "return keep.int() * torch.arange(keep.shape[1], 0, -1)",
    ),
    "merged tokens are not put in": (
        "prefill.py",
        "hidden = self._put(hidden, decision)",
        "pass",
    ),
    "tokens that live on keep their old content": (
        "prefill.py",
        "(decision.carry, decision.rewrite)",
        "(decision.carry,)",
    ),
    "another order is not taken": (
        "prefill.py",
        "self._lengths(stay, decision.count), order)",
        "self._lengths(stay, decision.count))",
    ),
    "places after reordering are those of the raster": (
        "layout.py",
        "(self.visual.cumsum(1) - 1).masked_fill(~self.visual, self.cells)",
        "self.cell",
    ),
    "gaps are not closed": (
        "passage.py",
        "prefill.rotary = self.text_model.rotary_emb(like, position_ids=prefill.layout.places)",
        "pass",
    ),
    "later tokens count the gaps": (
        "passage.py",
        'kwargs["position_embeddings"] = self._rotary(index, hidden, cache)',
        "pass",
    ),
    "the coming row is the first": (
        "attention.py",
        "attention.q_proj(last(normed))",
        "attention.q_proj(normed[:, :1])",
    ),
    "the tower's layers are mixed up": (
        "vision.py",
        "index, states = index + 1, self._states.leaving",
        "index = index + 1",
    ),
    "beams are taken for samples": (
        "prefill.py",
        "self.has_image = prompts.has_image[::beams]",
        "beams = 1\n        self.has_image = prompts.has_image[::beams]",
    ),
    "later positions count the short cache": ("prune.py", "hook(self._text_model, self._enter_text_model)", "pass"),
    "what leaves early leaves its residual": (
        "early.py",
        "_finish(layer, take(hidden, chosen[0]), attended)",
        "_finish(layer, hidden[:, -attended.shape[1] :], attended)",
    ),
    "the last row looks at itself alone": (
        "early.py",
        "key, value = past_key_values.update(key, value, module.layer_idx)",
        "past_key_values.update(key, value, module.layer_idx)\n        key, value = key[:, :, -1:], value[:, :, -1:]",
    ),
    "the last row sees padding": (
        "passage.py",
        "return early.last_row(layer, hidden, mask, packing, **kwargs)",
        "return early.last_row(layer, hidden, None, packing, **kwargs)",
    ),
    "the last layer caches its last row alone": (
        "early.py",
        "past_key_values.update(key, value, module.layer_idx)",
        "past_key_values.update(key[:, :, -1:], value[:, :, -1:], module.layer_idx)",
    ),
    "rows leave where hidden states are to be merged": (
        "passage.py",
        "if self.method.early and index",
        "if index",
    ),
    "dead rows are worked on": ("passage.py", "if self.method.early and index", "if False and index"),
    "one row is left where all are asked for": (
        "passage.py",
        "if not self.last_only or self.all_asked",
        "if self.all_asked",
    ),
    "questions see nothing of what they share": (
        "attention.py",
        "if span.seen_before:",
        "if False:",
    ),
    "what is shared counts padding": (
        "prune.py",
        'kwargs["position_ids"] = prefill.start.places  #',
        "pass  #",
    ),
    "what is shared stays shared": ("prefill.py", "None if method.reads_question else", ""),
    "nothing is shared": ("prefill.py", "self.shared = sharing(prompts, input_ids, given.pictures)", "pass"),
    "other words before the picture are not looked at": ("packed.py", "beginning.tobytes()", "b''"),
    "nothing is packed": ("packed.py", "WORTH = 0.9", "WORTH = 0"),
    "rows of the cache are packed": (
        "packed.py",
        "self.cache.update(self.packing.heads(key), self.packing.heads(value), layer, *args, **kwargs)",
        "self.cache.update(key, value, layer, *args, **kwargs)",
    ),
    "packed rows leave from the wrong place": (
        "packed.py",
        "flat = old.places.gather(1, index)",
        "flat = index + length * torch.arange(len(index), device=index.device)[:, None]",
    ),
    "the longest row is cut": ("layout.py", "[:, -max(lengths) :]", "[:, -min(lengths) :]"),
}


@pytest.mark.parametrize("mutant", ["none", *MUTANTS])
def test_the_proofs_notice(mutant: str, tmp_path: Path) -> None:
    with mutated(tmp_path, MUTANTS.get(mutant)) as prune:
        if mutant == "none":
            proofs.all_proofs(prune)
        else:
            with pytest.raises(NOTICED):
                proofs.all_proofs(prune)
