"""What a pruning method is: a frozen dataclass that says which visual tokens stay, and nothing about transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from atp_eval.errors import UserError
from atp_eval.methods.spec import format_spec

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self


@dataclass(frozen=True)
class Geometry:
    """What a budget is solved against: decoder layers of the LLM and (rows, cols) of the visual grid."""

    num_layers: int
    grid: tuple[int, int]

    @property
    def cells(self) -> int:
        """Visual tokens of one image before pruning."""
        return self.grid[0] * self.grid[1]


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
    def hidden(self) -> Tensor:
        """[B, V, D]: hidden states of the visual tokens that would enter the layer, zeros where the token is gone."""

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


@dataclass(frozen=True)
class Decision:
    """Which visual tokens enter the layer.

    keep: [B, V] bool, cells whose token stays as it is; cells that are gone already may be True and stay gone.
    count: tokens that stay in each sample, merged ones included, where that is the same for all and known beforehand;
        it saves the wait for the device. Leave None where it depends on the data.
    carry: [B, V] bool, disjoint from keep: cells, still there so far, whose token gives its place to a merged one.
    values: [B, V, D], the merged tokens, read where `carry` is True.
    """

    keep: Tensor
    count: int | None = None
    carry: Tensor | None = None
    values: Tensor | None = None


def keep_top(scores: Tensor, count: int) -> Decision:
    """Keep the `count` highest scores [B, V] of every sample; of equal ones the earlier cell, so that runs agree."""
    best = scores.argsort(dim=1, descending=True, stable=True)[:, :count]
    return Decision(scores.new_zeros(scores.shape).scatter(1, best, 1).bool(), count=count)


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods; the fields of a subclass are the parameters of its spec string.

    average: the budget after '@' (`fastv@144`): the mean over decoder layers of the visual tokens that enter the layer.
        It is not solved until `solve` is called with a model's geometry.
    asked: on a solved method, the spec that it was solved from. Fields with repr=False are no parameters of the spec
        string.
    """

    name: ClassVar[str]
    average: int | None = None
    asked: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.average is not None and self.average < 1:
            raise UserError(f"{self.name}@{self.average}: the budget is an average of visual tokens, at least 1")

    @property
    @abstractmethod
    def prune_layers(self) -> tuple[int, ...]:
        """Layers before which `decide` is asked, rising; 0 is before the LLM. Only a solved method has them."""

    @abstractmethod
    def solve(self, geometry: Geometry) -> Self:
        """The same method with every parameter set for this geometry; raises UserError where that is impossible."""

    @abstractmethod
    def decide(self, point: Point) -> Decision:
        """What stays before `point.layer`."""

    def verify(self, fingerprint: Callable[[], str]) -> None:  # noqa: B027
        """Raise UserError where the method was trained for a model with other weights; most fit any model."""

    @property
    def positions(self) -> Literal["1d", "2d"]:
        """How the prompt's tokens are numbered: one after the other, or the image by rows and columns (2-D RoPE)."""
        return "1d"

    @property
    def weights(self) -> str | None:
        """A hash of what was trained for the method: answers under other weights are answers of another method."""
        return None

    @property
    def language_model(self) -> dict[str, Tensor] | None:
        """Weights that the method was trained together with, by their names in the model; None for the model's own."""
        return None

    @property
    def label(self) -> str:
        """The canonical form of what was asked for: `fastv@144`, `random@144:seed=2`; solving does not change it."""
        return self.asked or format_spec(self)

    def __str__(self) -> str:
        """The canonical spec string; on a solved method with every parameter: `fastv:layer=2,keep=115`."""
        return format_spec(self)

    def _solved(self, **parameters: Any) -> Self:
        """A copy without a budget, with these parameters, that remembers what was asked for."""
        return replace(self, average=None, asked=self.label, **parameters)
