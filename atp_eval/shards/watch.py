"""What a person sees of workers: one live display of all, and plain lines where the output is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from atp_eval.shards.units import Outcome, Unit
from atp_eval.workers import TRIES, Watcher


class Lines:
    """Whole lines of files that grow; only what is new is read."""

    def __init__(self, paths: list[Path]) -> None:
        self._seen = dict.fromkeys(paths, (0, 0))  # bytes read, lines in them

    def count(self) -> int:
        """How many there are by now."""
        for path, (size, lines) in self._seen.items():
            if path.exists() and path.stat().st_size > size:
                with path.open("rb") as file:
                    file.seek(size)
                    new = file.read()
                self._seen[path] = size + len(new), lines + new.count(b"\n")
        return sum(lines for _, lines in self._seen.values())


class Display(Watcher[Unit]):
    """Bars of all units and of each worker's own; answers are counted in the workers' files.

    back: called with each unit that is done, before its line is shown.
    """

    def __init__(self, console: Console, units: Sequence[Unit], size: int, back: Callable[[Unit], None]) -> None:
        columns = (
            TextColumn("[bold]{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("answers"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self.console, self.failures = console, list[str]()
        self._back, self._total, self._count, self._done = back, sum(u.answers for u in units), len(units), 0
        self._live = console.is_terminal
        self._bars = Progress(*columns, console=console, disable=not self._live, refresh_per_second=4)
        self._all = self._bars.add_task(f"{size} workers", total=self._total)
        self._own = [self._bars.add_task(f"  {i + 1}", total=None, visible=False) for i in range(size)]
        self._busy: dict[int, tuple[Unit, Lines]] = {}
        self._answered = 0

    def __enter__(self) -> Display:
        self._bars.start()
        self._say(f"{self._count} units of work, {self._total:,} answers, for {len(self._own)} workers", plain=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def started(self, place: int, task: Unit) -> None:
        """A worker's bar is of its unit now."""
        self._busy[place] = task, Lines(task.files())
        self._bars.reset(self._own[place], total=task.answers, description=f"  {place + 1} {escape(task.said)}")
        self._bars.update(self._own[place], visible=True)

    def ended(self, place: int, task: Unit, found: Outcome) -> None:
        """The unit goes back; what its worker has to say is shown."""
        for line in found.notes:
            self._say(f"[yellow]note[/yellow] {escape(line)}")
        self.failures += found.failures
        self._answered += task.answers
        self._leave(place)
        self._back(task)
        self._done += 1
        self._say(f"{self._done} of {self._count}: {escape(task.said)}", plain=True)

    def died(self, place: int, task: Unit, why: str, tries: int) -> None:
        """Say so."""
        again = "tried again" if tries < TRIES else "given up"
        self._say(f"[yellow]note[/yellow] a worker died of {escape(task.said)} ({escape(why)}): {again}")
        self._leave(place)

    def look(self) -> None:
        """Move the bars."""
        if not self._live:
            return
        running = 0
        for place, (_, lines) in self._busy.items():
            found = lines.count()
            running += found
            self._bars.update(self._own[place], completed=found)
        self._bars.update(self._all, completed=self._answered + running)

    def _leave(self, place: int) -> None:
        del self._busy[place]
        self._bars.update(self._own[place], visible=False)

    def _say(self, line: str, *, plain: bool = False) -> None:
        """A line above the bars; plain: only where there are none."""
        if not (plain and self._live):
            self._bars.console.print(line, highlight=False, soft_wrap=True)
