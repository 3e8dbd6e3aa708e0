"""Questions about pictures, and their answering by several methods."""

from __future__ import annotations

import random
from typing import Any

from bundles import small_bundle
from PIL import Image

from atp_eval.answering import Answerer
from atp_eval.asks import Ask
from atp_eval.documents import DocInfo
from atp_eval.methods import get_method
from atp_eval.records import SampleRecord

METHODS = ("upper_bound", "fastv@18", "random@18", "grid@18")
WORDS = "what color is the red circle on left of blue star and how many".split()  # noqa: SIM905


def picture(seed: int) -> Image.Image:
    rng = random.Random(seed)
    return Image.frombytes("RGB", (60, 40), rng.randbytes(60 * 40 * 3))


def questions(count: int = 12, benchmark: str = "gqa") -> list[Ask]:
    """Questions of unequal length, three about each picture."""
    rng = random.Random(1)
    asks = []
    for i in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.randrange(2, 12))) + "?"
        info = DocInfo(question=text, target="red", objects=i, cells=(3, 4, 5) if i else ())
        asks.append(Ask(benchmark, i, text, lambda i=i: [picture(i // 3)], {"max_new_tokens": 3}, info))
    return asks


def answerer(**options: Any) -> Answerer:
    bundle = small_bundle()
    methods = {spec: get_method(spec).solve(bundle.geometry) for spec in METHODS}
    return Answerer(bundle, methods, **{"batch_size": 4, **options})


def outcome(record: SampleRecord) -> tuple[Any, ...]:
    """What must not depend on batches, kills or the clock."""
    return record.doc_id, record.response, record.error, record.image_id, str(record.trace), record.new_tokens


def outcomes(found: Answerer) -> dict[str, list[tuple[Any, ...]]]:
    return {m: [outcome(r) for _, r in sorted(found.recorded(m, "gqa").items())] for m in METHODS}
