"""Training data: what is asked and labelled, what is refused, and what is counted."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from models.hub_folder import write_hub_folder
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from atp_eval.errors import UserError
from atp_eval.models import Bundle, load_model, tiny
from atp_eval.models.llava import VICUNA_V1, PromptStyle
from atp_eval.training import conversations
from atp_eval.training.collate import IGNORED, Sample, collate
from atp_eval.training.conversations import BadRow, Conversation, Fault, Turn
from atp_eval.training.data import Conversations
from training.llava import CELLS, TINY, draw_pictures, load, row, seen, write

WORDS = [word for word in tiny.vocabulary()[len(tiny.SPECIAL) :] if word.isalpha() and word.islower()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("hub") / "llava-1.5-7b-hf"
    write_hub_folder(folder)
    return load_model(str(folder))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path)


def answers(sample: Sample) -> list[list[int]]:
    """The tokens of each run of labels."""
    found: list[list[int]] = [[]]
    for label in sample.labels.tolist():
        if label != IGNORED:
            found[-1].append(label)
        elif found[-1]:
            found.append([])
    return [run for run in found if run]


def words(bundle: Bundle, sample: Sample) -> list[str]:
    return [bundle.tokenizer.decode(run) for run in answers(sample)]


def asked(bundle: Bundle, text: str, image: bool = True) -> list[int]:
    """The tokens of evaluation's prompt."""
    features = torch.zeros(CELLS, bundle.geometry.hidden) if image else None
    return cast("list[int]", bundle.inputs([text], [features])["input_ids"][0].tolist())


# ------------------------------------------------------------------ tokens and labels


@pytest.mark.parametrize("style", ["hf", "vicuna_v1"])
@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_a_sample_is_evaluations_prompt_and_the_answer(
    name: str, style: PromptStyle, hub: Bundle, pictures: Path
) -> None:
    bundle = replace(TINY if name == "tiny" else hub, prompt_style=style)
    question = "What number is on the star?\nAnswer the question using a single word or phrase."
    data = load(pictures, [seen(1, question=question)], bundle)
    prompt = asked(bundle, question)
    sample = data[0]
    assert sample.input_ids[: len(prompt)].tolist() == prompt
    assert (sample.labels[: len(prompt)] == IGNORED).all()
    assert torch.equal(sample.labels[len(prompt) :], sample.input_ids[len(prompt) :])
    assert words(bundle, sample) == ["red</s>" if name == "hub" else "red </s>"]
    assert (sample.input_ids == bundle.tokenizer.convert_tokens_to_ids("<image>")).sum() == CELLS


@pytest.mark.parametrize(
    "value", ["<image>\nIs it red?", "Is it red?\n<image>", "Is it <image> red?", "<image>Is it red?"]
)
def test_the_image_comes_first_wherever_the_row_has_it(value: str, pictures: Path) -> None:
    data = load(pictures, [row(1, value, "yes", image="a.png")])
    expected = asked(TINY, " ".join(value.replace("<image>", " ").split()))
    assert data[0].input_ids[: len(expected)].tolist() == expected


@pytest.mark.parametrize(("style", "system"), [("hf", ""), ("vicuna_v1", VICUNA_V1)])
@pytest.mark.parametrize("name", ["tiny", "hub"])
def test_every_answer_of_a_conversation_is_labelled(
    name: str, style: PromptStyle, system: str, hub: Bundle, pictures: Path
) -> None:
    turns = ["<image>\nWhat color is the star?", "red", "What shape?", "large star", "How many are there?", "5"]
    bundle = replace(TINY if name == "tiny" else hub, prompt_style=style)
    sample = load(pictures, [row(1, *turns, image="a.png")], bundle)[0]
    assert [run.removesuffix("</s>").strip() for run in words(bundle, sample)] == turns[1::2]
    text = (
        f"{system}USER: {'<image>' * CELLS}\nWhat color is the star? ASSISTANT: red</s>"
        "USER: What shape? ASSISTANT: large star</s>USER: How many are there? ASSISTANT: 5</s>"
    )
    assert sample.input_ids.tolist() == bundle.tokenizer(text)["input_ids"]


def test_text_only_rows_have_no_pixels(pictures: Path) -> None:
    sample = load(pictures, [row(1, "is red a color?", "yes", "and a cow?", "no")])[0]
    assert sample.pixel_values is None
    assert words(TINY, sample) == ["yes </s>", "no </s>"]
    prompt = asked(TINY, "is red a color?", image=False)
    assert sample.input_ids[: len(prompt)].tolist() == prompt


