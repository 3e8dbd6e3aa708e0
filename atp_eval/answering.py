"""Answer questions with several pruning methods side by side, and record every answer with the tokens that stayed.

Batches are answered by all methods in turn (the order rotates), so that their times are taken under the same
conditions and an image is encoded once for all methods and all questions about it.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from PIL import Image

from atp_eval.asks import Ask, Loaded, batches, load
from atp_eval.encoded import Pictures, joined, out_of_memory
from atp_eval.engine import TowerView, VisionStates, prune
from atp_eval.engine.fixed import Mode
from atp_eval.features import FeatureStore
from atp_eval.generation import FiniteLogits, FirstScores, generation_options, new_tokens, until_stops
from atp_eval.loading import LOADERS, ahead
from atp_eval.methods import Method
from atp_eval.models import Bundle
from atp_eval.models.clip import ClipText
from atp_eval.recorded import Recorded
from atp_eval.records import SampleRecord, asked_text
from atp_eval.shares import WHOLE, Share
from atp_eval.writer import RunWriter


class Todo(NamedTuple):
    """A batch and the methods that have not answered all of it."""

    asks: list[Ask]
    methods: list[str]


class Prepared(NamedTuple):
    """A batch with all done that needs no model. tokens: of those without an error, as `Bundle.tokens` makes them."""

    loaded: list[Loaded]
    methods: list[str]
    tokens: dict[str, torch.Tensor] | None


class Answerer:
    """Answers lists of questions with several methods; records go to the run folder if there is one.

    methods: solved methods by the label under which their answers are recorded.
    share_pictures: whether questions about one picture in a batch share the reading of it, as far as a method allows;
        the answers are the same, the times are not.
    decode: how plain greedy answers are decoded (`Bundle.generate`).
    loaders: threads that make the next batches ready while the model works. store: keeps encoded pictures on the disk.
    say: takes one line for the person who waits (an out-of-memory batch that was halved, say).
    progress: called with the number of (question, method) pairs that were just answered.
    """

    def __init__(
        self,
        bundle: Bundle,
        methods: Mapping[str, Method],
        *,
        batch_size: int = 16,
        share_pictures: bool = True,
        decode: Mode | None = None,
        loaders: int = LOADERS,
        store: FeatureStore | None = None,
        writer: RunWriter | None = None,
        keep_images: int = 0,
        say: Callable[[str], None] = lambda line: None,
        progress: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.bundle, self.methods, self.batch_size, self.loaders = bundle, dict(methods), batch_size, loaders
        self.share_pictures, self.decode = share_pictures, decode
        self.writer, self.keep_images, self.say, self.progress = writer, keep_images, say, progress
        self.pictures = Pictures(bundle, any("vision" in method.needs for method in methods.values()), say, store)
        self.texts = {
            name: ClipText.load(name, width=bundle.geometry.vision.hidden, device=bundle.device)
            for name in {method.text_tower for method in methods.values()}
            if name is not None
        }
        self.kept, self.share = Recorded(writer), WHOLE
        self.batches = 0

    def turn_to(self, writer: RunWriter, share: Share) -> None:
        """From here on answer that share of the batches, into another run folder."""
        self.writer, self.kept, self.share = writer, Recorded(writer), share

    def documents(self, method: str, benchmark: str) -> Set[int]:
        """The doc_ids answered already, in this process or by an earlier one in the same run folder."""
        return self.kept.documents(method, benchmark)

    def recorded(self, method: str, benchmark: str) -> Mapping[int, SampleRecord]:
        """All that is known of the answers, by doc_id; they are read from the run folder, if there is one."""
        return self.kept.records(method, benchmark)

    def answer(self, asks: Sequence[Ask]) -> None:
        """Answer with every method whatever is not recorded yet; `recorded` then holds it."""
        named = {(ask.benchmark, ask.doc_id): ask for ask in asks}
        planned = [[(ask.benchmark, ask.doc_id) for ask in batch] for batch in batches(asks, self.batch_size)]
        self.answer_batches(planned, lambda batch: [named[name] for name in batch])

    def answer_batches(
        self, planned: Sequence[Sequence[tuple[str, int]]], asks: Callable[[Sequence[tuple[str, int]]], list[Ask]]
    ) -> None:
        """The same of batches that are put together already, named by benchmarks and doc_ids: those of this process'
        share. asks: gives the questions of a batch when its turn has come."""
        with closing(ahead(self._prepare, self._todo(planned, asks), self.loaders)) as batches_ready:
            for batch in batches_ready:
                self._answer_batch(batch)
        if self.pictures.store:
            self.pictures.store.flush()

    def _todo(
        self, planned: Sequence[Sequence[tuple[str, int]]], asks: Callable[[Sequence[tuple[str, int]]], list[Ask]]
    ) -> Iterator[Todo]:
        for batch in (b for i, b in enumerate(planned) if self.share.has(i)):
            missing = [m for m in self.methods if any(doc not in self.documents(m, name) for name, doc in batch)]
            if missing:
                yield Todo(asks(batch), missing)

    def _prepare(self, todo: Todo) -> Prepared:
        """What needs no model, in a thread of its own."""
        loaded = [load(ask) for ask in todo.asks]
        self.pictures.prepare(loaded)
        ready = [x for x in loaded if x.error is None]
        return Prepared(loaded, todo.methods, self._tokens(ready) if ready else None)

    def _tokens(self, ready: list[Loaded]) -> dict[str, torch.Tensor]:
        return self.bundle.tokens([x.ask.text for x in ready], [x.image is not None for x in ready])

    @torch.inference_mode()
    def _answer_batch(self, batch: Prepared) -> None:
        self.batches += 1
        ready, methods = [x for x in batch.loaded if x.error is None], batch.methods
        start = self._now()
        self.pictures.encode(ready)
        vision = (self._now() - start) / max(1, len(ready))
        states = cache(partial(self._states, ready))  # joined for the first method that looks at them, in no one's time
        turn = self.batches % len(methods)
        for method in methods[turn:] + methods[:turn]:
            found = [self._record(x, method, error=x.error, vision=vision) for x in batch.loaded if x.error]
            found += self._generate(ready, method, vision, batch.tokens, states)
            self._keep(found)
        self._keep_images(ready)

    def _states(self, ready: list[Loaded]) -> VisionStates | None:
        return joined([x.encoded for x in ready if x.encoded is not None])

    def _generate(
        self, ready: list[Loaded], method: str, vision: float, tokens: dict[str, torch.Tensor] | None = None,
        states: Callable[[], VisionStates | None] | None = None,
    ) -> list[SampleRecord]:  # fmt: skip
        """The records of a batch; a batch that does not fit in memory is halved until it does."""
        if not ready:
            return []
        try:
            looks = "vision" in self.methods[method].needs
            seen = (states or partial(self._states, ready))() if looks else None
            return self._generate_batch(ready, method, vision, tokens or self._tokens(ready), seen)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        if self.bundle.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(ready) == 1:
            self.say(f"{ready[0].ask.name} does not fit in memory with {method}: recorded as an error")
            return [self._record(ready[0], method, error="out of memory at batch size 1", vision=vision)]
        half = len(ready) // 2
        self.say(f"out of memory at {len(ready)} questions with {method}: trying {half} at a time")
        return self._generate(ready[:half], method, vision) + self._generate(ready[half:], method, vision)

    def _generate_batch(
        self, ready: list[Loaded], method: str, vision: float, tokens: dict[str, torch.Tensor],
        states: VisionStates | None,
    ) -> list[SampleRecord]:  # fmt: skip
        options, _ = generation_options(ready[0].ask.options)  # the same for all, but for the stop strings
        until = [generation_options(x.ask.options)[1] for x in ready]
        pictures = [x.encoded for x in ready]
        inputs = self.bundle.with_features(tokens, [p and p.features for p in pictures])
        prompt_length = inputs["input_ids"].shape[1]
        finite, first = FiniteLogits(), FirstScores(self._now)
        stops = until_stops(self.bundle.tokenizer, until, prompt_length)
        self._forget_peak()
        start = self._now()
        with prune(
            self.bundle.model,
            self.methods[method],
            sample_ids=[x.ask.name for x in ready],
            asked=[x.ask.info.cells for x in ready],
            vision=states,
            relevance=self._relevance(ready, method, states),
            pictures=[x.image_id for x in ready] if self.share_pictures else None,
        ) as pruned:
            output = self.bundle.generate(
                inputs, decode=self.decode, logits_processor=[finite, first], stopping_criteria=stops, **options
            )
        seconds, peak = (self._now() - start) / len(ready), self._peak()
        prefill = None if first.at is None else (first.at - start) / len(ready)
        rows = new_tokens(output[:, prompt_length:], self.bundle.tokenizer, until)
        records = []
        lengths = tokens["attention_mask"].sum(1).tolist()  # on the host
        for x, row, bad, trace, prompt_tokens in zip(
            ready, rows, finite.rows(len(ready)), pruned.traces, lengths, strict=True
        ):
            records.append(
                self._record(
                    x,
                    method,
                    response=None if bad else row.text,
                    error="the logits were not finite; try --dtype float32" if bad else None,
                    invalid=not bad and not x.ask.is_valid(row.text),
                    new_tokens=row.tokens,
                    prompt_tokens=prompt_tokens,
                    seconds=seconds,
                    prefill_seconds=prefill,
                    peak_bytes=peak,
                    vision=vision,
                    batch_size=len(ready),
                    trace=trace.to_json() if x.image is not None else None,
                )
            )
        return records

    def _relevance(self, ready: list[Loaded], method: str, states: VisionStates | None) -> torch.Tensor | None:
        """[pictures, V]: cosines of patches with questions, for a method that wants them."""
        name = self.methods[method].text_tower
        if name is None or states is None:
            return None
        questions = [x.ask.info.question for x in ready if x.encoded is not None]
        return self.texts[name].relevance(TowerView(self.bundle.model, states).features, questions)

    def _record(self, x: Loaded, method: str, *, vision: float, **fields: Any) -> SampleRecord:
        ask, info = x.ask, x.ask.info
        return SampleRecord(
            method=method,
            benchmark=ask.benchmark,
            doc_id=ask.doc_id,
            image_id=x.image_id,
            question=info.question,
            prompt=ask.text,
            target=info.target,
            category=info.category,
            group=info.group,
            kind=info.kind,
            level=info.level,
            objects=info.objects,
            asked_cells=None if info.cells is None else len(info.cells),
            asked_map=asked_text(info.cells),
            vision_seconds=vision,
            batch=self.batches,
            warm=self.batches > 1,
            **{"response": None, **fields},
        )

    def _keep(self, records: list[SampleRecord]) -> None:
        """Remember, and write, what was not recorded before (a resumed batch is answered whole, as it was at first)."""
        self.progress(self.kept.add(records))

    def _keep_images(self, ready: list[Loaded]) -> None:
        """Keep the pictures of the first documents of each benchmark, as the model saw them."""
        for x in ready:
            if self.writer and x.image is not None and x.ask.doc_id < self.keep_images:
                self.writer.keep_image(str(x.image_id), partial(self._picture, x.image))

    def _picture(self, image: Image.Image) -> bytes:
        return webp(self.bundle.view(image))

    def _forget_peak(self) -> None:
        """From here on `_peak` counts anew."""
        if self.bundle.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.bundle.device)

    def _peak(self) -> int | None:
        """The most bytes that were allocated since; None on a CPU, whose peak is the whole process's and only grows."""
        cuda = self.bundle.device.type == "cuda"
        return torch.cuda.max_memory_allocated(self.bundle.device) if cuda else None

    def _now(self) -> float:
        if self.bundle.device.type == "cuda":
            torch.cuda.synchronize(self.bundle.device)
        return time.perf_counter()


def webp(image: Image.Image) -> bytes:
    """A small picture for reports."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88)
    return buffer.getvalue()
