"""How a model is asked to judge, checked before anything is asked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from atp_eval.annotation.endpoint import Reply, parsed
from atp_eval.errors import UserError

OURS = {"model", "messages", "stream"}  # fields of a request that are not for the user to set


class Prices(NamedTuple):
    """USD per million tokens."""

    prompt: float
    completion: float

    def of(self, reply: Reply) -> float:
        """USD of a reply; tokens that nobody counted cost nothing here."""
        return ((reply.prompt_tokens or 0) * self.prompt + (reply.completion_tokens or 0) * self.completion) / 1e6


@dataclass(frozen=True)
class JudgeSettings:
    """url: of an OpenAI-compatible endpoint, up to /v1. body: fields of a request that are set, or left out where None.
    prices and max_cost in USD; timeout in seconds for a whole answer; retries: tries after the first."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    body: Mapping[str, Any] = field(default_factory=dict)
    prices: Prices | None = None
    max_cost: float | None = None
    workers: int = 4
    timeout: float = 60.0
    retries: int = 4
    backoff: float = 1.0


def judge_settings(
    *,
    url: str | None,
    model: str | None,
    key_env: str | None,
    body: str | None,
    price_in: float | None,
    price_out: float | None,
    max_cost: float | None,
    workers: int,
    timeout: float,
    retries: int,
) -> JudgeSettings | None:
    """The command line's options; None without --judge-url. Raises UserError for what cannot be or is not enough."""
    given = {
        "--judge-model": model,
        "--judge-key-env": key_env,
        "--judge-body": body,
        "--price-in": price_in,
        "--price-out": price_out,
        "--max-cost": max_cost,
    }
    if not url:
        if lonely := [name for name, value in given.items() if value is not None]:
            raise UserError(f"{lonely[0]} needs --judge-url, the address of an endpoint")
        return None
    if not model:
        raise UserError("--judge-url needs --judge-model, the model's name at the endpoint")
    parsed(url)
    for name, number in (("--price-in", price_in), ("--price-out", price_out)):
        if number is not None and not 0 <= number < 1e6:
            raise UserError(f"{name} {number:g}: USD per million tokens, 0 or more")
    if (price_in is None) != (price_out is None):
        raise UserError("give both --price-in and --price-out, or neither")
    prices = Prices(price_in, price_out) if price_in is not None and price_out is not None else None
    if max_cost is not None and not max_cost > 0:
        raise UserError(f"--max-cost {max_cost:g}: above 0")
    if max_cost is not None and prices is None:
        raise UserError("--max-cost needs --price-in and --price-out: tokens alone are no cost")
    if workers < 1 or retries < 0 or not 0 < timeout < 1e5:
        raise UserError(f"--workers {workers}, --retries {retries}, --timeout {timeout:g}: at least 1, 0 and above 0")
    return JudgeSettings(url, model, key(key_env), fields(body), prices, max_cost, workers, timeout, retries)


def key(variable: str | None) -> str | None:
    """The key that a variable of the environment holds."""
    if variable is None:
        return None
    found = os.environ.get(variable, "").strip()
    if not found or not found.isascii() or not found.isprintable():
        raise UserError(f"--judge-key-env: the environment variable {variable} holds no key")
    return found


def fields(text: str | None) -> dict[str, Any]:
    """What --judge-body says."""
    try:
        found = json.loads(text or "{}")
    except ValueError as error:
        raise UserError(f"--judge-body {text!r} is no JSON: {error}") from None
    if not isinstance(found, dict) or OURS & set(found):
        raise UserError(f"--judge-body {text!r}: a JSON object, without {', '.join(sorted(OURS))}")
    return found
