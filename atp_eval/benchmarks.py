"""The benchmarks: one table of name, lmms-eval task, metric, scale and the paper's upper bounds.

Two suites share the names. `mini` is the embedded one: the seven main benchmarks' schemas, prompts and metrics over
procedural scenes (`scenes/suite.py`). `real` is the published data. Either way lmms-eval's own task code asks
and scores; `task_files.py` says where the YAML files lie that it reads. Neither torch nor lmms-eval is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from atp_eval import documents
from atp_eval.documents import Doc, DocInfo, Form
from atp_eval.errors import unknown

Suite = Literal["mini", "real"]
Aggregation = Literal["mean", "mme", "mmbench", "ocrbench"]

# fmt: off
MME_PERCEPTION = (
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
)
# fmt: on
MME_COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
MINI_MME = ("existence", "count", "position", "color", "scene", "OCR")  # the perception categories that scenes can ask
LLAVA, VILA, INTERNVL, QWEN = "llava-1.5-7b", "vila-7b", "internvl2-8b", "qwen2-vl-7b"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    name, title: the short name used everywhere, and the one people know.
    source: lmms-eval's own task that ours includes. dataset, config, split: where it lies on the hub.
    documents: the number of its rows.
    metric, filter: the headline in lmms-eval's results is the key `metric,filter`.
    scale: the metric's maximum in lmms-eval's unit; paper_scale: the same in the paper's unit (100 for per cent).
    form: what counts as an answer (`is_valid_answer`). aggregation: how samples make the metric (`aggregate`).
    sample_keys: metrics of a logged sample that hold its score, first found.
    max_new_tokens: what the task's YAML lets a model say in the real suite; the mini-suite stops at 16.
    describe: reads a document. paper: upper bounds printed in the paper, by model, in paper_scale's unit.
    mini_scale: the metric's maximum on the embedded suite, None where there is none.
    note: what to know before quoting a figure.
    """

    name: str
    title: str
    source: str
    dataset: str
    config: str | None
    split: str
    documents: int
    metric: str
    form: Form
    describe: Callable[[Doc], DocInfo]
    paper: Mapping[str, float]
    scale: float = 1.0
    paper_scale: float = 100.0
    filter: str = "none"
    aggregation: Aggregation = "mean"
    sample_keys: tuple[str, ...] = ()
    max_new_tokens: int = 16
    mini_scale: float | None = None
    note: str = ""

    def task(self, suite: Suite) -> str:
        """The name of our task in lmms-eval. Raises UserError for a benchmark that the embedded suite lacks."""
        if suite == "mini" and self.mini_scale is None:
            raise unknown("benchmark of the embedded suite", self.name, MAIN)
        return f"{self.name}_{'mini' if suite == 'mini' else 'atp'}"

    def scale_of(self, suite: Suite) -> float:
        """The metric's maximum over a whole suite, in lmms-eval's unit."""
        return self.mini_scale if suite == "mini" and self.mini_scale is not None else self.scale

    def in_paper_unit(self, value: float) -> float:
        """A metric as the paper prints it: per cent, MME points, or OCRBench points."""
        return value / self.scale * self.paper_scale

    @property
    def group_size(self) -> int:
        """Rows that a metric cannot do without each other; `whole_groups` rounds a limit to them."""
        return 2 if self.aggregation == "mme" else 1


