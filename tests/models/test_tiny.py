"""The tiny model's tokenizer, processor and geometry, and the shipped weights."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from atp_eval.models import tiny
from atp_eval.scenes.prompts import FORMS, pose
from atp_eval.scenes.questions import BENCHMARK_KINDS
from atp_eval.scenes.render import render
from atp_eval.scenes.world import sample_scene
from atp_eval.tiny.geometry import pixel_values

TOKENIZER = tiny.tokenizer()


def posed(count: int):
    """(scene, question) pairs of all benchmarks and kinds."""
    rng, cases = random.Random(2), [(b, k) for b, kinds in BENCHMARK_KINDS.items() for k in kinds]
    found, i = [], 0
    while len(found) < count:
        scene = sample_scene(200_000 + i, "eval")
        if p := pose(scene, *cases[i % len(cases)], rng):
            found.append((scene, p))
        i += 1
    return found


def test_every_prompt_is_in_the_vocabulary():
    benchmarks = set()
    for _, p in posed(600):
        ids = TOKENIZER(f"USER: <image>\n{p.prompt} ASSISTANT:").input_ids
        assert TOKENIZER.unk_token_id not in ids, p.prompt
        assert TOKENIZER(p.answer, add_special_tokens=False).input_ids == [tiny.vocabulary().index(p.answer)]
        assert TOKENIZER.decode([tiny.vocabulary().index(p.answer)]) == p.answer
        benchmarks.add(p.benchmark)
    assert benchmarks == set(FORMS)


@pytest.mark.parametrize("sentence", ["A. ", "Please answer yes or no.", "Context: ", "There are several options:\n"])
def test_fixed_strings_of_the_tasks_are_known(sentence):
    assert TOKENIZER.unk_token_id not in TOKENIZER(sentence).input_ids


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_becomes_known_ids(text):
    ids = TOKENIZER(text).input_ids
    assert ids[0] == TOKENIZER.bos_token_id
    assert all(0 <= i < len(tiny.vocabulary()) for i in ids)
    assert isinstance(TOKENIZER.decode(ids), str)


def test_unknown_words_become_unk():
    ids = TOKENIZER("zebra", add_special_tokens=False).input_ids
    assert ids == [TOKENIZER.unk_token_id]
    assert TOKENIZER("Red RED red.", add_special_tokens=False).input_ids == [tiny.vocabulary().index("red")] * 3


def test_an_option_is_one_token_and_its_letter_no_article():
    one, letter, article = (TOKENIZER(t, add_special_tokens=False).input_ids for t in ("A. red\n", "A. zebra", "a red"))
    assert [tiny.vocabulary()[i] for i in one] == ["A. red"]
    assert [tiny.vocabulary()[i] for i in letter] == ["A", "<unk>"]
    assert [tiny.vocabulary()[i] for i in article] == ["a", "red"]
    table = tiny.build().model.language_model.embed_tokens.weight
    ids = [tiny.vocabulary().index(w) for w in ("A. red", "A", "red")]
    assert torch.equal(table[ids[0]], table[ids[1]] + table[ids[2]])


def test_processor_gives_576_image_tokens_and_our_pixels():
    image = render(sample_scene(1, "eval")).image
    inputs = tiny.processor()(
        images=Image.fromarray(image), text="USER: <image>\nHow many? ASSISTANT:", return_tensors="pt"
    )
    assert (inputs["input_ids"] == tiny.vocabulary().index("<image>")).sum() == 576
    assert torch.allclose(inputs["pixel_values"], pixel_values(image[None]), atol=2e-2)


def test_chat_template_is_the_prompt():
    part = [{"type": "image"}, {"type": "text", "text": "What color is the star?"}]
    said = tiny.processor().apply_chat_template([{"role": "user", "content": part}], add_generation_prompt=True)
    assert said == "USER: <image>\nWhat color is the star? ASSISTANT:"


@pytest.fixture(scope="module")
def shipped():
    return LlavaForConditionalGeneration.from_pretrained(tiny.folder(), dtype=torch.float32).eval()


def test_shipped_files_are_small_and_safe():
    files = list(tiny.folder().iterdir())
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {f.name for f in files}
    assert sum(f.stat().st_size for f in files) < 12e6
    assert not [f for f in files if f.suffix in (".bin", ".pt", ".pkl")]


def test_shipped_tokenizer_is_the_one_that_training_used(shipped):
    processor = AutoProcessor.from_pretrained(tiny.folder())
    for _, p in posed(40):
        assert processor.tokenizer(p.prompt).input_ids == TOKENIZER(p.prompt).input_ids
    assert processor.tokenizer.padding_side == "left"
    assert shipped.config.to_dict()["text_config"] == {
        **tiny.config().to_dict()["text_config"],
        "dtype": shipped.config.to_dict()["text_config"].get("dtype"),
    }


def test_shipped_model_answers_held_out_questions(shipped):
    """In a batch of unequal prompts, as the backend sends them."""
    processor = AutoProcessor.from_pretrained(tiny.folder())
    cases = posed(48)
    right, chance = [], []
    for i in range(0, len(cases), 12):
        batch = cases[i : i + 12]
        images = [Image.fromarray(render(s).image) for s, _ in batch]
        texts = [f"USER: <image>\n{p.prompt} ASSISTANT:" for _, p in batch]
        inputs = processor(images=images, text=texts, padding=True, return_tensors="pt")
        said = shipped.generate(**inputs, max_new_tokens=4, do_sample=False)[:, inputs["input_ids"].shape[1] :]
        answers = processor.batch_decode(said, skip_special_tokens=True)
        right += [a.strip() == p.answer for a, (_, p) in zip(answers, batch, strict=True)]
        chance += [p.chance for _, p in batch]
    assert np.mean(right) > np.mean(chance) + 0.25
