"""The machine that a bench runs on: its name, its memory, and what it reaches at best in products and in reading."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from atp_eval.bench.records import Machine
from atp_eval.engine import device_name

PACKAGES = ("torch", "transformers", "flash-attn")
SIDES = {"cpu": 1024, "cuda": 8192}  # of the square matrices whose product is timed
BYTES = 2**29  # of the memory that is read: more than any cache holds
TRIES = 12
CGROUP = Path("/sys/fs/cgroup")


def find_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """All of it; takes about two seconds on a CPU."""
    return Machine(
        device=machine_name(device),
        memory=total_memory(device),
        flops=matmul_peak(device, dtype),
        bandwidth=bandwidth(device),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        versions=versions(device),
    )


def machine_name(device: torch.device) -> str:
    """`NVIDIA H100`; of a CPU also the processor's own name, where the system tells it."""
    found = device_name(device)
    if device.type != "cpu":
        return found
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{name}, {found}" if name else found


def versions(device: torch.device) -> dict[str, str]:
    """Of Python and of the libraries that times depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if device.type == "cuda" and torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def total_memory(device: torch.device) -> int:
    """Bytes of the device's memory; of a CPU those that this process may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return min([psutil.virtual_memory().total, *_limit("memory.max")])


def free_memory(device: torch.device) -> int:
    """Bytes that are free there now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    return min([free, *(limit - used for limit in _limit("memory.max") for used in _limit("memory.current"))])


def _limit(name: str) -> list[int]:
    """A number of this container's control group; none where there is no such limit."""
    try:
        text = (CGROUP / name).read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdigit() else []


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the fastest of some products of two large square matrices."""
    side = SIDES.get(device.type, SIDES["cpu"])
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / fastest(lambda: a @ b, device)


def bandwidth(device: torch.device) -> float:
    """Bytes a second of the fastest of some passes that read a large tensor once, as decoding reads the weights."""
    numbers = torch.ones(BYTES // 4, device=device)
    return BYTES / fastest(numbers.sum, device)


def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some runs, after one that warms up."""
    taken = []
    for _ in range(TRIES + 1):
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def wait(device: torch.device) -> None:
    """Until a device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
