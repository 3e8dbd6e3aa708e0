"""Pruning methods by name. A new method is one file here and one line in `_HOMES`."""

from __future__ import annotations

import importlib
from pathlib import Path

from atp_eval.errors import UserError, unknown
from atp_eval.methods.aimed import Aimed
from atp_eval.methods.base import Geometry, Method
from atp_eval.methods.decision import Decision, keep_top
from atp_eval.methods.point import Embeddings, Point, Vision
from atp_eval.methods.spec import parse_spec, split_name

__all__ = [
    "Decision",
    "Embeddings",
    "Geometry",
    "Method",
    "Point",
    "Vision",
    "get_method",
    "keep_top",
    "method_class",
    "method_names",
]

_HOMES = {
    "upper_bound": "upper_bound:UpperBound",
    "atp": "atp:ATP",
    "fastv": "fastv:FastV",
    "random": "random:Random",
    "grid": "grid:Grid",
    "pool": "pool:Pool",
    "schedule": "schedule:Schedule",
    "divprune": "divprune:DivPrune",
    "vispruner": "vispruner:VisPruner",
    "cdpruner": "cdpruner:CDPruner",
    "prumerge": "prumerge:PruMerge",
    "prumerge_plus": "prumerge:PruMergePlus",
    "visionzip": "visionzip:VisionZip",
    "sparsevlm": "sparsevlm:SparseVLM",
    "pyramiddrop": "pyramiddrop:PyramidDrop",
    "dart": "dart:DART",
    "downsample": "downsample:Downsample",
    "oracle": "truth:Oracle",
    "background": "truth:Background",
}


def method_names() -> list[str]:
    """All names, without importing a method."""
    return list(_HOMES)


def method_class(name: str) -> type[Method]:
    """The class behind a name. Raises UserError with suggestions for an unknown one, and for a wrong registry line."""
    if name not in _HOMES:
        error = unknown("method", name, _HOMES)
        if (Path(__file__).parent / f"{name}.py").is_file():
            raise UserError(f"{error}. methods/{name}.py is there, but not in _HOMES of methods/__init__.py")
        raise error
    module, _, cls = _HOMES[name].partition(":")
    try:
        found: type[Method] = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"_HOMES of methods/__init__.py has {name!r} as {_HOMES[name]!r}, and {error}") from error
    if "__dataclass_fields__" not in vars(found) or vars(found).get("name") != name:
        raise UserError(
            f"{cls} of methods/{module}.py must be a dataclass of its own, with name = {name!r} as in _HOMES of "
            "methods/__init__.py"
        )
    return found


def get_method(spec: str) -> Method:
    """A method from its spec string: `fastv@144`, `fastv:layer=2,keep=72`, `random@144:seed=2`, `fastv@kv=75.6MB`.

    A budget after '@' stays unsolved until `Method.solve(geometry)`; `prune` does that for the model at hand.
    Raises UserError for an unknown name or parameter, a value of the wrong type, or one out of range.
    """
    if not spec.strip():
        raise UserError("an empty method; write one such as fastv@144")
    method, target = parse_spec(spec.strip(), method_class(split_name(spec)))
    return method if target is None else Aimed(method=method, target=target)
