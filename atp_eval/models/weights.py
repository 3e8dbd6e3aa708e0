"""A fingerprint of a checkpoint's weights, cheap enough to take at every run."""

from __future__ import annotations

import hashlib
from pathlib import Path

WHOLE_BYTES = 2**30  # up to this size every byte is hashed
BLOCK_BYTES = 2**20
BLOCKS = 64


def weight_hash(folder: Path) -> str:
    """sha256 (hex) over the folder's *.safetensors, in order of their names.

    Together at most 1 GiB: over names and contents. Larger: over names, sizes, the first MiB of each file (which holds
    its header: names, types, shapes, offsets) and 64 evenly spread blocks of 1 MiB; the string then ends in "-sampled".
    """
    files = sorted(folder.glob("*.safetensors"))
    sampled = sum(f.stat().st_size for f in files) > WHOLE_BYTES
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as stream:
            starts = range(0, size, max(BLOCK_BYTES, size // BLOCKS) if sampled else BLOCK_BYTES)
            for start in starts:
                stream.seek(start)
                digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest() + ("-sampled" if sampled else "")
