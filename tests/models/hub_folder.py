"""A folder in the layout of llava-hf/llava-1.5-7b-hf, with its file names, keys and weight names, at a small width."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}"
    "{{ '<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ content['text'] + ' '}}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{% generation %}{{ content['text'] + ' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def write_hub_folder(
    folder: Path, layers: int = 4, hidden: int = 32, dtype: torch.dtype = torch.float32
) -> LlavaForConditionalGeneration:
    """Random weights at 336 px and 576 visual tokens, in two shards; returns the same model."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = _write_tokenizer(folder)
    vision = dict(
        hidden_size=16, image_size=336, intermediate_size=32, num_attention_heads=2, num_hidden_layers=3, patch_size=14
    )
    text = dict(
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        max_position_embeddings=4096,
        num_attention_heads=4,
        num_hidden_layers=layers,
        num_key_value_heads=4,
        rms_norm_eps=1e-05,
        vocab_size=vocab + 62,
    )
    shared = dict(
        image_token_index=vocab - 2,
        pad_token_id=vocab - 1,
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=CLIPVisionConfig(**vision), text_config=LlamaConfig(**text, initializer_range=0.2), **shared
        )
    )
    model = model.to(dtype).eval()
    name = str(dtype).removeprefix("torch.")
    _write(
        folder / "config.json",
        {
            "architectures": ["LlavaForConditionalGeneration"],
            "ignore_index": -100,
            "model_type": "llava",
            **shared,
            "text_config": {
                "_name_or_path": "lmsys/vicuna-7b-v1.5",
                "architectures": ["LlamaForCausalLM"],
                "model_type": "llama",
                "torch_dtype": name,
                **text,
            },
            "torch_dtype": name,
            "transformers_version": "4.36.0.dev0",
            "vision_config": {"model_type": "clip_vision_model", "projection_dim": 16, "vocab_size": 32000, **vision},
        },
    )
    _write(
        folder / "generation_config.json",
        {
            "_from_model_config": True,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": vocab - 1,
            "transformers_version": "4.36.0.dev0",
        },
    )
    _write(
        folder / "processor_config.json",
        {
            "image_token": "<image>",
            "num_additional_image_tokens": 1,
            "patch_size": 14,
            "processor_class": "LlavaProcessor",
            "vision_feature_select_strategy": "default",
        },
    )
    _write(
        folder / "preprocessor_config.json",
        {
            "crop_size": {"height": 336, "width": 336},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": MEAN,
            "image_processor_type": "CLIPImageProcessor",
            "image_std": STD,
            "processor_class": "LlavaProcessor",
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 336},
        },
    )
    _write(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    weights = {_hub_name(key): tensor.contiguous() for key, tensor in model.state_dict().items()}
    shards = [dict(list(weights.items())[::2]), dict(list(weights.items())[1::2])]
    files = [f"model-{i + 1:05d}-of-00002.safetensors" for i in range(2)]
    for file, shard in zip(files, shards, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
    _write(
        folder / "model.safetensors.index.json",
        {
            "metadata": {"total_size": sum(t.nbytes for t in weights.values())},
            "weight_map": {key: file for file, shard in zip(files, shards, strict=True) for key in shard},
        },
    )
    return model


def _hub_name(key: str) -> str:
    """The checkpoint was saved before transformers moved its modules."""
    if key == "lm_head.weight":
        return "language_model.lm_head.weight"
    key = key.removeprefix("model.")
    if key.startswith("language_model."):
        return key.replace("language_model.", "language_model.model.", 1)
    if key.startswith("vision_tower.") and not key.startswith("vision_tower.vision_model."):
        return key.replace("vision_tower.", "vision_tower.vision_model.", 1)
    return key


def _write_tokenizer(folder: Path) -> int:
    """A byte-fallback BPE like Vicuna's, with <image> and <pad> added at the end; returns the vocabulary's size."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["USER: What is in the picture? ASSISTANT: a red star and the number 7"] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    added = [AddedToken(token, normalized=False, special=True) for token in ("<image>", "<pad>")]
    tokenizer.add_special_tokens(added)
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    entry = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    ids = {0: "<unk>", 1: "<s>", 2: "</s>", size - 2: "<image>", size - 1: "<pad>"}
    _write(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "clean_up_tokenization_spaces": False,
            "eos_token": "</s>",
            "added_tokens_decoder": {str(i): {"content": token, **entry} for i, token in ids.items()},
            "extra_special_tokens": {"image_token": "<image>"},
            "image_token": "<image>",
            "legacy": False,
            "model_max_length": 10**30,
            "pad_token": "<pad>",
            "padding_side": "left",
            "processor_class": "LlavaProcessor",
            "tokenizer_class": "LlamaTokenizer",
            "unk_token": "<unk>",
            "use_default_system_prompt": False,
        },
    )
    _write(folder / "added_tokens.json", {"<image>": size - 2, "<pad>": size - 1})
    _write(
        folder / "special_tokens_map.json",
        {
            key: {"content": token, **{k: v for k, v in entry.items() if k != "special"}}
            for key, token in (
                ("bos_token", "<s>"),
                ("eos_token", "</s>"),
                ("pad_token", "<pad>"),
                ("unk_token", "<unk>"),
            )
        },
    )
    return size


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2))
