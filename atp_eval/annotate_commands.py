"""`atp-eval annotate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atp_eval.errors import TaskFailure, UserError
from atp_eval.terminal import Json, console, print_json, split_names

if TYPE_CHECKING:
    from atp_eval.annotation.ballot import Ballot
    from atp_eval.annotation.judge import Judgement
    from atp_eval.annotation.settings import JudgeSettings

ANNOTATE_EPILOG = """
**Examples**

`atp-eval annotate runs/mine --a upper_bound --b atp@144 -n 200` — one offline page for blind votes; send it to people

`atp-eval annotate --merge votes-*.json` — win rates, agreement and position bias of what they exported

`atp-eval annotate --merge votes-*.json -o preference.csv` — and as a file

`atp-eval annotate runs/mine --a upper_bound --b atp@144 -n 20 --reveal` — both answers with their names, to read

`atp-eval annotate runs/mine --a upper_bound --b atp@144 -n 200 --judge-url http://localhost:8000/v1 --judge-model NAME`
— a model votes on the same samples; its votes merge with people's

`... --judge-url https://api.openai.com/v1 --judge-model gpt-4o --judge-key-env OPENAI_API_KEY --price-in 2.5
--price-out 10 --max-cost 5` — with a key, and at most 5 USD

docs/preference.md has the protocol and says how to read the figures.
"""


def drawing(*names: str, text: str) -> Any:
    """An option that says which samples are drawn."""
    return typer.Option(*names, help=text, rich_help_panel="Which samples")


def judging(text: str) -> Any:
    """An option of the judge."""
    return typer.Option(help=text, rich_help_panel="A model as the judge")


Paths = Annotated[
    list[Path] | None,
    typer.Argument(help="Run folders; with --merge, files of votes.", show_default=False, metavar="RUN.. | FILE.."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The file.  [default: in the first run annotate.html, side-by-side.html or votes-judge.json; none with "
        "--merge, which writes .csv or .json]",
    ),
]


def annotate(
    paths: Paths = None,
    a: Annotated[str | None, typer.Option("--a", help="The method that the other is held against.")] = None,
    b: Annotated[str | None, typer.Option("--b", help="The other method.")] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge files of votes on one page.")] = False,
    reveal: Annotated[bool, typer.Option("--reveal", help="A page to read: names shown, no votes.")] = False,
    output: Output = None,
    as_json: Json = False,
    count: Annotated[int, drawing("-n", text="How many.")] = 200,
    benchmark: Annotated[
        str | None, drawing("--benchmark", text="Benchmarks, comma-separated.  [default: all that both have]")
    ] = None,
    seed: Annotated[int, drawing("--seed", text="Of the drawing, and of who stands where.")] = 0,
    include_identical: Annotated[
        bool, drawing("--include-identical", text="Also those where both gave the same answer.")
    ] = False,
    any_picture: Annotated[
        bool, drawing("--any-picture", text="Also those whose picture the run did not keep.")
    ] = False,
    annotator_hint: Annotated[
        str, drawing("--annotator-hint", text="What to judge by; shown to people, told to judges.")
    ] = "",
    judge_url: Annotated[str | None, judging("An OpenAI-compatible endpoint, up to /v1.")] = None,
    judge_model: Annotated[str | None, judging("The model's name there.")] = None,
    judge_key_env: Annotated[
        str | None, judging("The environment variable with the key. Without this, none is sent.")
    ] = None,
    judge_body: Annotated[
        str | None,
        judging(
            'More of the request as JSON, null to leave out: `{"max_tokens": null, "max_completion_tokens": 999}`.'
        ),
    ] = None,
    price_in: Annotated[float | None, judging("USD per million tokens of the prompt.")] = None,
    price_out: Annotated[float | None, judging("USD per million tokens of the answer.")] = None,
    max_cost: Annotated[float | None, judging("USD at which this call stops; needs prices.")] = None,
    workers: Annotated[int, judging("Requests at a time.")] = 4,
    timeout: Annotated[float, judging("Seconds for a whole answer.")] = 60.0,
    retries: Annotated[int, judging("Tries after the first.")] = 4,
) -> None:
    """Which of two methods' answers is preferred: a page for blind votes, a judge, and what votes add up to."""
    if merge:
        if a or b or reveal or judge_url:
            raise UserError("--merge takes files of votes, and neither --a, --b, --reveal nor --judge-url")
        merge_votes(paths or [], output, as_json)
        return
    if not paths:
        raise UserError("which run? atp-eval annotate RUN --a upper_bound --b atp@144, or --merge FILE...")
    if not a or not b:
        raise UserError("--a and --b name the two methods, such as --a upper_bound --b atp@144")
    if reveal and judge_url:
        raise UserError("--reveal and --judge-url cannot go together: one is to read, the other votes")

    from atp_eval.annotation.ballot import draw
    from atp_eval.annotation.settings import judge_settings
    from atp_eval.records import read_run

    judge = judge_settings(
        url=judge_url,
        model=judge_model,
        key_env=judge_key_env,
        body=judge_body,
        price_in=price_in,
        price_out=price_out,
        max_cost=max_cost,
        workers=workers,
        timeout=timeout,
        retries=retries,
    )
    ballot = draw(
        [read_run(path) for path in paths],
        a,
        b,
        count,
        benchmarks=split_names(benchmark) if benchmark else None,
        seed=seed,
        hint=annotator_hint.strip(),
        include_identical=include_identical,
        any_picture=any_picture,
    )
    if judge:
        let_judge(ballot, judge, output or paths[0] / "votes-judge.json", as_json)
        return
    name = "side-by-side.html" if reveal else "annotate.html"
    write_pages(ballot, count, reveal, output or paths[0] / name, as_json)


