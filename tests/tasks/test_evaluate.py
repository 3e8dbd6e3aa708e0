"""Both suites through lmms-eval's own task code and metrics, without a model: answers come from the documents.

One file, so that lmms-eval is imported once, and only where these tests run.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from real_schemas import build

from atp_eval.benchmarks import (
    BENCHMARKS,
    MAIN,
    Benchmark,
    Suite,
    aggregate,
    describe,
    get_benchmark,
    is_valid_answer,
    sample_score,
)
from atp_eval.documents import DocInfo
from atp_eval.scenes.prompts import hint_of, prompt
from atp_eval.task_files import task_folder

ALL_CATEGORIES = 60  # so many first rows of the mini-suite hold every category of MME
Answer = Callable[[Benchmark, DocInfo], str]


def answerer(answer: Answer) -> Any:
    """A model for lmms-eval that answers from the document itself; `seen` remembers what it was sent."""
    from lmms_eval.api.model import lmms

    class Answerer(lmms):  # type: ignore[misc]
        is_simple = True

        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[tuple[str, int], tuple[str, dict[str, Any], list[Any]]] = {}

        def generate_until(self, requests: list[Any]) -> list[str]:
            answers = []
            for request in requests:
                text, settings, doc_to_visual, doc_id, task, split = request.args
                doc, name = self.task_dict[task][split][doc_id], task.rsplit("_", 1)[0]
                self.seen[name, doc_id] = text, settings, doc_to_visual(doc)
                answers.append(answer(get_benchmark(name), describe(get_benchmark(name), doc)))
            return answers

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise NotImplementedError

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise NotImplementedError

    return Answerer()


@pytest.fixture(scope="module", autouse=True)
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Caches and data of this test alone."""
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATP_EVAL_CACHE", str(folder / "cache"))
        patch.setenv("ATP_EVAL_DATA", str(build(folder / "data")))
        patch.setenv("LMMS_EVAL_DATASETS_CACHE", str(folder / "datasets"))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        yield folder


def manager(suite: Suite) -> Any:
    from lmms_eval.tasks import TaskManager

    return TaskManager(include_path=str(task_folder(suite)), include_defaults=False)


def evaluate(suite: Suite, answer: Answer, folder: Path, limit: int | None = None) -> tuple[dict[str, Any], Any]:
    """lmms-eval's results and samples by benchmark, and the answerer."""
    from lmms_eval import evaluator

    model = answerer(answer)
    names = MAIN if suite == "mini" else tuple(BENCHMARKS)
    found = evaluator.simple_evaluate(
        model,
        tasks=[get_benchmark(n).task(suite) for n in names],
        limit=limit,
        task_manager=manager(suite),
        cli_args=argparse.Namespace(output_path=str(folder), process_with_media=False, reasoning_tags=None),
        bootstrap_iters=0,
        log_samples=True,
        verbosity="ERROR",
    )
    tasks = {n: get_benchmark(n).task(suite) for n in names}
    return {n: (found["results"][t], found["samples"][t]) for n, t in tasks.items()}, model


def metric(benchmark: Benchmark, results: dict[str, Any]) -> float:
    return float(results[f"{benchmark.metric},{benchmark.filter}"])


def right(benchmark: Benchmark, info: DocInfo) -> str:
    return info.target


def rubbish(benchmark: Benchmark, info: DocInfo) -> str:
    return "~"


def mixed(benchmark: Benchmark, info: DocInfo) -> str:
    """Right, wrong, or no answer at all."""
    rng = random.Random(f"{benchmark.name} {info.question} {info.target} {info.options}")
    wrong = {"yes": "No", "no": "Yes"}.get(info.target.lower(), "zebra")
    if info.options:
        wrong = rng.choice([x for x in "ABCDE"[: len(info.options)] if x != info.target])
    return rng.choice([info.target, info.target, wrong, ""])


