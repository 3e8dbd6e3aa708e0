"""Several questions about one picture: what is read once for all of them, and when that beats pruning by the question.

Prompts about a picture begin alike: the system prompt and the image. Up to the first layer before which tokens go by
the question, what they begin with is read once; from there on each question has tokens of its own. A method that looks
at the picture alone shares what it left through all layers. The unpruned model shares everything but the questions, so
that from some number of questions on it costs less than any pruning that has to read each prompt by itself.

FLOPs are exact, as the engine runs a batch of these prompts (`prune(..., pictures=...)`), and equal torch's count.
"""

from __future__ import annotations

from dataclasses import dataclass

from atp_eval.cost.flops import decoder_layer, engine_prefill, lm_head
from atp_eval.cost.scorer import Prompt

MOST = 10_000  # questions about one picture, beyond which nothing is looked for


@dataclass(frozen=True)
class Reader:
    """How prompts are pruned. prompt: each of them, alike in length. early: `Method.early`; scorer: FLOPs by which one
    prompt's tokens are chosen; apart: the first layer before which tokens go by the question, None where none do so.
    """

    prompt: Prompt
    early: bool = False
    apart: int | None = None
    scorer: int = 0

    def total(self, questions: int) -> int:
        """FLOPs of reading the prompts of `questions` questions about one picture, choosing included."""
        prompt, geometry = self.prompt, self.prompt.geometry
        if questions == 1:
            alone = engine_prefill(geometry, prompt.lengths, prompt.full, self.early)
            return alone.total + self.scorer
        last = geometry.num_layers - 1
        rows = [self._rows(layer, questions) for layer in range(last + 1)]
        total = questions * (self.scorer + lm_head(geometry, 1))
        for layer, own in enumerate(rows):
            if layer == last:
                total += decoder_layer(geometry, own, 0, queries=questions, leaving=questions)
                total += questions * _attention(prompt, 1, prompt.lengths[-1])
                continue
            leaving = rows[layer + 1] if self.early else own
            total += decoder_layer(geometry, own, 0, leaving=leaving) + self._attended(layer, questions)
        return total

    def _shares(self, layer: int) -> bool:
        return self.apart is None or layer < self.apart

    def _rows(self, layer: int, questions: int) -> int:
        """Tokens that enter a layer, those of all questions together."""
        length = self.prompt.lengths[layer]
        beginning = length - self.prompt.after
        return beginning + questions * self.prompt.after if self._shares(layer) else questions * length

    def _attended(self, layer: int, questions: int) -> int:
        """FLOPs of a layer's attention."""
        length, after = self.prompt.lengths[layer], self.prompt.after
        if not self._shares(layer):
            return questions * _attention(self.prompt, length, length)
        beginning = length - after
        return _attention(self.prompt, beginning, beginning) + questions * _attention(self.prompt, after, length)


def _attention(prompt: Prompt, queries: int, keys: int) -> int:
    """Products of queries with keys, and of what comes out with values."""
    return 4 * queries * keys * prompt.geometry.heads * prompt.geometry.head_dim


def sharing_wins_from(unpruned: Reader, pruned: Reader, most: int = MOST) -> int | None:
    """The least number of questions about one picture at which `unpruned` costs no more; None up to `most`.

    Both grow by a constant with each question from the second on, so that the difference changes its sign once.
    """
    if unpruned.total(1) <= pruned.total(1):
        return 1
    if unpruned.total(most) > pruned.total(most):
        return None
    low, high = 1, most  # costs more, costs no more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if unpruned.total(middle) <= pruned.total(middle) else (middle, high)
    return high