def test_samples_say_which_of_them_share_a_picture(pictures: Path) -> None:
    seen_as = "<image>\na?"
    rows = [row(1, seen_as, "b", image="a.png"), row(2, "a?", "b"), row(3, "no image", "b", image="b.png")]
    rows += [row(4, seen_as, "b", image="b.png"), row(5, seen_as, "b", image="a.png"), row(6, "a?", "b")]
    data = load(pictures, rows, max_bad_share=0.5)
    first, text, other, again, last = data.pictures.tolist()
    assert first == again
    assert len({first, text, other, last}) == 4


def test_special_tokens_in_an_answer_do_not_end_it(pictures: Path, hub: Bundle) -> None:
    data = load(pictures, [row(1, "a?", "red </s> star<s>"), row(2, "a?", "</s> <pad>")], hub)
    assert words(hub, data[0]) == ["red   star</s>"]
    assert data.report.bad[Fault.EMPTY_ANSWER].ids == ("2",)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"), max_size=20) | st.sampled_from(
    ["</s>", "<image>", "<s>USER:", "a </s> b", "ASSISTANT:", "<pad>", "star"]
)


@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), st.booleans(), st.integers(600, 700))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_labels_of_any_conversation(
    hub: Bundle, tmp_path: Path, turns: list[tuple[str, str]], image: bool, most: int
) -> None:
    data = any_data(hub, tmp_path)
    said = tuple(Turn(q.replace("<image>", ""), data._special.sub(" ", a).strip() or "star") for q, a in turns)
    data.max_length = 100_000
    input_ids, labels = data.encode(Conversation("a.png" if image else None, said))
    assert set(labels[labels != input_ids].tolist()) == {IGNORED}
    first = asked(hub, said[0].question, image)
    assert input_ids[: len(first)].tolist() == first
    assert (labels[: len(first)] == IGNORED).all() and labels[len(first)] != IGNORED
    runs = answers(Sample(input_ids, labels, None))
    assert [hub.tokenizer.decode(run) for run in runs] == [f"{turn.answer}</s>" for turn in said]
    data.max_length = most
    if len(first) < most:
        cut_ids, cut_labels = data.encode(Conversation("a.png" if image else None, said))
        assert torch.equal(cut_ids, input_ids[:most]) and torch.equal(cut_labels, labels[:most])
    else:
        with pytest.raises(BadRow):
            data.encode(Conversation("a.png" if image else None, said))


def any_data(bundle: Bundle, folder: Path) -> Conversations:
    path = folder / "any.json"
    if not path.exists():
        write(path, [row(1, "a?", "b")])
    return Conversations(path, [], bundle)


@given(st.lists(st.tuples(*[st.lists(st.sampled_from(WORDS), min_size=1, max_size=5)] * 2), min_size=1, max_size=5))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_tiny_models_labels_decode_to_the_answers(tmp_path: Path, turns: list[tuple[list[str], list[str]]]) -> None:
    talk = Conversation("a.png", tuple(Turn(" ".join(q), " ".join(a)) for q, a in turns))
    sample = Sample(*any_data(TINY, tmp_path).encode(talk), None)
    assert words(TINY, sample) == [f"{turn.answer} </s>" for turn in talk.turns]


# ------------------------------------------------------------------ truncation


def test_what_is_too_long_is_cut_at_the_end(pictures: Path) -> None:
    long = row(1, "<image>\nWhat color?", "red", "and the star?", " ".join(["large"] * 50), image="a.png")
    whole, cut = load(pictures, [long])[0], load(pictures, [long], max_length=600)[0]
    assert len(whole.input_ids) > 600 and torch.equal(cut.input_ids, whole.input_ids[:600])
    assert torch.equal(cut.labels, whole.labels[:600])
    assert words(TINY, cut)[0] == "red </s>" and "</s>" not in words(TINY, cut)[1]


def test_a_sample_without_any_answer_left_is_replaced_and_counted(pictures: Path) -> None:
    data = load(pictures, [seen("long", question="large " * 100), seen("short")], max_length=600)
    assert len(data) == 2 and not data.report.bad
    assert torch.equal(data[0].input_ids, data[1].input_ids)
    assert data.report.bad[Fault.CUT].ids == ("long",)


def test_a_length_that_would_cut_the_image_is_refused(pictures: Path) -> None:
    least = len(asked(TINY, "")) + 2
    with pytest.raises(UserError, match=f"max_length 512 is too short for an image and an answer; at least {least}"):
        load(pictures, [seen(1)], max_length=512)
    with pytest.raises(UserError, match=f"at least {least}"):
        load(pictures, [seen(1)], max_length=least - 1)
    assert words(TINY, load(pictures, [seen(1, question="")], max_length=least)[0]) == ["red </s>"]
    assert len(load(pictures, [row(1, "red?", "yes")], max_length=20)[0].input_ids) < 20


# ------------------------------------------------------------------ pictures