def check_aggregate(suite: Suite, found: dict[str, Any]) -> None:
    """Our metric from per-sample scores is lmms-eval's."""
    for name, (results, samples) in found.items():
        benchmark = get_benchmark(name)
        infos = [describe(benchmark, s["doc"]) for s in samples]
        scores = [sample_score(benchmark, s) for s in samples]
        assert None not in scores
        ours = aggregate(benchmark, scores, [i.category for i in infos], [i.group for i in infos])  # type: ignore[arg-type]
        assert ours == pytest.approx(metric(benchmark, results), abs=1e-5), name  # MMMU rounds to five digits


def test_mini_suite_right_answers_score_all(places: Path) -> None:
    found, model = evaluate("mini", right, places, ALL_CATEGORIES)
    for name, (results, samples) in found.items():
        benchmark = get_benchmark(name)
        assert metric(benchmark, results) == pytest.approx(benchmark.scale_of("mini")), name
        assert len(samples) == ALL_CATEGORIES
        for sample in samples:
            info = describe(benchmark, sample["doc"])
            text, settings, images = model.seen[name, sample["doc_id"]]
            assert info.kind and info.level and info.image_key and info.cells is not None
            # the very strings that the tiny model is trained on
            assert text == prompt(name, info.question, info.options, hint_of(name, info.kind))
            assert [i.size for i in images] == [(336, 336)]
            assert settings["max_new_tokens"] == 16
    check_aggregate("mini", found)


def test_mini_suite_rubbish_scores_nothing_and_is_invalid(places: Path) -> None:
    found, _ = evaluate("mini", rubbish, places, 12)
    for name, (results, samples) in found.items():
        benchmark = get_benchmark(name)
        assert metric(benchmark, results) == 0, name
        for sample in samples:
            options = describe(benchmark, sample["doc"]).options
            assert not is_valid_answer(benchmark, sample["filtered_resps"][0], options)


def test_mini_suite_scores_in_between_aggregate_as_lmms_eval_does(places: Path) -> None:
    found, _ = evaluate("mini", mixed, places, 24)
    assert all(0 < metric(get_benchmark(n), r) < get_benchmark(n).scale_of("mini") for n, (r, _) in found.items())
    check_aggregate("mini", found)


def test_real_tasks_run_on_local_copies_of_the_hub(places: Path) -> None:
    found, model = evaluate("real", right, places)
    expected = {"mme": 400.0, "ocrbench": 0.001}  # two of ten categories; one of 1000 questions
    for name, (results, _) in found.items():
        benchmark = get_benchmark(name)
        assert metric(benchmark, results) == pytest.approx(expected.get(name, benchmark.scale)), name
    check_aggregate("real", found)
    assert len(found["seed"][1]) == 2  # without the video question
    reds = [model.seen["gqa", i][2][0].getpixel((0, 0))[0] for i in range(3)]
    assert reds == [21 * 37 % 256, 21 * 37 % 256, 20 * 37 % 256]  # the picture that imageId names
    assert [len(model.seen["mmmu", i][2]) for i in range(3)] == [1, 1, 2]


def test_real_tasks_do_not_remember_an_earlier_method(places: Path) -> None:
    """OCRBench's own counts would: they live in its module."""
    found, _ = evaluate("real", rubbish, places)
    for name, (results, _) in found.items():
        if name != "mmmu":  # its parser draws a letter where it finds none
            assert metric(get_benchmark(name), results) == 0, name


def test_real_tasks_scores_in_between_aggregate_as_lmms_eval_does(places: Path) -> None:
    found, _ = evaluate("real", mixed, places)
    check_aggregate("real", found)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_real_tasks_configuration_loads_offline(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATP_EVAL_DATA")
    benchmark = get_benchmark(name)
    config = manager("real")._get_config(benchmark.task("real"))
    assert config["dataset_path"] == benchmark.dataset and config.get("dataset_name") == benchmark.config
    assert benchmark.metric in [m["metric"] for m in config["metric_list"]]
    assert config["generation_kwargs"]["max_new_tokens"] == benchmark.max_new_tokens
    assert not config["generation_kwargs"].get("do_sample", False)
    assert not config["dataset_kwargs"]  # no `token: true`, which needs a login
    filters = [f["name"] for f in config.get("filter_list", [{"name": "none"}])]
    assert filters == [benchmark.filter]
