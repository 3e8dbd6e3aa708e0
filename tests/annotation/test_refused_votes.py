"""Which files of votes are taken, and what is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotation.made import merged
from made import votes

from atp_eval.analysis.significance import Interval
from atp_eval.annotation.export import write_result
from atp_eval.annotation.merge import merge_files
from atp_eval.annotation.tallies import vote_table
from atp_eval.annotation.votes import read_votes, write_votes
from atp_eval.errors import UserError


def test_files_round_trip(tmp_path: Path) -> None:
    given = votes("judge:m", {"gqa/0": ("left", "right")})
    write_votes(given, tmp_path / "new" / "v.json")
    assert read_votes(tmp_path / "new" / "v.json") == given


GOOD = votes("Ada", {"gqa/0": "left", "gqa/1": "right"}).model_dump(mode="json")


def twice(data: dict[str, Any]) -> None:
    data["votes"].append(data["votes"][0])


BAD = [
    (lambda d: d.update(schema_version=2), "schema version 2"),
    (lambda d: d.update(format="something"), "holds no votes"),
    (lambda d: d["votes"][0]["looks"][0].update(choice="middle"), "votes.0.looks.0.choice"),
    (lambda d: d["votes"][0].update(looks=[]), "votes.0.looks"),
    (lambda d: d["votes"][0].update(seconds=-1), "votes.0.seconds"),
    (lambda d: d["votes"][0].update(benchmark="pope"), "benchmark 'pope', which is not in pools"),
    (lambda d: d.update(annotator=""), "annotator"),
    (lambda d: d.update(annotator=" Ada"), "blanks around"),
    (lambda d: d.update(annotator="judge:Ada"), "only a model's name"),
    (lambda d: d.update(surprise=1), "surprise"),
    (lambda d: d.pop("page"), "page"),
    (twice, "two votes on gqa/0"),
    (lambda d: d["votes"][0]["looks"].append({"left": "b", "choice": "tie"}), "looks once"),
    (lambda d: d["votes"][0]["looks"].append({"left": "a", "choice": "tie"}), "two looks at the same order"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD)
def test_files_that_are_no_votes_are_refused_by_name(spoil: Any, message: str, tmp_path: Path) -> None:
    data = json.loads(json.dumps(GOOD))
    spoil(data)
    path = tmp_path / "spoilt.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UserError) as refused:
        merge_files([path])
    assert "spoilt.json" in str(refused.value) and message in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"3", b'{"votes": []}'])
def test_files_that_are_no_json_of_ours(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"odd\.json"):
        merge_files([path])


def test_what_cannot_be_merged_is_named() -> None:
    ada = votes("Ada", {"gqa/0": "left"})
    with pytest.raises(UserError, match=r"1\.json holds votes on another page"):
        merged(ada, votes("Bo", {"gqa/0": "left"}, page="2" * 32))
    with pytest.raises(UserError, match=r"0\.json and 1\.json are both votes of 'Ada'"):
        merged(ada, votes("Ada", {"gqa/1": "left"}))
    with pytest.raises(UserError, match=r"no vote in 0\.json"):
        merged(votes("Ada", {}))
    with pytest.raises(UserError, match=r"nowhere\.json"):
        merge_files([Path("nowhere.json")])
    with pytest.raises(UserError, match="needs files"):
        merge_files([])


def test_a_file_without_votes_beside_others_does_no_harm() -> None:
    found = merged(votes("Ada", {"gqa/0": "left", "gqa/1": "right"}), votes("Bo", {}))
    assert [r.who for r in found.annotators] == ["Ada"] and found.agreements == ()


@pytest.mark.parametrize("name", ["p.html", "p"])
def test_other_endings_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in \.csv or \.json"):
        write_result(merged(votes("Ada", {"gqa/0": "left"})), tmp_path / name)


def test_pictures_are_clusters_and_samples_without_one_stand_alone() -> None:
    table = vote_table([votes("Ada", {"gqa/0": "left", "gqa/1": "left", "mme/0": "tie"}, pictures={"gqa/0": "p"})])
    assert list(table["cluster"]) == ["p", "gqa/1", "mme/0"]
    assert isinstance(merged(votes("Ada", {"gqa/0": "left"})).pooled.half, Interval)
