"""What a sweep compares: families of methods, each at several budgets, and the controls that they are held against."""

from __future__ import annotations

from itertools import product
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
Value = int | float | str


class Family(BaseModel):
    """A method at several budgets, or at every point of a grid.

    name: as tables and figures show it. spec: without a budget (`random:layer=0`). panel: families of a panel are drawn
    together and held against its random control. grid: values of further parameters (`{layer: [1, 2], keep: [288]}`);
    every combination is asked. seeds: one run with each, which the table averages. budgets: where they are not the
    sweep's. role: controls are drawn as guides.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    spec: str = Field(min_length=1)
    panel: str = ""
    grid: dict[str, Annotated[tuple[Value, ...], Field(min_length=1)]] = {}
    seeds: tuple[Seed, ...] = ()
    budgets: tuple[Budget, ...] | None = None
    role: Role = "method"

    @property
    def label(self) -> str:
        """Its name, with the parameters that tell it from others of the same grid."""
        point = "".join(f", {key} {values[0]}" for key, values in self.grid.items() if len(values) == 1)
        return f"{self.name}{point}"

    @property
    def title(self) -> str:
        """Its label, with its panel where there is one."""
        return f"{self.label} ({self.panel})" if self.panel else self.label

    def points(self) -> tuple[Family, ...]:
        """A family for each combination of its grid, in order, the last parameter changing fastest."""
        every = product(*([(key, value) for value in values] for key, values in self.grid.items()))
        return tuple(self.model_copy(update={"grid": {key: (value,) for key, value in one}}) for one in every)

    def at(self, budget: int | None) -> tuple[str, ...]:
        """The specs of a single point at a budget (None: without one), one a seed: `random@144:layer=0,seed=3`. Raises
        UserError that names the family."""
        name, _, tail = self.spec.partition(":")
        if "@" in name:
            raise UserError(f"family {self.name!r}: spec {self.spec!r} names a budget; leave it to `budgets`")
        parts = [*([tail] if tail else []), *(f"{key}={values[0]}" for key, values in self.grid.items())]
        every = [[*parts, f"seed={seed}"] for seed in self.seeds] or [parts]
        head = name.strip() if budget is None else f"{name.strip()}@{budget}"
        return tuple(f"{head}{':' if some else ''}{','.join(some)}" for some in every)


class Sweep(BaseModel):
    """A sweep file. figure: `budgets`, scores against average tokens, or `layers`, scores against the layer before
    which tokens are pruned once. budgets: average visual tokens at the inputs of the decoder's layers; none for
    `layers`, whose families name counts in their grids. output: the folder of answers and tables, runs/NAME if it is
    not given. run: more settings of the run that answers (`RunConfig`). note: what a reader has to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    families: tuple[Family, ...] = Field(min_length=1)
    figure: Literal["budgets", "layers"] = "budgets"
    budgets: tuple[Budget, ...] = ()
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
            if "seed" in family.grid:
                raise ValueError(f"family {family.name!r}: write seeds: [0, 1, ...], which are averaged, not grid.seed")
            if self.figure == "layers" and (self.budgets or family.budgets):
                raise ValueError("figure: layers has no budgets; its families name counts, such as grid: {keep: [288]}")
            if self.figure == "budgets" and not (self.budgets or family.budgets):
                raise ValueError("budgets is missing; name average tokens, such as budgets: [144, 88]")
            if self.figure == "budgets" and family.role != "method" and family.grid:
                raise ValueError(f"family {family.name!r} is a control at each budget: it can have no grid")
        return self

    @property
    def points(self) -> tuple[Family, ...]:
        """The families, those with a grid once for each of its points."""
        return tuple(point for family in self.families for point in family.points())

    @property
    def columns(self) -> tuple[int, ...]:
        """All budgets that any family has, falling."""
        return tuple(sorted({*self.budgets, *(b for f in self.families for b in f.budgets or ())}, reverse=True))

    @property
    def panels(self) -> tuple[str, ...]:
        """The panels in the order of the families."""
        return tuple(dict.fromkeys(family.panel for family in self.families))


class Trial(NamedTuple):
    """A family's point at a budget, or without one. methods: one a seed, solved where the model can. refused: why it
    cannot, else None."""

    family: Family
    budget: int | None
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


def methods(sweep: Sweep) -> tuple[Trial, ...]:
    """Every point of every family at its budgets, falling, before any model is known: nothing is solved.

    Raises UserError that names the family for a name or a parameter that there is not.
    """
    found = []
    for family in sweep.points:
        budgets = sorted(set(family.budgets or sweep.budgets), reverse=True)
        for budget in (*budgets,) or (None,):
            specs = family.at(budget)
            try:
                found.append(Trial(family, budget, tuple(get_method(spec) for spec in specs)))
            except UserError as error:
                raise UserError(f"family {family.name!r}: {error}") from None
    return tuple(found)


def trials(sweep: Sweep, geometry: Geometry) -> tuple[Trial, ...]:
    """The same, solved; those that a model of this shape cannot do say why."""
    return tuple(_solved(trial, geometry) for trial in methods(sweep))


def _solved(trial: Trial, geometry: Geometry) -> Trial:
    try:
        return trial._replace(methods=tuple(method.solve(geometry) for method in trial.methods))
    except UserError as error:
        return trial._replace(refused=str(error))
