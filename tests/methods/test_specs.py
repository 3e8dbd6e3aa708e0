"""Spec strings: what is read, and one clear line for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atp_eval.errors import UserError
from atp_eval.methods import Geometry, get_method, method_names
from atp_eval.methods.fastv import FastV
from atp_eval.methods.random import Random
from atp_eval.methods.schedule import Schedule

LLAVA, TINY = Geometry(32, (24, 24)), Geometry(8, (24, 24))


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


@pytest.mark.parametrize(("spec", "message"), [
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
    | st.builds(str.__add__, st.sampled_from(method_names()), st.text("@:=,-/.0123456789layerkp", max_size=24))
)
def test_any_text_is_a_method_or_a_user_error(text: str) -> None:
    try:
        method = get_method(text)
    except UserError as error:
        assert str(error)
    else:
        assert get_method(str(method)) == method
