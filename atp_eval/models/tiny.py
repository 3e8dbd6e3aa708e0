"""The embedded tiny model: a LLaVA of 3.8 M parameters, trained by `atp_eval.tiny` and shipped with the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from atp_eval.scenes import prompts, questions, referents, world

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
PHRASES = ("USER:", "ASSISTANT:", prompts.SHORT, prompts.LETTER, prompts.SEVERAL, *prompts.LETTERS)  # one token each
PLACES = tuple(f"{axis}{i}" for axis in "cr" for i in range(8))  # columns and rows, for the drills in training
_WORDS = (
    "? , : ' what color is the shape pattern does have number on which animal would live in this place how many are "
    "there more than a an of image object objects background to left right above below top bottom second from closest "
    "other with same as and or yes no please answer context describe picture where"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ ' ' if not loop.last else '' }}{% endfor %}{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)


def folder() -> Path:
    """The folder of the shipped weights, tokenizer and processor."""
    return Path(__file__).parents[1] / "assets" / "tiny"


@cache
def vocabulary() -> tuple[str, ...]:
    """All words, special tokens first; their order is the order of the ids."""
    words = (
        set(_WORDS.split())
        | set(referents.EXTREMES)
        | set(questions.ANIMALS.values())
        | set(questions.DIGITS)
        | set(PLACES)
    )
    for group in (world.SHAPES, world.COLORS, world.MATERIALS, world.SIZES, world.SETTINGS):
        words.update(group)
    words.update(map(referents.pluralise, world.SHAPES))
    for hint in (*prompts.HINTS.values(), prompts.OTHER_HINT):
        words.update(hint.lower().replace(",", " ").replace(".", " ").split())
    return (*SPECIAL, *PHRASES, *sorted(words), *options())


@cache
def options() -> dict[str, tuple[str, str]]:
    """'A. red' and every other option, one token each -> letter and word."""
    pools = [*(a.pool for a in questions.ASKED.values()), world.SETTINGS, tuple(questions.ANIMALS.values())]
    words = sorted({word for pool in pools for word in pool})
    return {f"{letter}. {word}": (letter, word) for letter in prompts.LETTERS for word in words}


def tokenizer() -> PreTrainedTokenizerFast:
    """Words in lower case, full stops dropped, digits apart; fixed sentences and options are one token each.

    Whatever else a text holds is <unk>.
    """
    t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary())}, unk_token="<unk>"))
    t.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace(".", " ")])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    t.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", SPECIAL.index("<s>"))])
    t.add_special_tokens([AddedToken(w, normalized=False, special=True) for w in SPECIAL])
    t.add_tokens([AddedToken(w, normalized=False, single_word=len(w) == 1) for w in PHRASES])
    t.add_tokens([AddedToken(w, normalized=False, single_word=True) for w in options()])
    return PreTrainedTokenizerFast(
        tokenizer_object=t, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        padding_side="left",
        extra_special_tokens={"image_token": "<image>"}, model_max_length=1024, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def processor(side: int = world.IMAGE) -> LlavaProcessor:
    """CLIP's pixels at `side` x `side`, an <image> token a patch: 576 at 336 pixels."""
    pixels = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    return LlavaProcessor(
        pixels, tokenizer(), patch_size=world.PATCH, vision_feature_select_strategy="default",
        chat_template=CHAT_TEMPLATE,
        image_token="<image>", num_additional_image_tokens=1,
    )  # fmt: skip


def config() -> LlavaConfig:
    """CLIP of 4 layers x 192, Llama of 8 layers x 128 with 4 heads.

    `initializer_range` of 1 / sqrt(width) lets so narrow a model learn.
    """
    width = 128
    vision = CLIPVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=4, num_attention_heads=6, image_size=world.IMAGE,
        patch_size=world.PATCH, projection_dim=192,
    )  # fmt: skip
    ids = {w: i for i, w in enumerate(SPECIAL)}
    text = LlamaConfig(
        vocab_size=-(-len(vocabulary()) // 8) * 8, hidden_size=width, intermediate_size=384, num_hidden_layers=8,
        num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=1024, tie_word_embeddings=True, initializer_range=width**-0.5,
        bos_token_id=ids["<s>"], eos_token_id=ids["</s>"], pad_token_id=ids["<pad>"],
    )  # fmt: skip
    return LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=ids["<image>"], vision_feature_layer=-1,
        vision_feature_select_strategy="default", projector_hidden_act="gelu", tie_word_embeddings=True,
    )  # fmt: skip


def build() -> LlavaForConditionalGeneration:
    """The model with random weights, in fp32; an option's token starts as its letter plus its word."""
    model = LlavaForConditionalGeneration(config()).float()
    table, ids = model.model.language_model.embed_tokens.weight, {w: i for i, w in enumerate(vocabulary())}
    with torch.no_grad():
        for option, (letter, word) in options().items():
            table[ids[option]] = table[ids[letter]] + table[ids[word]]
    model.generation_config.update(do_sample=False, eos_token_id=2, bos_token_id=1, pad_token_id=0)
    return model


def save(model: LlavaForConditionalGeneration, where: Path) -> None:
    """Write weights (bf16 safetensors), config, tokenizer and processor as `from_pretrained` reads them.

    The model is left in bf16.
    """
    torch.nn.Module.to(model, torch.bfloat16)
    model.save_pretrained(where)
    processor().save_pretrained(where)
