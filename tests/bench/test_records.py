"""Bench folders: what is read back, what a cut line costs, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from atp_eval.bench.records import BENCH, MEASURED, Stages, read_bench, round_line
from atp_eval.errors import UserError
from bench.made import made_survey, methods_cells, plain_times, write_folder


def test_what_was_written_is_read(tmp_path: Path) -> None:
    cells = methods_cells((1, 8))
    bench, found = read_bench(write_folder(tmp_path, cells, rounds=3, refused={3: "too large"}))
    assert [m.cell for m in found] == list(cells) == list(bench.settings.cells)
    assert found[0].survey == made_survey(cells[0]) and found[0].rounds[2] == plain_times(cells[0], 2)
    assert found[3].not_run == "too large" and found[3].rounds == {} and found[3].survey is None
    assert bench.model_geometry().vision.hidden == 192 and bench.model_geometry().grid == (24, 24)


def test_a_line_that_was_cut_while_it_was_written_is_no_measurement(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, methods_cells((1,)), rounds=2)
    whole = (folder / MEASURED).read_text()
    (folder / MEASURED).write_text(whole + round_line(0, 9, Stages(1, 1, 1))[:-5])
    assert set(read_bench(folder)[1][0].rounds) == {0, 1}


def test_of_two_lines_about_one_thing_the_later_holds(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, methods_cells((1,)), rounds=1)
    with (folder / MEASURED).open("a") as file:
        file.write(round_line(0, 0, Stages(9, 8, 7)))
    assert read_bench(folder)[1][0].rounds == {0: Stages(9, 8, 7)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is not a bench"),
        ("{", "is not JSON"),
        ("[]", "schema version None"),
        ('{"schema_version": 7}', "schema version 7"),
        ('{"schema_version": 1}', "damaged bench"),
    ],
)
def test_a_folder_that_is_none_is_refused_in_one_line(text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / BENCH).write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_bench(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_line_about_no_cell_is_damage(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, methods_cells((1,)), rounds=1)
    with (folder / MEASURED).open("a") as file:
        file.write(round_line(99, 0, Stages(1, 1, 1)))
    with pytest.raises(UserError, match="damaged"):
        read_bench(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'cell': 0", r"measured.jsonl, line 5 is not JSON; delete the line, and the same command measures it again"),
        ('{"cell": 0, "round": 1, "vision": "x", "prefill": 1, "decode": 1}', "holds a damaged bench"),
    ],
)
def test_a_damaged_line_is_named_in_one_line(line: str, message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, methods_cells((1,)), rounds=1)
    with (folder / MEASURED).open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError, match=message) as caught:
        read_bench(folder)
    assert "\n" not in str(caught.value)
