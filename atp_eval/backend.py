"""The lmms-eval model: `lmms-eval --model atp_eval --model_args pretrained=tiny,method=fastv@144 --tasks ...`.

A thin adapter: it turns lmms-eval's requests into Asks, lets an Answerer answer them, and hands the answers back.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List
from datasets import Sequence as SequenceFeature
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics

from atp_eval.answering import Answerer
from atp_eval.asks import Ask
from atp_eval.benchmarks import BENCHMARKS, Benchmark, describe, is_valid_answer
from atp_eval.documents import DocInfo
from atp_eval.errors import UserError
from atp_eval.methods import get_method
from atp_eval.models import ImageMode, PromptStyle, load_model
from atp_eval.records import SAMPLES, slug
from atp_eval.rows import Answer
from atp_eval.writer import RunWriter


class Answering(lmms):
    """One method's view of an Answerer, as lmms-eval wants a model to be.

    All methods of the Answerer answer at the first view's requests; the other views then find their answers recorded.
    """

    is_simple = True

    def __init__(self, answerer: Answerer, method: str) -> None:
        super().__init__()
        self.answerer, self.method = answerer, method
        self._light: dict[tuple[str, str], Any] = {}

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answers in the order of the requests; a failed sample's text is empty, its error is in the records."""
        names = [(_benchmark_name(request), int(request.args[3])) for request in requests]
        asked: dict[str, set[int]] = {}
        for name, doc in names:
            asked.setdefault(name, set()).add(doc)
        if any(docs - self.answerer.documents(m, name) for m in self.answerer.methods for name, docs in asked.items()):
            self.answerer.answer(self.asks(requests))
        found = {name: self.answerer.kept.answers(self.method, name) for name in asked}
        answers = [found[name][doc] for name, doc in names]
        failed = [(name, answer) for (name, _), answer in zip(names, answers, strict=True) if answer.error]
        if failed:
            self.answerer.say(
                f"{len(failed)} of {len(answers)} samples failed with {self.method}, first "
                f"{failed[0][0]}/{failed[0][1].doc_id}: {failed[0][1].error}"
            )
        report_throughput(answers)
        return [GenerationResult(a.response or "", TokenCounts(a.prompt_tokens, a.new_tokens)) for a in answers]

    def asks(self, requests: Sequence[Instance]) -> list[Ask]:
        """What an Answerer answers, of lmms-eval's requests."""
        return [self._ask(request) for request in requests]

    def _ask(self, request: Instance) -> Ask:
        text, options, doc_to_visual, doc_id, task, split = request.args
        benchmark = benchmark_of(task)
        doc = self._document(task, split, doc_id)
        info = describe(benchmark, doc) if benchmark else DocInfo(question=text, target="")
        is_valid: Callable[[str], bool] = bool
        if benchmark:
            is_valid = partial(is_valid_answer, benchmark, options=info.options)
        name = _benchmark_name(request)
        images = partial(self._images, doc_to_visual, task, split, doc_id)
        return Ask(name, doc_id, text, images, dict(options), info, is_valid)

    def _images(self, doc_to_visual: Callable[[Any], Any], task: str, split: str, doc_id: int) -> list[Any]:
        return list(doc_to_visual(self.task_dict[task][split][doc_id]) or [])

    def _document(self, task: str, split: str, doc_id: int) -> Any:
        """A row without its pictures, so that describing a document decodes none (and no broken one raises)."""
        if (task, split) not in self._light:
            self._light[task, split] = without_media(self.task_dict[task][split])
        return self._light[task, split][doc_id]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Refused: pruning is defined for generation."""
        raise UserError("atp_eval generates answers; this task asks for likelihoods. Choose a generate_until task.")

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused: one question about one image at a time."""
        raise UserError("atp_eval answers one question at a time; this task asks in rounds. Choose another task.")

    def clean(self) -> None:
        """Keep the model: other methods and benchmarks still need it."""


class AtpEval(Answering):
    """What `lmms-eval --model atp_eval` makes from --model_args.

    pretrained: `tiny`, a folder or a hub id. method: a spec; write `;` for the commas in it (`fastv:layer=2;keep=72`).
    output: a folder for the records of every sample, with its kept tokens (none by default); it must hold none of this
        method yet, since nothing there says which model gave them.
    """

    def __init__(
        self,
        pretrained: str = "tiny",
        method: str = "upper_bound",
        batch_size: int | str = 16,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "sdpa",
        image: ImageMode = "pad",
        prompt: PromptStyle = "hf",
        output: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise UserError(f"batch_size = {batch_size!r} must be a whole number of at least 1.")
        bundle = load_model(
            str(pretrained),
            device=device,
            dtype=dtype,
            attention=attention,
            image=image,
            prompt=prompt,
        )
        chosen = get_method(method.replace(";", ","))
        methods = {chosen.label: chosen.solve(bundle.geometry)}
        if output and any(Path(output).glob(f"{slug(chosen.label)}/*/{SAMPLES}")):
            raise UserError(f"output={output} holds answers of {chosen.label} already. Name a new folder.")
        writer = RunWriter(Path(output)).__enter__() if output else None
        say = partial(print, file=sys.stderr)
        super().__init__(Answerer(bundle, methods, batch_size=int(batch_size), writer=writer, say=say), chosen.label)
        self.model = bundle.model

    @property
    def config(self) -> Any:
        """The model's configuration, which lmms-eval names in its results."""
        return self.answerer.bundle.model.config


@cache
def benchmark_of(task: str) -> Benchmark | None:
    """The benchmark behind the name of an lmms-eval task, ours or theirs; None for a task that the table lacks."""
    for benchmark in BENCHMARKS.values():
        names = {benchmark.source, benchmark.task("real")}
        if benchmark.mini_scale is not None:
            names.add(benchmark.task("mini"))
        if task in names:
            return benchmark
    return None


def _benchmark_name(request: Instance) -> str:
    """Under which a request is recorded: our benchmark's, else the task's."""
    task: str = request.args[4]
    benchmark = benchmark_of(task)
    return benchmark.name if benchmark else task


def without_media(dataset: Dataset) -> Dataset:
    """The dataset less its image columns."""

    def is_media(feature: Any) -> bool:
        if isinstance(feature, (List, SequenceFeature)):
            return is_media(feature.feature)
        return isinstance(feature, Image)

    return dataset.remove_columns([name for name, feature in dataset.features.items() if is_media(feature)])


def report_throughput(records: Sequence[Answer]) -> None:
    """What lmms-eval shows as throughput."""
    seconds = sum(r.seconds + r.vision_seconds for r in records)
    tokens = sum(r.new_tokens for r in records)
    log_metrics(
        total_gen_tokens=tokens,
        total_elapsed_time=seconds,
        avg_speed=tokens / seconds if seconds else 0.0,
        additional_metrics={"total_requests": len(records)},
    )
