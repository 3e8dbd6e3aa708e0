"""CLIP's text side, which a LLaVA checkpoint does not hold: how near each patch is to a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, CLIPModel, CLIPTokenizer

from atp_eval.errors import UserError


@dataclass(frozen=True)
class ClipText:
    """What of a CLIP checkpoint compares patches with a text: the text tower, and the way of the vision tower's
    features into the space that both share.

    CDPruner's relevance (Zhang et al., arXiv 2506.10967, and its authors' code). They send patches of the last but one
    layer through the norm and the projection that CLIP trained for its CLS token of the last layer, and so does this.
    All of it in one dtype; theirs has the norm in that of the vision tower.
    """

    text: nn.Module
    text_projection: nn.Module
    norm: nn.Module
    visual_projection: nn.Module
    tokenizer: Any
    length: int

    @classmethod
    def load(
        cls,
        name: str,
        *,
        width: int | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> ClipText:
        """From a folder, or a hub id (local cache first; downloaded where the network is allowed), safetensors only.

        width: channels of the vision tower whose patches will be compared; it must be this checkpoint's, since the two
        share a space only where they are one model.

        Raises UserError, in one line with the fix, for what is not there, is not a CLIP, or has another width.
        """
        config = _config(name)
        if width is not None and config.vision_config.hidden_size != width:
            raise UserError(
                f"clip={name} has a vision tower of width {config.vision_config.hidden_size}, the model's has {width}; "
                f"give the CLIP that the model's tower was taken from"
            )
        kind: Any = CLIPModel
        try:
            model, loading = kind.from_pretrained(
                name,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told of below, by name
                output_loading_info=True,
            )
            tokenizer = CLIPTokenizer.from_pretrained(name)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"cannot load clip={name} (weights are read from safetensors only): {first}") from error
        if drawn := sorted({*loading["missing_keys"], *(key for key, *_ in loading["mismatched_keys"])}):
            raise UserError(
                f"cannot load clip={name}: {len(drawn)} tensors that its config.json asks for are missing or of "
                f"another shape, such as {drawn[0]}; copy the whole folder again"
            )
        if len(tokenizer) != config.text_config.vocab_size:  # without its files transformers makes an empty one
            raise UserError(
                f"clip={name} has a tokenizer of {len(tokenizer)} tokens for a text tower of "
                f"{config.text_config.vocab_size}; copy the whole folder again"
            )

        def ready(part: nn.Module) -> nn.Module:
            return part.to(device).eval().requires_grad_(False)

        return cls(
            text=ready(model.text_model),
            text_projection=ready(model.text_projection),
            norm=ready(model.vision_model.post_layernorm),
            visual_projection=ready(model.visual_projection),
            tokenizer=tokenizer,
            length=config.text_config.max_position_embeddings,
        )

    @torch.no_grad()
    def relevance(self, features: Tensor, questions: Sequence[str]) -> Tensor:
        """[B, V]: the cosine of each patch with its sample's question in the shared space, in at least fp32.

        features: [B, V, C], patches as they go into the projector (`Vision.features`). A question longer than the text
        tower takes (77 tokens) is cut into pieces; the cosine is the mean over them.
        """
        if len(features) != len(questions):
            raise UserError(f"{len(questions)} questions for the patches of {len(features)} pictures")
        weight: Any = self.visual_projection.weight
        patches = self.visual_projection(self.norm(features.to(weight.device, weight.dtype)))  # [B, V, P]
        return (_unit(patches) @ self.directions(questions)[..., None])[..., 0]

    @torch.no_grad()
    def directions(self, questions: Sequence[str]) -> Tensor:
        """[B, P]: the mean over a question's pieces of their unit vectors, so that its product is a mean of cosines."""
        pieces = [self.pieces(question) for question in questions]
        weight: Any = self.text_projection.weight
        pooled = self.text(input_ids=torch.cat(pieces).to(weight.device)).pooler_output
        found = _unit(self.text_projection(pooled)).split([len(ids) for ids in pieces])
        return torch.stack([piece.mean(0) for piece in found])

    def pieces(self, question: str) -> Tensor:
        """[M, 77] token ids of a question, nothing cut off, filled up with zeros.

        As in the authors' code: the first piece alone begins with the start token and the last alone ends with the end
        token; CLIP pools a piece at that, or else at its highest id. Attention is causal, so the zeros are not seen.
        """
        ids = torch.tensor(self.tokenizer(question, verbose=False).input_ids)
        filled = torch.zeros(-(-len(ids) // self.length) * self.length, dtype=torch.long)
        filled[: len(ids)] = ids
        return filled.view(-1, self.length)


def _unit(x: Tensor) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x / x.norm(dim=-1, keepdim=True)


def _config(name: str) -> Any:
    """The configuration of a CLIP checkpoint."""
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"clip={name} holds no config.json; give a folder in the layout of a CLIP checkpoint of the hub"
        )
    try:
        config: Any = AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        if folder.is_dir():
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"cannot read the configuration of clip={name}: {first}") from error
        raise UserError(
            f"clip={name} is neither a folder nor in the local Hugging Face cache, and could not be fetched. With a "
            f"network: hf download {name}; without one, copy its folder here and give the path, or choose relevance=llm"
        ) from error
    if config.model_type != "clip":
        raise UserError(f"clip={name} is a {config.model_type} model, not a CLIP with a text tower")
    return config
