"""Training samples, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100  # label of a token that is not to be predicted


class Sample(NamedTuple):
    """A conversation: input_ids and labels [L] long, labels -100 for all but answers and their ends; pixel_values
    [3, H, W], None for text only."""

    input_ids: Tensor
    labels: Tensor
    pixel_values: Tensor | None


def collate(samples: Sequence[Sample], pad: int) -> dict[str, Tensor]:
    """A batch, padded on the right with the token `pad`: input_ids, attention_mask and labels [B, L]; pixel_values
    [samples with an image, 3, H, W] in the order of the samples, left out where none has an image."""
    lengths = torch.tensor([len(sample.input_ids) for sample in samples])
    batch = {
        "input_ids": pad_sequence([s.input_ids for s in samples], batch_first=True, padding_value=pad),
        "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
        "labels": pad_sequence([s.labels for s in samples], batch_first=True, padding_value=IGNORED),
    }
    pixels = [s.pixel_values for s in samples if s.pixel_values is not None]
    return batch | ({"pixel_values": torch.stack(pixels)} if pixels else {})