@pytest.mark.parametrize("mode", ["pad", "crop"])
def test_pixels_are_those_of_evaluation(
    mode: Any, hub: Bundle, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = replace(hub, image_mode=mode)
    given: list[Tensor] = []
    run = bundle.model.get_image_features
    monkeypatch.setattr(
        bundle.model, "get_image_features", lambda pixel_values: given.append(pixel_values) or run(pixel_values)
    )
    bundle.encode([Image.open(pictures / "a.png")])
    sample = load(pictures, [seen(1)], bundle)[0]
    assert sample.pixel_values is not None and sample.pixel_values.shape == (3, 336, 336)
    assert torch.equal(sample.pixel_values, given[0][0])


def test_the_first_folder_that_has_the_picture_wins(pictures: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    Image.new("RGB", (9, 9), "red").save(other / "c.png")
    Image.new("RGB", (9, 9), "red").save(tmp_path / "other" / "a.png")
    path = write(tmp_path / "data.json", [seen(1), seen(2, "deep/c.png")])
    first, second = Conversations(path, [pictures, tmp_path / "other"], TINY)
    swapped = Conversations(path, [tmp_path / "other", pictures], TINY)[0]
    assert second.pixel_values is not None and first.pixel_values is not None and swapped.pixel_values is not None
    assert not torch.equal(first.pixel_values, second.pixel_values)
    assert torch.equal(swapped.pixel_values, second.pixel_values)


def test_broken_pictures_are_replaced_by_the_next_good_sample_and_counted(pictures: Path) -> None:
    good = [seen("a"), seen("b", "b.png", "How many?")]
    data = load(pictures, [good[0], seen("half", "broken.png"), seen("none", "text.png"), good[1]])
    assert len(data) == 4 and not data.report.bad and data.report.with_image == 4
    assert torch.equal(data[1].input_ids, data[3].input_ids) and torch.equal(data[2].input_ids, data[3].input_ids)
    assert data.report.bad[Fault.BROKEN] == conversations.Bad(2, ("half", "none"))
    assert data.report.with_image == 2 and data.report.rows == 4
    for _ in range(2):
        list(data)  # counted once
    assert data.report.bad_rows == 2


def test_the_last_sample_is_replaced_by_the_first(pictures: Path) -> None:
    data = load(pictures, [seen("a"), seen("half", "broken.png")])
    assert torch.equal(data[1].input_ids, data[0].input_ids)
    with pytest.raises(IndexError):
        data[2]


def test_what_workers_find_is_known_to_their_master(pictures: Path) -> None:
    data = load(pictures, [seen("a"), seen("half", "broken.png"), seen("b"), row("t", "a?", "red")])
    # A forked worker would hang where this process has used several threads for its arithmetic.
    loader = DataLoader(data, 2, num_workers=1, collate_fn=partial(collate, pad=0), multiprocessing_context="spawn")
    batches = list(loader)
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2]
    assert data.report.bad[Fault.BROKEN].ids == ("half",)


def test_missing_pictures_are_found_at_the_start_or_while_reading(pictures: Path) -> None:
    data = [seen("a"), seen("gone", "nowhere.png")]
    assert load(pictures, data).report.bad[Fault.MISSING].ids == ("gone",)
    late = load(pictures, data, check_images=False)
    assert len(late) == 2 and not late.report.bad
    assert torch.equal(late[1].input_ids, late[0].input_ids)
    assert late.report.bad[Fault.MISSING].ids == ("gone",)


# ------------------------------------------------------------------ batches


def test_a_batch_is_padded_on_the_right(pictures: Path) -> None:
    data = load(pictures, [row("t", "a?", "red"), seen("b", "b.png"), row("u", "a red star?", "no"), seen("a")])
    samples = list(data)
    batch = collate(samples, pad=TINY.tokenizer.pad_token_id)
    length = max(len(s.input_ids) for s in samples)
    for i, sample in enumerate(samples):
        n = len(sample.input_ids)
        assert torch.equal(batch["input_ids"][i, :n], sample.input_ids)
        assert torch.equal(batch["labels"][i, :n], sample.labels)
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (length - n)
        assert (batch["labels"][i, n:] == IGNORED).all()
        assert (batch["input_ids"][i, n:] == TINY.tokenizer.pad_token_id).all()
    assert samples[1].pixel_values is not None and samples[3].pixel_values is not None
    assert torch.equal(batch["pixel_values"], torch.stack([samples[1].pixel_values, samples[3].pixel_values]))
    assert all(tensor.dtype == torch.long for name, tensor in batch.items() if name != "pixel_values")


def test_a_batch_of_text_has_no_pixels(pictures: Path) -> None:
    data = load(pictures, [row("t", "a?", "red"), row("u", "a red star?", "no")])
    assert set(collate(list(data), pad=0)) == {"input_ids", "attention_mask", "labels"}
    assert os.listdir(pictures)  # nothing was written or moved
