"""What a pruning method is: a frozen dataclass that says which visual tokens stay, and nothing about transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from atp_eval.cost import Geometry
from atp_eval.cost.scorer import Prompt
from atp_eval.errors import UserError
from atp_eval.methods.spec import format_spec

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from atp_eval.methods.decision import Decision
    from atp_eval.methods.point import Point


Positions = Literal["1d", "contiguous", "2d"]
Numbering = Literal["contiguous", "1d"]  # what a method offers where its authors renumber
Need = Literal["vision", "embeddings", "asked", "relevance"]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Base of all methods; the fields of a subclass are the parameters of its spec string.

    average: the budget after '@' (`fastv@144`): the mean over decoder layers of the visual tokens that enter the layer.
        It is not solved until `solve` is called with a model's geometry. Budgets of bytes, FLOPs or time (`aimed.py`)
        are turned into the average that meets them, so methods know averages only.
    asked: on a solved method, the spec that it was solved from. Fields with repr=False are no parameters of the spec
        string.
    needs: what the engine has to provide beyond scores: "vision" for `point.vision`, and so on.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Need]] = frozenset()
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
    def solve(self, geometry: Geometry) -> Method:
        """The same method with every parameter set for this geometry; raises UserError where that is impossible."""

    @abstractmethod
    def decide(self, point: Point) -> Decision:
        """What stays before `point.layer`."""

    def verify(self, fingerprint: Callable[[], str]) -> None:  # noqa: B027
        """Raise UserError where the method was trained for a model with other weights; most fit any model."""

    @property
    def positions(self) -> Positions:
        """How tokens are numbered for RoPE after pruning.

        1d: as in the unpruned prompt, with gaps; later tokens go on from its end. contiguous: in each layer anew,
        without gaps; later tokens go on from what is in the layer's cache. 2d: the image by rows and columns.
        """
        return "1d"

    @property
    def early(self) -> bool:
        """Whether `decide` looks neither at hidden states (`point.text` holds some) nor at the layer to come, and puts
        no values in. The engine then asks inside of the layer before, behind its attention, so that what goes costs no
        more work there; what is kept is the same.
        """
        return False

    @property
    def reads_question(self) -> bool:
        """Whether `decide` depends on anything but the picture. Where it does not, what stays is the same for all
        questions about a picture, and the engine reads the pruned prompt up to its end once for all of them.
        """
        return True

    @property
    def text_tower(self) -> str | None:
        """The CLIP checkpoint that compares patches with questions, for methods that need "relevance"; else None."""
        return None

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
        return self.asked or str(self)

    def __str__(self) -> str:
        """The canonical spec string; on a solved method with every parameter: `fastv:layer=2,keep=115`."""
        return format_spec(self)

    def counts(self) -> tuple[int, ...] | None:
        """Visual tokens, merged ones included, from each prune layer on; None where they depend on the data."""
        return None

    def average_for(self, geometry: Geometry) -> int | None:
        """The average that the budget comes to; None without a budget, and on a solved method."""
        return self.average

    def scorer_flops(self, prompt: Prompt) -> int | None:
        """FLOPs of the matrix products by which a solved method chooses in one prompt; None where nobody counted them.

        prompt.tokens are those that its counts leave, or (where counts depend on the data) that a sample had.
        """
        return None

    def _solved(self, **parameters: Any) -> Self:
        """A copy without a budget, with these parameters, that remembers what was asked for."""
        return replace(self, average=None, asked=self.label, **parameters)

    def _named(self, asked: str) -> Self:
        """A copy that remembers another spec as what was asked for."""
        return replace(self, asked=asked)
