"""Settings of every test: no network, one thread, and a suite that is made once and kept beside pytest's own cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait for each other, on a busy machine most of the time
os.environ.setdefault("ATP_EVAL_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "atp_eval"))

# A busy machine makes no example wrong.
settings.register_profile("atp_eval", deadline=None)
settings.load_profile("atp_eval")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window. One a module, since playwright keeps an event loop running while it is open."""
    from browsing import chromium

    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def unbroken() -> dict[str, list[tuple[Any, ...]]]:
    """What `asked.answerer` answers when nothing goes wrong."""
    from asked import answerer, outcomes, questions

    found = answerer()
    found.answer(questions())
    return outcomes(found)