# fmt: off
_ROWS = (
    Benchmark(
        name="gqa", title="GQA", source="gqa", form="open", describe=documents.gqa,
        dataset="lmms-lab-encoder/GQA", config="testdev_balanced_instructions", split="testdev", documents=12578,
        metric="exact_match", mini_scale=1.0, paper={LLAVA: 62.0, VILA: 62.3},
    ),
    Benchmark(
        name="mmb", title="MMBench (en, dev)", source="mmbench_en_dev_static", form="choice",
        describe=documents.mmbench,
        dataset="lmms-lab-encoder/MMBench", config="en", split="dev", documents=4329,
        metric="gpt_eval_score", scale=100.0, mini_scale=100.0, aggregation="mmbench", sample_keys=("hit",),
        max_new_tokens=1024, paper={LLAVA: 64.3, VILA: 68.9, INTERNVL: 81.7, QWEN: 83.0},
        note="Scored without an LLM judge: what names no option is wrong. Circular rows count all or nothing.",
    ),
    Benchmark(
        name="mme", title="MME (perception)", source="mme", form="yes_no", describe=documents.mme,
        dataset="lmms-lab-encoder/MME", config=None, split="test", documents=2374,
        metric="mme_perception_score", scale=2000.0, paper_scale=2000.0, mini_scale=200.0 * len(MINI_MME),
        aggregation="mme", sample_keys=("mme_perception_score", "mme_cognition_score"),
        paper={LLAVA: 1510.7, VILA: 1533.0},
        note="Sum over ten categories of accuracy and accuracy on pairs; cognition is another metric, of at most 800.",
    ),
    Benchmark(
        name="pope", title="POPE", source="pope", form="yes_no", describe=documents.pope,
        dataset="lmms-lab-encoder/POPE", config=None, split="test", documents=9000,
        metric="pope_accuracy", mini_scale=1.0, max_new_tokens=128, paper={LLAVA: 85.8, VILA: 85.5},
        note="Accuracy over all rows, exact text: 'Yes.' is wrong. LLaVA-1.5's published figure is an F1, which leaves "
             "out answers that are neither yes nor no and so flatters a broken model.",
    ),
    Benchmark(
        name="seed", title="SEED-Bench (image)", source="seedbench", form="choice", describe=documents.seed,
        dataset="lmms-lab-encoder/SEED-Bench", config=None, split="test", documents=14232,
        metric="seed_image", mini_scale=1.0, paper={LLAVA: 58.6, VILA: 61.1},
        note="Only rows with data_type image; the answer's first character counts. LLaVA-1.5's published 58.6 is over "
             "images and video frames together, so expect a higher figure over images alone.",
    ),
    Benchmark(
        name="sqa", title="ScienceQA (image)", source="scienceqa_img", form="choice", describe=documents.scienceqa,
        dataset="lmms-lab-encoder/ScienceQA", config="ScienceQA-IMG", split="test", documents=2017,
        metric="exact_match", mini_scale=1.0, paper={LLAVA: 71.6, VILA: 68.2},
    ),
    Benchmark(
        name="vqav2", title="VQAv2 (val)", source="vqav2_val", form="open", describe=documents.vqav2,
        dataset="lmms-lab-encoder/VQAv2", config=None, split="validation", documents=214354,
        metric="exact_match", mini_scale=1.0, paper={LLAVA: 78.5, VILA: 79.9},
        note="Validation split with soft accuracy; the paper's figure is test-dev, which only the VQA server scores.",
    ),
    Benchmark(
        name="docvqa", title="DocVQA (val)", source="docvqa_val", form="open", describe=documents.several_answers,
        dataset="lmms-lab-encoder/DocVQA", config="DocVQA", split="validation", documents=5349,
        metric="anls", max_new_tokens=32, paper={LLAVA: 21.8, INTERNVL: 91.6, QWEN: 94.5},
    ),
    Benchmark(
        name="ocrbench", title="OCRBench", source="ocrbench", form="open", describe=documents.ocrbench,
        dataset="echo840/OCRBench", config=None, split="test", documents=1000,
        metric="ocrbench_accuracy", paper_scale=1000.0, aggregation="ocrbench", max_new_tokens=128,
        paper={LLAVA: 297.0, INTERNVL: 794.0, QWEN: 845.0},
        note="Right answers of 1000; with a limit the divisor stays 1000.",
    ),
    Benchmark(
        name="chartqa", title="ChartQA", source="chartqa", form="open", describe=documents.chartqa,
        dataset="lmms-lab-encoder/ChartQA", config=None, split="test", documents=2500,
        metric="relaxed_overall", paper={LLAVA: 17.8, INTERNVL: 83.3, QWEN: 83.0},
    ),
    Benchmark(
        name="textvqa", title="TextVQA (val)", source="textvqa_val", form="open", describe=documents.several_answers,
        dataset="lmms-lab-encoder/textvqa", config=None, split="validation", documents=5000,
        metric="exact_match", paper={LLAVA: 58.2},
        note="lmms-eval sends no OCR tokens; LLaVA-1.5's published 58.2 had them in the prompt.",
    ),
    Benchmark(
        name="infovqa", title="InfographicVQA (val)", source="infovqa_val", form="open",
        describe=documents.several_answers,
        dataset="lmms-lab-encoder/DocVQA", config="InfographicVQA", split="validation", documents=2801,
        metric="anls", max_new_tokens=32, paper={INTERNVL: 74.8, QWEN: 76.5},
    ),
    Benchmark(
        name="ai2d", title="AI2D", source="ai2d", form="choice", describe=documents.ai2d,
        dataset="lmms-lab-encoder/ai2d", config=None, split="test", documents=3088,
        metric="exact_match", filter="flexible-extract", paper={LLAVA: 55.5, INTERNVL: 83.8},
    ),
    Benchmark(
        name="mmmu", title="MMMU (val)", source="mmmu_val", form="choice", describe=documents.mmmu,
        dataset="lmms-lab-encoder/MMMU", config=None, split="validation", documents=900,
        metric="mmmu_acc", sample_keys=("hit",), max_new_tokens=128, paper={LLAVA: 37.0, INTERNVL: 51.2, QWEN: 54.1},
        note="Some questions show several images; a model for one image fails them by name. The official parser draws "
             "a letter at random where it reads none.",
    ),
    Benchmark(
        name="realworldqa", title="RealWorldQA", source="realworldqa", form="open", describe=documents.realworldqa,
        dataset="lmms-lab-encoder/RealWorldQA", config=None, split="test", documents=765,
        metric="exact_match", paper={LLAVA: 54.8},
    ),
)
# fmt: on
BENCHMARKS: dict[str, Benchmark] = {b.name: b for b in _ROWS}
MAIN: tuple[str, ...] = tuple(b.name for b in _ROWS if b.mini_scale is not None)
SUPPLEMENTARY: tuple[str, ...] = tuple(b.name for b in _ROWS if b.mini_scale is None)


