"""What tests of the voting page have alike."""

from __future__ import annotations

from pathlib import Path

import pytest
from annotation.voting import METHODS, A, B
from synthetic import plain_picture, write_run

from atp_eval.annotation.ballot import Ballot, draw
from atp_eval.annotation.page import vote_page


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ballot, Path]:
    """A ballot, and its voting page."""
    folder = tmp_path_factory.mktemp("vote")
    run = write_run(folder / "run", methods=METHODS, pictures=plain_picture, benchmarks=("gqa", "mmb"))
    ballot = draw([run], A, B, 6, hint="Correctness first.")
    page = folder / "annotate.html"
    page.write_text(vote_page(ballot), encoding="utf-8")
    return ballot, page
