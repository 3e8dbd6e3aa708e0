"""Spec strings: what is read, and one clear line for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.cost import KNOWN
from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method, method_names
from atp_eval.methods.fastv import FastV
from atp_eval.methods.random import Random
from atp_eval.methods.schedule import Schedule

LLAVA, TINY, LLAVA_7B = Geometry(32, (24, 24)), Geometry(8, (24, 24)), KNOWN["llava-hf/llava-1.5-7b-hf"]


def test_specs_are_read() -> None:
    assert get_method("fastv@144") == FastV(average=144)
    assert get_method(" fastv : layer = 2 , keep = 72 ") == FastV(layer=2, keep=72)
    assert get_method("random@144:seed=2") == Random(average=144, seed=2)
    found = get_method("schedule:layers=1-3-6,keep=126-88-20,score=last_row")
    assert found == Schedule(layers=(1, 3, 6), keep=(126, 88, 20), score="last_row")
    assert get_method("schedule@144:ratio=1/3") == Schedule(average=144, ratio=1 / 3)


def test_labels_leave_defaults_out() -> None:
    assert get_method("random@144:seed=0").label == "random@144"
    assert get_method("schedule@144:score=self,layers=4-14-24").label == "schedule@144:layers=4-14-24,score=self"
    assert str(get_method("fastv@144").solve(LLAVA)) == "fastv:layer=2,keep=115"


@pytest.mark.parametrize(("spec", "label"), [
    ("fastv@kv=75.6MB", "fastv@kv=75.6MB"),
    (" fastv @ kv = 075.60 MB : layer = 3 ", "fastv@kv=75.6MB:layer=3"),
    ("random@flops=30.0%:seed=2", "random@flops=30%:seed=2"),
    ("grid@kv=100%", "grid@kv=100%"),
    ("schedule@flops=2.5T:ratio=1/2", "schedule@flops=2.5T"),
    ("pool@time=250ms", "pool@time=250ms"),
])  # fmt: skip
def test_targets_are_read_and_keep_their_name(spec: str, label: str) -> None:
    method = get_method(spec)
    assert method.label == str(method) == label
    assert get_method(label) == method and method.average is None


def test_targets_differ_where_they_ask_for_something_else() -> None:
    specs = ("fastv@kv=75.6MB", "fastv@kv=75.6MiB", "fastv@kv=75.5MB", "fastv@flops=30%", "fastv@time=30%",
             "random@kv=75.6MB", "fastv@kv=75.6MB:layer=3", "fastv@1")  # fmt: skip
    assert all(get_method(a) != get_method(b) for a in specs for b in specs if a != b)


def test_solving_for_a_target_leaves_the_method_itself_under_the_name_that_was_asked() -> None:
    solved = get_method("fastv@kv=75.6MB").solve(LLAVA_7B)
    assert (str(solved), solved.label) == ("fastv:layer=2,keep=115", "fastv@kv=75.6MB")
    assert solved == get_method("fastv@144").solve(LLAVA_7B) == solved.solve(LLAVA_7B)


@pytest.mark.parametrize(("spec", "message"), [
    ("fastv@kw=75MB", "unknown budget 'kw'. Did you mean: kv?"),
    ("fastv@kv=75mb", "unknown unit of kv 'mb'. Did you mean: MB?"),
    ("fastv@flops=30ms", "unknown unit of flops 'ms'"),
    ("fastv@kv=", "the budget 'kv=' must be a number with a unit, such as kv=75.6MB"),
    ("fastv@kv=75.6", "must be a number with a unit"),
    ("fastv@kv=-5MB", "must be a number with a unit"),
    ("fastv@kv=1e3MB", "must be a number with a unit"),
    ("fastv@kv=٣MB", "must be a number with a unit"),
    ("fastv@kv=3MB@4", "must be a number with a unit"),
    ("fastv@kv=0MB", "the budget 'kv=0MB' must be above 0"),
    ("fastv@flops=100.5%", "the budget 'flops=100.5%' must be above 0 and at most 100%"),
    ("fastv@kv=75MB:keep=3", "fastv: give a budget (@kv=75MB) or keep=3, not both"),
    ("upper_bound@kv=75MB", "upper_bound@kv=75MB: the upper bound prunes nothing and takes no budget"),
    ("pool@kv=75MB:rows=3,cols=3", "pool needs a budget or a shape"),
    ("", "an empty method"),
    ("fastvv", "unknown method 'fastvv'. Did you mean: fastv?"),
    ("FastV@144", "unknown method 'FastV'. Did you mean: fastv?"),
    ("@144", "unknown method ''"),
    ("fastv@0", "fastv@0: the budget is an average of visual tokens, at least 1"),
    ("fastv@-3", "fastv@-3: the budget"),
    ("fastv@", "fastv: the budget after '@' must be a whole number, not ''"),
    ("fastv@many", "must be a whole number, not 'many'"),
    ("fastv@1.5", "must be a whole number, not '1.5'"),
    ("fastv@1_4_4", "must be a whole number"),
    ("fastv@٣", "must be a whole number"),
    ("fastv@144@72", "must be a whole number, not '144@72'"),
    ("fastv:layer=-3", "fastv: layer=-3 is too small; the first is 1, its score comes from the attention"),
    ("fastv:layer=0,keep=9", "fastv: layer=0 is too small"),
    ("random:layer=-1,keep=9", "random: layer=-1 is too small; the first is 0"),
    ("fastv:keep=0", "fastv: keep=0 leaves nothing"),
    ("fastv:layr=2", "unknown parameter of fastv 'layr'. Did you mean: layer?"),
    ("fastv:average=2", "unknown parameter of fastv 'average'"),
    ("fastv:asked=2", "unknown parameter of fastv 'asked'"),
    ("fastv:layer", "write parameters as key=value, separated by commas, not 'layer'"),
    ("fastv:", "write parameters as key=value"),
    ("fastv:layer=2,layer=3", "layer is given twice"),
    ("fastv@144:keep=72", "give a budget (@144) or keep=72, not both"),
    ("random", "random needs a budget: write random@144 or random:keep=72"),
    ("random@9:seed=-1", "seed=-1 must not be negative"),
    ("upper_bound@144", "the upper bound prunes nothing and takes no budget"),
    ("upper_bound:layer=2", "upper_bound takes no parameters"),
    ("pool", "pool needs a budget or a shape"),
    ("pool:rows=3", "pool needs a budget or a shape"),
    ("pool@9:rows=3,cols=3", "pool needs a budget or a shape"),
    ("pool:rows=0,cols=3", "must be at least 1"),
    ("schedule", "schedule needs a budget or counts"),
    ("schedule@144:layers=6-3", "layers=6-3 must rise"),
    ("schedule@144:layers=3-3", "layers=3-3 must rise"),
    ("schedule@144:layers=a-3", "layers must be whole numbers such as 1-3-6, not 'a-3'"),
    ("schedule@144:layers=0-3", "score=last_row needs the attention of the layer before, so layers start at 1"),
    ("schedule:layers=1-3,keep=9", "2 layers need as many counts in keep, not 1"),
    ("schedule:layers=1-3,keep=9-10", "keep=9-10 must fall"),
    ("schedule@144:score=crosss", "unknown value of score for schedule 'crosss'. Did you mean: cross?"),
    ("schedule@144:ratio=0", "ratio=0.0 must be above 0"),
    ("schedule@144:ratio=1/0", "ratio must be a number, not '1/0'"),
])  # fmt: skip
def test_wrong_specs_are_one_clear_line(spec: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spec", "geometry", "message"), [
    ("fastv@9999", LLAVA, "fastv@9999: an image has only 576 visual tokens"),
    ("fastv:layer=32,keep=9", LLAVA, "fastv: layer=32 is not in this model; it has layers 0 to 31"),
    ("fastv:keep=577", LLAVA, "keep=577 is out of range; an image has 1 to 576"),
    ("fastv@30", LLAVA, "The nearest is fastv@37; a smaller layer= goes lower"),
    ("fastv@64", TINY, "fastv@64 is out of reach: the 1 of 8 layers before the prune point see all 576 tokens. "
     "The nearest is fastv@73"),
    ("pool@131", LLAVA, "The nearest is pool@130"),
    ("pool@577", LLAVA, "an image has only 576"),
    ("pool:rows=25,cols=3", LLAVA, "25 x 3 bins do not fit a grid of 24 x 24"),
    ("schedule@20", LLAVA, "schedule@20 is out of reach with layers=4-14-24 and ratio=0.5 on 32 layers. "
     "The nearest is schedule@73"),
    ("schedule:layers=1-40,keep=9-3", LLAVA, "layer=40 is not in this model"),
    ("schedule:keep=9-3", LLAVA, "3 layers need as many counts in keep, not 2"),
    ("fastv@kv=1MB", LLAVA_7B, "fastv@kv=1MB is out of reach on this model. The nearest is fastv@kv=19.37MB"),
    ("fastv@flops=5%:layer=8", LLAVA_7B, "The nearest is fastv@flops=30.14%:layer=8"),
    ("pool@kv=200kB", LLAVA_7B, "The nearest is pool@kv=524.3kB"),
    ("fastv@kv=303MB", LLAVA_7B, "without pruning it is only kv=302MB; ask for kv=100% or less"),
    ("fastv@kv=50%:layer=40", LLAVA_7B, "fastv@kv=50%:layer=40: fastv: layer=40 is not in this model"),
    ("atp@kv=25%", LLAVA_7B, "atp@kv=25%: atp@576: no trained adapter; none ships for this model"),
    ("fastv@kv=75.6MB", LLAVA, "kv=75.6MB needs a whole ModelGeometry"),
    ("fastv@time=30%", LLAVA_7B, "a budget of time needs to know where the model runs"),
])  # fmt: skip
def test_what_does_not_fit_the_model_names_the_nearest_that_does(spec: str, geometry: Geometry, message: str) -> None:
    with pytest.raises(UserError) as error:
        get_method(spec).solve(geometry)
    assert message in str(error.value)
    if "The nearest is " in message:
        nearest = message.partition("The nearest is ")[2].partition(";")[0]
        get_method(nearest).solve(geometry)


@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=40)
    | st.builds(str.__add__, st.sampled_from(method_names()), st.text("@:=,-/.%0123456789layerkvpMBflosT", max_size=24))
)
def test_any_text_is_a_method_or_a_user_error(text: str) -> None:
    try:
        method = get_method(text)
    except UserError as error:
        assert str(error)
    else:
        assert get_method(str(method)) == method


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["fastv", "pool", "schedule"]), st.sampled_from(["kv", "flops", "time"]),
    st.from_regex(r"[0-9.]{1,6}", fullmatch=True), st.sampled_from(["%", "MB", "MiB", "T", "ms", "m"]),
)  # fmt: skip
def test_any_target_is_read_back_or_refused(name: str, kind: str, number: str, unit: str) -> None:
    try:
        method = get_method(f"{name}@{kind}={number}{unit}")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert get_method(str(method)) == method
        assert float(str(method).partition("=")[2].removesuffix(unit)) == float(number)
