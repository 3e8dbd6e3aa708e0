"""What is seen of a training while it runs: a line that moves on a terminal, lines one below the other in a file."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Moving(TrainerCallback):
    """Steps, time, language loss and average of tokens, on the first process."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[told]}"),
            console=console,
        )
        self._task = self._progress.add_task("training", total=None, told="")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero and self._progress.console.is_terminal:
            self._progress.update(self._task, total=state.max_steps, completed=state.global_step)
            self._progress.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._progress.update(self._task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss_lm" not in logs:
            return
        told = f"language loss {logs['loss_lm']:.3f}"
        if "average_tokens" in logs:  # not where all samples were text only
            told += f", {logs['average_tokens']:.1f} tokens"
        self._progress.update(self._task, told=told)
        if state.is_world_process_zero and not self._progress.live.is_started:
            self._progress.console.print(f"step {state.global_step}/{state.max_steps}: {told}", highlight=False)

    def stop(self) -> None:
        """Leave the line as it is."""
        if self._progress.live.is_started:
            self._progress.stop()