def write_pages(ballot: Ballot, asked: int, reveal: bool, output: Path, as_json: bool) -> None:
    """The page of a ballot, and what was drawn for it."""
    from atp_eval.annotation.page import reveal_page, vote_page, write_page
    from atp_eval.annotation.words import drawn, drawn_words

    page = write_page(reveal_page(ballot) if reveal else vote_page(ballot), output).resolve()
    if as_json:
        print_json(drawn(ballot, asked) | {"file": str(page)})
        return
    say(*drawn_words(ballot, asked), f"Page: {page}")
    if not reveal:
        say("Send it to people; then: atp-eval annotate --merge votes-*.json")


def let_judge(ballot: Ballot, settings: JudgeSettings, output: Path, as_json: bool) -> None:
    """Let a model vote, write its votes and show what they add up to."""
    from atp_eval.annotation.export import to_json
    from atp_eval.annotation.merge import merge
    from atp_eval.annotation.votes import write_votes
    from atp_eval.annotation.words import to_rich

    if output.is_dir() or output.suffix.lower() != ".json":
        raise UserError(f"--output {output}: a judge's votes go to a file that ends in .json")
    found = with_bar(ballot, settings)
    try:
        write_votes(found.votes, output)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {output}: {why}. Give another --output; nothing is asked twice.") from None
    summary = merge([(output, found.votes)]) if found.votes.votes else None
    if as_json:
        facts = {"asked": found.asked, "spent": found.spent, "stopped": found.stopped, "file": str(output.resolve())}
        print_json((to_json(summary) if summary else {}) | facts)
    else:
        if summary:
            console().print(to_rich(summary))
        spent = f", {found.spent:.4f} USD spent now" if found.spent is not None else ""
        say(f"{found.asked} asked now{spent}.", f"Votes: {output.resolve()}")
    if found.stopped:
        raise TaskFailure(
            f"stopped before --max-cost {settings.max_cost:g} is passed, with votes on {len(found.votes.votes)} of "
            f"{len(ballot.items)} samples; the same command goes on"
        )
    if not summary:
        reasons = sorted({missing.reason for missing in found.votes.missing})
        raise TaskFailure(f"the judge gave no vote that can be read: {'; '.join(reasons[:3])}")


def with_bar(ballot: Ballot, settings: JudgeSettings) -> Judgement:
    """Judge, with a bar on standard error, so that --json stays JSON."""
    from rich.console import Console
    from rich.progress import Progress, TextColumn

    from atp_eval.annotation.judge import Step, judge
    from atp_eval.paths import cache_folder

    columns = [*Progress.get_default_columns(), TextColumn("{task.fields[cost]}")]
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("Judging", cost="")

        def progress(now: Step) -> None:
            cost = "" if now.spent is None else f"{now.spent:.2f} USD"
            bar.update(task, completed=now.done, total=now.all, cost=cost)

        return judge(ballot, settings, cache_folder() / "judge", progress)


def merge_votes(paths: list[Path], output: Path | None, as_json: bool) -> None:
    """Print what votes add up to, and write it where asked."""
    from atp_eval.annotation.export import to_json, write_result
    from atp_eval.annotation.merge import merge_files
    from atp_eval.annotation.words import to_rich

    found = merge_files(paths)
    if output:
        write_result(found, output)
    if as_json:
        print_json(to_json(found))
        return
    console().print(to_rich(found))
    if output:
        say(f"File: {output.resolve()}")


def say(*lines: str) -> None:
    """Plain lines: names and paths are no markup, and stay in one piece."""
    for line in lines:
        console().print(line, markup=False, highlight=False, soft_wrap=True)
