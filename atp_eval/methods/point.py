"""What a method may look at, from the picture's features to the attention between layers (the engine provides it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class Vision(Protocol):
    """What the vision tower made of the pictures, for B samples with V patches and C channels.

    `own` is the encoder layer whose output is projected into the LLM, `next` the one after it (LLaVA-1.5 takes the last
    but one layer, so `next` is the last; a tower whose last layer is projected has no other, and `next` is `own`).
    """

    @property
    def features(self) -> Tensor:
        """[B, V, C]: the patches' features, as they go into the projector."""

    @property
    def cls_feature(self) -> Tensor:
        """[B, C]: the feature of the CLS token. Raises UserError on a tower without one."""

    def queries(self, layer: Literal["own", "next"]) -> Tensor:
        """[B, H, S, d]: query projections of an encoder layer, with bias, unscaled; S = CLS (if there is one) + V."""

    def keys(self, layer: Literal["own", "next"]) -> Tensor:
        """[B, H, S, d]: key projections, like `queries`."""

    def project(self, features: Tensor) -> Tensor:
        """[B, n, C] -> [B, n, D]: through the model's projector, into the LLM's embedding space."""

    def encode_resized(self, rows: int, cols: int) -> Tensor:
        """[B, rows * cols, D]: the pictures resized to that many patches, through tower and projector again."""


class Embeddings(NamedTuple):
    """Input embeddings of the LLM. visual: [B, V, D]; text: [B, T, D], the T last slots; is_text: [B, T] bool, which of
    those are text after the image."""

    visual: Tensor
    text: Tensor
    is_text: Tensor


class TextTokens(NamedTuple):
    """The T last slots of each prompt. is_text: [B, T] bool, which of them are text after the image; hidden: [B, T, D],
    what enters the layer; keys: [B, T, G, d], those of layer - 1, after RoPE."""

    is_text: Tensor
    hidden: Tensor
    keys: Tensor


class Point(Protocol):
    """What a method may look at before layer `layer`; B samples that have an image, V = rows * cols grid cells.

    Scores come from the attention of layer - 1, in fp32 (fp64 for an fp64 model), one value per cell and -inf where the
    token is gone. They are exact and made without an attention map. Asking for one before layer 0 raises UserError.
    """

    @property
    def layer(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def kept(self) -> Tensor:
        """[B, V] bool: cells whose token is still there."""

    @property
    def order(self) -> Tensor:
        """[B, V] long: place of each token among the visual tokens of its sequence, from 0; V where the token is gone.

        Raster order, unless an earlier decision put tokens into another one.
        """

    @property
    def hidden(self) -> Tensor:
        """[B, V, D]: hidden states of the visual tokens that would enter the layer, zeros where the token is gone."""

    @property
    def embeddings(self) -> Embeddings:
        """What entered layer 0, before anything was pruned."""

    @property
    def vision(self) -> Vision:
        """What the vision tower made of the pictures; for methods whose `needs` name it."""

    @property
    def relevance(self) -> Tensor:
        """[B, V]: cosine of each patch with the question in CLIP's shared space; for methods whose needs name it."""

    @property
    def asked(self) -> Tensor:
        """[B, V] bool: cells of the things that the question is about, from ground truth; for methods that need it."""

    @property
    def sample_ids(self) -> Sequence[str]:
        """One stable name per sample, to seed randomness from."""

    def self_score(self, causal: bool = False) -> Tensor:
        """[B, V]: mean pre-softmax logit that a token receives from the visual tokens (ATP-LLaVA, Eq. 3).

        causal: from itself and later ones only, those that may see it.
        """

    def cross_score(self) -> Tensor:
        """[B, V]: mean attention probability that it receives from the text rows after the image (ATP-LLaVA, Eq. 4)."""

    def last_row(self) -> Tensor:
        """[B, V]: attention probability that it receives from the last prompt token (FastV)."""

    def rows(self, weights: Tensor) -> Tensor:
        """[B, V]: the mean attention probability from the last R rows of the prompt, weighted by `weights` [B, R]."""

    @property
    def keys(self) -> Tensor:
        """[B, V, G, d]: the visual tokens' keys in layer - 1, after RoPE; zeros where the token is gone."""

    @property
    def text(self) -> TextTokens:
        """The text after the image, as it enters the layer."""

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The LLM's last norm, that before its output head, of hidden states [..., D]."""

    def coming_row(self) -> Tensor:
        """[B, V]: attention probability from the last prompt token in the layer that is about to be entered."""
