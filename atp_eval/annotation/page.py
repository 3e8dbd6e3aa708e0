"""The offline page that collects blind votes, and the one that shows both answers with their names."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from atp_eval.annotation.ballot import Ballot, Item
from atp_eval.annotation.votes import FORMAT, JUDGE, LONGEST_NAME, SCHEMA_VERSION
from atp_eval.errors import UserError
from atp_eval.reporting.page import render_page
from atp_eval.reporting.pictures import Pictures
from atp_eval.reporting.svg import clean

LONGEST_ANSWER = 10_000  # characters that are shown; who votes has to see it whole


def vote_page(ballot: Ballot) -> str:
    """The HTML of a page that asks for a vote on each item and shows no method's name.

    Who stands where is in it all the same, since the export names it: packed, not encrypted.
    """
    pictures = Pictures()
    samples = [
        {
            "benchmark": item.benchmark,
            "doc_id": item.doc_id,
            "image": item.image,
            "picture": pictures.add(item.picture) if item.picture else None,
            # Markup: not cut again. The JSON filter escapes it as any text, and the script only ever sets text.
            "asked": Markup(whole(item.asked)),
            "answers": [Markup(whole(text)) for text in item.shown],
        }
        for item in ballot.items
    ]
    data = {
        "page": ballot.page,
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "seed": ballot.seed,
        "pools": {name: pool.model_dump() for name, pool in ballot.pools.items()},
        "judge": JUDGE,
        "samples": samples,
        "sealed": sealed(ballot),
    }
    return render_page(
        "annotate.html.j2",
        styles=("annotate.css",),
        scripts=("annotate.js",),
        ballot=data,
        hint=ballot.hint,
        pictures=pictures.addresses(),
        pictured=ballot.pictured,
        longest_name=LONGEST_NAME,
    )


def sealed(ballot: Ballot) -> Markup:
    """The methods' names and who stands on the left, so that a look at the source does not tell."""
    names = json.dumps({"a": ballot.a, "b": ballot.b, "left": "".join(item.left for item in ballot.items)})
    return Markup(base64.b64encode(names.encode("ascii")).decode("ascii"))


def reveal_page(ballot: Ballot) -> str:
    """The HTML of a page to read: every item with both answers under their names, right or wrong."""
    pictures = Pictures()
    cards = [card(item, pictures) for item in ballot.items]
    return render_page(
        "side_by_side.html.j2",
        styles=("annotate.css",),
        names=(ballot.a, ballot.b),
        cards=cards,
        pictures=pictures.addresses(),
        pictured=ballot.pictured,
        pools=ballot.pools,
    )


def card(item: Item, pictures: Pictures) -> dict[str, Any]:
    """An item as the reading page shows it."""
    return {
        "item": item,
        "asked": escape(whole(item.asked)),
        "picture": pictures.add(item.picture) if item.picture else None,
        "answers": [
            (escape(whole(text)), *verdict(score)) for text, score in zip(item.answers, item.scores, strict=True)
        ],
    }


def verdict(score: float) -> tuple[str, str]:
    """A score in [0, 1] in words, and a symbol that does not rely on colour."""
    if score >= 1.0:
        return "right", "✓"
    return (f"partly right ({score:.2f})", "◐") if score > 0 else ("wrong", "✗")


def whole(text: str) -> str:
    """Text made safe to show, up to LONGEST_ANSWER characters."""
    return clean(text, LONGEST_ANSWER)


def write_page(html: str, path: Path) -> Path:
    """Raises UserError where the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}. Name another file with --output.") from None
    return path