def get_benchmark(name: str) -> Benchmark:
    """The benchmark of a short name. Raises UserError with the closest names."""
    if name not in BENCHMARKS:
        raise unknown("benchmark", name, BENCHMARKS)
    return BENCHMARKS[name]


def describe(benchmark: Benchmark, doc: Doc) -> DocInfo:
    """What a document of either suite asks."""
    return documents.with_scene(benchmark.describe(doc), doc)


def sample_score(benchmark: Benchmark, logged: Mapping[str, Any]) -> float | None:
    """A sample's score in [0, 1] from lmms-eval's logged sample; None if it has none."""
    for key in benchmark.sample_keys or (benchmark.metric,):
        if key in logged:
            return documents.score_of(logged[key])
    return None


def is_valid_answer(benchmark: Benchmark, response: str | None, options: Sequence[str] = ()) -> bool:
    """Whether a response answers at all, right or wrong (`documents.is_valid`); a failed sample's None does not."""
    return documents.is_valid(benchmark.form, response, len(options))


def whole_groups(benchmark: Benchmark, limit: int | None) -> int | None:
    """A limit rounded up so that lmms-eval can aggregate it: an odd one makes MME fail."""
    return None if limit is None else -(-limit // benchmark.group_size) * benchmark.group_size


def aggregate(
    benchmark: Benchmark,
    scores: Sequence[float],
    categories: Sequence[str | None],
    groups: Sequence[str | None],
) -> float:
    """The headline metric from per-sample scores in [0, 1], equal to lmms-eval's own; NaN without samples.

    `categories` and `groups` are DocInfo's, in the order of `scores`. Raises ValueError for half an MME pair.
    """
    s = np.asarray(scores, dtype=float)
    if benchmark.aggregation == "mme":
        return _mme(s, categories, groups)
    if benchmark.aggregation == "ocrbench":
        return float(s.sum() / benchmark.paper_scale)
    if benchmark.aggregation == "mmbench":
        _, inverse = np.unique([str(g) for g in groups], return_inverse=True)
        hits = np.ones(inverse.max() + 1) if len(s) else np.ones(0)
        np.minimum.at(hits, inverse, s)
        s = hits
    return float(s.mean() * benchmark.scale) if len(s) else float("nan")


def _mme(scores: np.ndarray[Any, Any], categories: Sequence[str | None], groups: Sequence[str | None]) -> float:
    """Sum over perception categories of 100 * (accuracy + accuracy on pairs), as MME defines it."""
    pairs: dict[str, dict[str, list[float]]] = {}
    for score, category, group in zip(scores, categories, groups, strict=True):
        if category in MME_PERCEPTION:
            pairs.setdefault(str(category), {}).setdefault(str(group), []).append(float(score))
    if not pairs:
        return float("nan")
    total = 0.0
    for category, by_group in pairs.items():
        if any(len(pair) != 2 for pair in by_group.values()):
            raise ValueError(f"MME category {category!r} has a question without its pair")
        total += float(np.mean([100.0 * np.mean(pair) + 100.0 * (sum(pair) == 2) for pair in by_group.values()]))
    return total
