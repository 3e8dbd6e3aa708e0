"""Shares of a run's questions, answered into parts of its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from atp_eval.batch_size import settled
from atp_eval.config import RunConfig
from atp_eval.models import Bundle
from atp_eval.rounds import agreed
from atp_eval.run import set_up
from atp_eval.shares import Share
from atp_eval.writer import RunWriter


class Asking:
    """A run's model, methods and benchmarks in a process that answers shares of it, and scores nothing.

    processes: which answer on this machine at once. say, progress: as an Answerer's.

    Raises UserError and TaskFailure as `run.evaluate` does.
    """

    def __init__(
        self,
        config: RunConfig,
        bundle: Bundle,
        *,
        say: Callable[[str], None],
        processes: int = 1,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.config = config
        config = settled(config, bundle, say, processes, partial(agreed, config.run_folder()))
        self.setup = set_up(config, bundle)
        self.answerer = self.setup.answerer(say=say, progress=progress)

    @property
    def total(self) -> int:
        """Answers of all methods to all questions."""
        return self.setup.total

    def answer(self, benchmarks: Sequence[str], share: Share, part: Path) -> None:
        """Answer a share of a round (`run.rounds`) with all methods into `part`, less what the run's folder holds.

        Raises UserError where the part was begun under another protocol.
        """
        with RunWriter(part, beside=self.config.run_folder()) as writer:
            writer.write_manifest(self.setup.manifest(part))
            self.answerer.turn_to(writer, share)
            self.setup.answer(self.answerer, benchmarks, self.config.run_folder())
