"""What a sweep compares: families of methods, each at several budgets, and the controls that they are held against."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

from atp_eval.config import DEFAULT_TASKS, read_settings
from atp_eval.cost import Geometry
from atp_eval.errors import UserError, unknown
from atp_eval.methods import Method, get_method
from atp_eval.paths import data_folder

Role = Literal["method", "random", "oracle", "background"]
Budget = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]


class Family(BaseModel):
    """A method at several budgets.

    name: as tables and figures show it. spec: without a budget (`random:layer=0`). panel: families of a panel are drawn
    together and held against its random control. seeds: one run with each, which the table averages. budgets: where
    they are not the sweep's. role: controls are drawn as guides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    spec: str = Field(min_length=1)
    panel: str = ""
    seeds: tuple[Seed, ...] = ()
    budgets: tuple[Budget, ...] | None = None
    role: Role = "method"

    @property
    def title(self) -> str:
        """Its name, with its panel where there is one."""
        return f"{self.name} ({self.panel})" if self.panel else self.name

    def at(self, budget: int) -> tuple[str, ...]:
        """Its specs at a budget, one a seed: `random@144:layer=0,seed=3`. Raises UserError that names the family."""
        name, _, tail = self.spec.partition(":")
        if "@" in name:
            raise UserError(f"family {self.name!r}: spec {self.spec!r} names a budget; leave it to `budgets`")
        parts = [tail] if tail else []
        every = [[*parts, f"seed={seed}"] for seed in self.seeds] or [parts]
        return tuple(f"{name.strip()}@{budget}{':' if some else ''}{','.join(some)}" for some in every)


class Sweep(BaseModel):
    """A sweep file. budgets: average visual tokens at the inputs of the decoder's layers. output: the folder of answers
    and tables, runs/NAME if it is not given. run: more settings of the run that answers (`RunConfig`). note: what a
    reader has to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    families: tuple[Family, ...] = Field(min_length=1)
    budgets: tuple[Budget, ...] = Field(min_length=1)
    model: str = "tiny"
    tasks: tuple[str, ...] = Field(default=tuple(DEFAULT_TASKS), min_length=1)
    limit: int | None = Field(default=None, ge=1)
    output: Path | None = None
    run: dict[str, Any] = {}
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Sweep:
        seen: set[tuple[str, str]] = set()
        for family in self.families:
            for what in {("name", family.name), ("role", family.role)} - {("role", "method")}:
                if (family.panel, *what) in seen:
                    where = f" in panel {family.panel!r}" if family.panel else ""
                    raise ValueError(f"two families have the {what[0]} {what[1]!r}{where}; only one may")
                seen.add((family.panel, *what))  # type: ignore[arg-type]
        return self

    @property
    def columns(self) -> tuple[int, ...]:
        """All budgets that any family has, falling."""
        return tuple(sorted({*self.budgets, *(b for f in self.families for b in f.budgets or ())}, reverse=True))

    @property
    def panels(self) -> tuple[str, ...]:
        """The panels in the order of the families."""
        return tuple(dict.fromkeys(family.panel for family in self.families))


class Trial(NamedTuple):
    """A family at a budget. methods: one a seed, solved where the model can. refused: why it cannot, else None."""

    family: Family
    budget: int
    methods: tuple[Method, ...]
    refused: str | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """What its methods are recorded under."""
        return tuple(method.label for method in self.methods)


def load_sweep(name: str) -> Sweep:
    """A sweep by its name (`baselines`) or from a file. Raises UserError that names what is wrong, with its line."""
    path = sweeps().get(name, Path(name))
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("sweep", name, sweeps())
    found = Sweep.model_validate(read_settings(path, Sweep))
    return found.model_copy(update={"output": found.output or Path("runs") / path.stem})


def sweeps() -> dict[str, Path]:
    """The sweeps that come with the package, by name."""
    return {path.stem: path for path in sorted((data_folder("configs") / "sweeps").glob("*.yaml"))}


def methods(sweep: Sweep) -> dict[tuple[Family, int], tuple[Method, ...]]:
    """The methods of every family at its budgets, one a seed, budgets falling.

    Raises UserError that names the family for a name or a parameter that there is not.
    """
    found = {}
    for family in sweep.families:
        for budget in sorted(set(family.budgets or sweep.budgets), reverse=True):
            specs = family.at(budget)
            try:
                found[family, budget] = tuple(get_method(spec) for spec in specs)
            except UserError as error:
                raise UserError(f"family {family.name!r}: {error}") from None
    return found


def trials(sweep: Sweep, geometry: Geometry) -> tuple[Trial, ...]:
    """Every family at every budget; those that a model of this shape cannot do say why."""
    return tuple(_trial(family, budget, several, geometry) for (family, budget), several in methods(sweep).items())


def _trial(family: Family, budget: int, several: tuple[Method, ...], geometry: Geometry) -> Trial:
    try:
        return Trial(family, budget, tuple(method.solve(geometry) for method in several))
    except UserError as error:
        return Trial(family, budget, several, str(error))
