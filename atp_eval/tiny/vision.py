"""The vision tower, trained on what the renderer knows about every cell.

    python -m atp_eval.tiny.vision --work FOLDER --seconds 1500

Most of the time goes into windows of 8 x 8 cells around things (few of the 576 cells of a picture show any), the last
part into whole pictures. Besides the labels the tower learns where a cell is and where the centre of its thing is:
relations need that.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from ..scenes.world import GRID, PATCH, SETTINGS
from .geometry import CELLS, COLUMN, ROW, pixel_values, sincos
from .pictures import CLASSES, LABELS, STEP, Pictures

PARTS = (*CLASSES, len(SETTINGS))
NUMBERS = 6  # offset to the centre, own column and row, column and row of the centre
WEIGHTS = (1.0, 1.0, 1.0, 1.0, 2.0, 1.0, 0.3, 1.0)  # of the losses: labels, setting, numbers


def config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=336,
        patch_size=PATCH,
        projection_dim=192,
    )


def numbers(labels: Tensor, cells: Tensor) -> Tensor:
    """Labels [B, 8, n] of cells [B, n] -> what the regression head should say, [B, n, 6]."""
    offset = labels[:, 6:8].float().transpose(1, 2) / STEP
    own = torch.stack([COLUMN[cells], ROW[cells]], -1)
    return torch.cat([offset / 3, own, own + offset / (GRID / 2)], -1)


class Labeller(nn.Module):
    """The tower with a linear head that names what every cell shows."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(config())
        width = self.tower.config.hidden_size
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, sum(PARTS) + NUMBERS)
        with torch.no_grad():
            self.inner.embeddings.position_embedding.weight[1:] = sincos(width) * 0.5

    @property
    def inner(self) -> Any:
        return getattr(self.tower, "vision_model", self.tower)

    def forward(self, pixels: Tensor, cells: Tensor) -> Tensor:
        """Pictures or windows of them [B, 3, H, W], and which cells [B, n] of the full grid they show -> [B,
        n, classes]."""
        e = self.inner.embeddings
        h = e.patch_embedding(pixels).flatten(2).transpose(1, 2) + e.position_embedding(cells + 1)
        cls = (e.class_embedding + e.position_embedding.weight[0]).expand(len(h), 1, -1)
        h = self.inner.pre_layrnorm(torch.cat([cls.to(h.dtype), h], 1))
        h = self.inner.encoder(inputs_embeds=h).last_hidden_state[:, 1:]
        return cast(Tensor, self.head(self.norm(h)))


def losses(out: Tensor, labels: Tensor, cells: Tensor, setting: Tensor) -> Tensor:
    """[8]: of each label, of the setting, of the numbers; cells without a thing count little."""
    parts = out.float().split([*PARTS, NUMBERS], -1)
    body, digit = labels[:, 0] > 0, labels[:, 4] > 0
    weights = [body + 0.1] * 4 + [digit * 3 + body * 0.2 + 0.03, labels[:, 5] * 3 + body * 0.5 + 0.03]
    each = []
    for i, w in enumerate(weights):
        ce = F.cross_entropy(parts[i].flatten(0, 1), labels[:, i].flatten().long(), reduction="none").view(body.shape)
        each.append((ce * w).sum() / w.sum())
    each.append(F.cross_entropy(parts[6].flatten(0, 1), setting[:, None].expand(body.shape).flatten()))
    error = F.smooth_l1_loss(parts[7], numbers(labels, cells), reduction="none", beta=0.1)
    each.append((error[..., [0, 1, 4, 5]].sum(-1) * body).sum() / body.sum() + error[..., 2:4].sum(-1).mean())
    return torch.stack(each)


