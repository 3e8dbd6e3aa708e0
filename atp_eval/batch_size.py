"""`--batch-size auto`: as many questions as fit in memory, by what a question takes in closed form.

The number is settled before anything is answered and stands in the manifest; the same command then goes on with it,
whatever is free by then. Nothing depends on it but time: a batch that does not fit after all is halved as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from atp_eval.config import AUTO, RunConfig
from atp_eval.cost import ModelGeometry
from atp_eval.cost.flops import kv_bytes
from atp_eval.models import Bundle
from atp_eval.records import MANIFEST, read_run

TEXT = 512  # tokens that a question and its answer are taken to have, on top of the picture's; most have a tenth
GPU_SHARE, CPU_SHARE = 0.7, 0.4  # of what is free: allocators lose some to gaps, and a CPU's memory is everybody's
GPU_MOST, CPU_MOST = 128, 16  # no faster beyond: the device is busy
FLOAT32 = 4
CACHE = 2**30  # bytes that encoded pictures may take (`encoded.CACHE_BYTES`), to come yet


def settled(
    config: RunConfig,
    bundle: Bundle,
    say: Callable[[str], None],
    processes: int = 1,
    agree: Callable[[int], int] = lambda size: size,
) -> RunConfig:
    """The configuration with a number for a batch size of `auto`: the run folder's, if it holds a run, or as many as
    fit now, which is said.

    processes: see `fitting`. agree: gives the number on which all processes of a run have agreed for this one's.
    """
    if config.batch_size != AUTO:
        return config
    before = earlier(config.run_folder())
    size = before or agree(fitting(bundle, processes))
    say(f"{size} questions a batch, as {'this run had before' if before else 'fit in the memory that is free'}")
    return config.model_copy(update={"batch_size": size})


def earlier(folder: Path) -> int | None:
    """The batch size of the run that a folder holds."""
    if not (folder / MANIFEST).exists():
        return None
    found = read_run(folder).manifest.config.get("batch_size")
    return found if isinstance(found, int) else None


def fitting(bundle: Bundle, processes: int = 1) -> int:
    """Questions that fit on the bundle's device as it is now, a power of two, at least 1.

    processes: which answer on this machine at once, and share its memory where they have no GPU each.
    """
    device = bundle.device
    if device.type == "cuda":
        free, share, most = torch.cuda.mem_get_info(device)[0], GPU_SHARE, GPU_MOST
    else:
        free, share, most = psutil.virtual_memory().available / processes, CPU_SHARE, CPU_MOST
    return largest(share * (free - CACHE), question_bytes(bundle.geometry, bundle.dtype.itemsize), most)


def largest(room: float, each: int, most: int) -> int:
    """The largest power of two of which so many fit, from 1 to `most`."""
    size = 1
    while 2 * size <= most and 2 * size * each <= room:
        size *= 2
    return size


def question_bytes(geometry: ModelGeometry, number: int) -> int:
    """What one question takes at most while its prompt is read, unpruned, in bytes. number: bytes of one number.

    Its KV cache; of the layer that runs, hidden states, residual, queries, keys, values, attended values and the three
    of the feed-forward network; what the tower makes of a picture (as many rows as there are cells, wide layers in
    between); and the scores of the words in fp32.
    """
    length = geometry.cells + TEXT
    wide, narrow = geometry.heads * geometry.head_dim, geometry.kv_heads * geometry.head_dim
    layer = length * (4 * geometry.hidden + 2 * wide + 2 * narrow + 3 * geometry.intermediate)
    tower = (geometry.cells + 1) * (6 * geometry.vision.hidden + 2 * geometry.vision.intermediate)
    pictures = geometry.cells * geometry.hidden * 2
    cache = kv_bytes(geometry, [length] * geometry.num_layers, number)
    return cache + number * (layer + tower + pictures) + 3 * FLOAT32 * geometry.vocab
