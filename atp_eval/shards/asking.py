"""Shares of a run's questions, answered into parts of its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from atp_eval import driver
from atp_eval.asks import Ask
from atp_eval.config import RunConfig
from atp_eval.models import Bundle
from atp_eval.run import set_up
from atp_eval.shares import Share
from atp_eval.writer import RunWriter


class Asking:
    """A run's model, methods and benchmarks in a process that answers shares of it, and scores nothing.

    say, progress: as an Answerer's.

    Raises UserError and TaskFailure as `run.evaluate` does.
    """

    def __init__(
        self,
        config: RunConfig,
        bundle: Bundle,
        *,
        say: Callable[[str], None],
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.config = config
        self.setup = set_up(config, bundle)
        self.answerer = self.setup.answerer(say=say, progress=progress)
        self._asks: tuple[str, list[Ask]] | None = None  # of one benchmark: they are as many as its documents

    @property
    def benchmarks(self) -> list[str]:
        """Their names."""
        return [b.name for b in self.setup.benchmarks]

    @property
    def total(self) -> int:
        """Answers of all methods to all questions."""
        return self.setup.total

    def answer(self, benchmark: str, share: Share, part: Path) -> None:
        """Answer a share of a benchmark with all methods into `part`, less what the run's folder holds.

        Raises UserError where the part was begun under another protocol.
        """
        with RunWriter(part, beside=self.config.run_folder()) as writer:
            writer.write_manifest(self.setup.manifest(part))
            self.answerer.turn_to(writer, share)
            self.answerer.answer(self._of(benchmark))

    def _of(self, benchmark: str) -> list[Ask]:
        """The questions of a benchmark, as lmms-eval asks them."""
        if self._asks is None or self._asks[0] != benchmark:
            from atp_eval.backend import Answering

            view = Answering(self.answerer, next(iter(self.setup.methods)))
            requests = driver.requests(view, self.setup.tasks[benchmark], self.setup.limits[benchmark])
            self._asks = benchmark, view.asks(requests)
        return self._asks[1]
