"""A run that costs next to nothing a question, for benchmarks of everything around the model: many synthetic VQAv2
questions, and a LLaVA of random weights so small that a question takes about a millisecond."""

from __future__ import annotations

import io
import random
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import torch
from datasets import Features
from PIL import Image
from pyarrow import parquet
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from atp_eval.models import tiny
from atp_eval.scenes.schemas import features

SIDE, PATCH = 56, 14  # 4 x 4 visual tokens
PER_PICTURE, PIECE = 5, 5_000  # questions about a picture, as in VQAv2; questions written at a time
WORDS = "what color is the red circle on the left of the blue star and how many of them are there".split()  # noqa: SIM905
OURS = ("kind", "level", "scene_seed", "objects", "things_cells")  # columns that only the embedded suite has
SAID = ("red", "blue", "two", "yes", "no", "left")


def write_model(folder: Path) -> Path:
    """Two decoder layers of width 16 behind one vision layer, with the embedded model's tokenizer."""
    processor = tiny.processor(SIDE)
    words = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, image_size=SIDE,
        patch_size=PATCH, projection_dim=16,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=1,
        num_key_value_heads=1, initializer_range=0.3, max_position_embeddings=512,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision, text_config=text, image_token_index=words.convert_tokens_to_ids("<image>"),
            vision_feature_layer=-1, image_seq_length=(SIDE // PATCH) ** 2,
        )
    )  # fmt: skip
    model.generation_config.update(eos_token_id=2, bos_token_id=1, pad_token_id=0)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def write_questions(folder: Path, count: int, per_picture: int = PER_PICTURE) -> Path:
    """`count` questions in VQAv2's schema and layout, below a folder for ATP_EVAL_DATA; that folder."""
    columns = Features({k: v for k, v in features("vqav2").items() if k not in OURS}).arrow_schema
    path = folder / "VQAv2" / "data" / "validation-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    with parquet.ParquetWriter(path, columns) as writer:
        for start in range(0, count, PIECE):
            rows = [question(i, per_picture) for i in range(start, min(count, start + PIECE))]
            writer.write_table(pa.Table.from_pylist(rows, schema=columns))
    split = "  - split: validation\n    path: data/validation-*\n"
    (path.parents[1] / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{split}---\n")
    return folder


def question(number: int, per_picture: int) -> dict[str, object]:
    """A row: so many questions in a row show one picture; ten people have answered."""
    image, luck = number // per_picture, random.Random(number)
    said = luck.choices(SAID, k=10)
    return {
        "question_type": "what",
        "multiple_choice_answer": said[0],
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(said, 1)],
        "image_id": image,
        "answer_type": "other",
        "question_id": number,
        "question": " ".join(luck.choices(WORDS, k=luck.randrange(4, 12))) + "?",
        "image": {"bytes": picture(image), "path": f"{image}.png"},
    }


@lru_cache(maxsize=8)
def picture(number: int) -> bytes:
    """A plain picture of a colour of its own, as PNG."""
    colour = (number % 256, number // 256 % 256, number // 65536 % 256)
    data = io.BytesIO()
    Image.new("RGB", (SIDE, SIDE), colour).save(data, "PNG")
    return data.getvalue()