@torch.no_grad()
def evaluate(model: Labeller, data: Pictures, count: int) -> dict[str, float]:
    """Share of right labels among the cells that show a thing (digit: a plate), and the mean error of the
    centre's place (half an image: 1)."""
    right, total, error = np.zeros(7), np.zeros(7), 0.0
    every = torch.arange(CELLS)[None]
    for i in range(0, count, 20):
        labels = torch.from_numpy(data.labels[i : i + 20].astype(np.int64))
        with torch.autocast("cpu", torch.bfloat16):
            out = model(pixel_values(data.images[i : i + 20]), every.expand(len(labels), -1)).float()
        parts, body = out.split([*PARTS, NUMBERS], -1), labels[:, 0] > 0
        for j, mask in enumerate([body] * 4 + [labels[:, 4] > 0, labels[:, 5] > 0]):
            right[j] += (parts[j].argmax(-1) == labels[:, j])[mask].sum().item()
            total[j] += mask.sum().item()
        setting = torch.from_numpy(data.settings[i : i + 20])[:, None]
        right[6] += (parts[6].argmax(-1) == setting).sum().item()
        total[6] += body.numel()
        miss = (parts[7] - numbers(labels, every.expand(len(labels), -1)))[..., 4:].abs().mean(-1)
        error += (miss * body).sum().item()
    names = (*LABELS[:6], "setting", "place_error")
    return dict(zip(names, [*(right / total).round(3).tolist(), round(error / total[0], 4)], strict=True))


class Batches:
    """Random windows around things, or whole pictures, with everything that the losses need."""

    def __init__(self, data: Pictures, seed: int, side: int = 8) -> None:
        self.data, self.side, self.rng = data, side, np.random.RandomState(seed)

    def _window(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        things, side = self.data.scenes[i].things, self.side
        t = things[self.rng.randint(len(things))]
        x, y = (min(max(v // PATCH - side // 2 + self.rng.randint(-1, 2), 0), GRID - side) for v in (t.x, t.y))
        cells = ((y + np.arange(side))[:, None] * GRID + x + np.arange(side)).reshape(-1)
        pixels = self.data.images[i, y * PATCH : (y + side) * PATCH, x * PATCH : (x + side) * PATCH]
        return pixels, self.data.labels[i][:, cells], cells

    def draw(self, count: int, windows: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """pixels, labels, cells, settings"""
        ids = np.sort(self.rng.randint(0, len(self.data), count))
        setting = torch.from_numpy(self.data.settings[ids])
        if windows:
            images, labels, cells = (np.stack(x) for x in zip(*map(self._window, ids), strict=True))
        else:
            images, labels = self.data.images[ids], self.data.labels[ids]
            cells = np.broadcast_to(np.arange(CELLS), (count, CELLS)).copy()
        return pixel_values(images), torch.from_numpy(labels), torch.from_numpy(cells), setting


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    data, held_out = Pictures(options.work, "train"), Pictures(options.work, "eval")
    batches, model = Batches(data, options.seed), Labeller()
    matrices = [p for n, p in model.tower.named_parameters() if p.ndim == 2 and "layers" in n]
    others = [p for p in model.parameters() if all(p is not q for q in matrices)]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=options.lr, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=options.lr, betas=(0.9, 0.98), weight_decay=0),
    ]
    start, step, mean, next_test = time.time(), 0, torch.zeros(8), 240.0
    while (share := (time.time() - start) / options.seconds) < 1:
        for optimizer in optimizers:
            cosine = 0.5 * (1 + math.cos(math.pi * share)) * 0.98 + 0.02
            optimizer.param_groups[0]["lr"] = options.lr * min(1, (step + 1) / 60) * cosine
        windows = share < options.windows_until
        pixels, labels, cells, setting = batches.draw(options.windows if windows else options.images, windows)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(pixels, cells)
        each = losses(out, labels, cells, setting)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (each * torch.tensor(WEIGHTS)).sum().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        mean = each.detach() if step == 1 else 0.95 * mean + 0.05 * each.detach()
        if step % 100 == 0:
            told = ", ".join(
                f"{n} {v:.3f}" for n, v in zip((*LABELS[:6], "setting", "place"), mean.tolist(), strict=True)
            )
            print(f"vision {time.time() - start:.0f} s, step {step}: {told}", flush=True)
        if time.time() - start > next_test:
            next_test += 240
            print("vision, held out:", evaluate(model, held_out, 200), flush=True)
            save(model, options.work / "tower.part.safetensors")
    save(model, options.work / "tower.safetensors")
    print(
        f"vision ended, {step} steps, {time.time() - start:.0f} s, held out:",
        evaluate(model, held_out, len(held_out)),
        flush=True,
    )


def save(model: Labeller, path: Path) -> None:
    save_file({k: v.contiguous() for k, v in model.tower.state_dict().items()}, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=1500)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--windows", type=int, default=40, help="windows a step")
    parser.add_argument("--images", type=int, default=8, help="whole pictures a step")
    parser.add_argument("--windows-until", type=float, default=0.75, help="share of the time")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
