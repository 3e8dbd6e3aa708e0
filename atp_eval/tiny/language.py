"""The language model's training, in stages that each start from a saved state.

    python -m atp_eval.tiny.language --work FOLDER --stage ground --seconds 300
    python -m atp_eval.tiny.language --work FOLDER --stage skills --seconds 500         # goes on from `ground`

and so on. The stages up to `oracle` see a dozen oracle tokens an image, `few` and `late` the 112 most useful tokens of
the tower, `wide` and `all` the 576 that the model has in use. Every stage ends after --seconds; its learning rate and
its mix of segments run with the share of the time that is gone.
"""

from __future__ import annotations

import argparse
import random
import signal
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaModel

from ..models import tiny
from ..scenes.prompts import Posed
from ..scenes.world import Scene
from . import packed
from .features import Features
from .oracle import DIGIT, Oracle, choose, describe, fit_projector
from .pictures import Pictures
from .rows import Mix, Part, Rows, drawn, of_question, pack, question_for
from .stages import STAGES, Stage, checkpoint

WARM = 40  # steps


class Trainer:
    """The model, the oracle, the data and the running means of the training accuracy."""

    def __init__(self, work: Path, stage: Stage, seed: int) -> None:
        torch.manual_seed(seed)
        self.work, self.stage, self.rng = work, stage, random.Random(f"{seed} {stage.tokens} {stage.before}")
        self.model = tiny.build()
        self.llm = cast(LlamaModel, self.model.model.language_model)
        self.projector, self.oracle = self.model.model.multi_modal_projector, Oracle(self.llm.config.hidden_size)
        self.data = {split: Pictures(work, split) for split in ("train", "eval")}
        self.features = {} if stage.oracle else {split: Features(work, split) for split in ("train", "eval")}
        self.size = len(self.data["train"]) if stage.oracle else len(self.features["train"])
        self.order: list[int] = []
        self.means: dict[str, float] = {}
        self.stopped = False
        signal.signal(signal.SIGTERM, self._stop)  # ends the stage early, with its state saved
        self.compiled = torch.compile(packed.forward, dynamic=False)

    def _stop(self, *_: object) -> None:
        self.stopped = True

    def load(self, path: Path) -> None:
        state = load_file(path)
        own = {k: v for k, v in state.items() if not k.startswith("oracle.")}
        missing, unknown = self.model.load_state_dict(own, strict=False)
        assert not unknown and all("vision_tower" in k or "lm_head" in k for k in missing), (missing, unknown)
        self.oracle.load_state_dict({k.removeprefix("oracle."): v for k, v in state.items() if k.startswith("oracle.")})

    def save(self, path: Path) -> None:
        state = {k: v for k, v in self.model.state_dict().items() if "vision_tower" not in k and "lm_head" not in k}
        state.update({f"oracle.{k}": v for k, v in self.oracle.state_dict().items()})
        save_file({k: v.contiguous() for k, v in state.items()}, path)

    def logits(self, split: str, ids: list[int], rows: Rows, training: bool, share: float = 0.0) -> Tensor:
        """Of the packed rows of text about some images, under their visual tokens; `share` of the rows blind in
        the first layer."""
        data = self.data[split]
        labels = data.labels[ids]
        if self.stage.oracle:
            f, cells = choose(describe(labels, data.settings[ids]), labels, self.stage.tokens)
        else:
            f, cells = choose(self.features[split].read(ids), labels, self.stage.tokens)
        with torch.autocast("cpu", torch.bfloat16):
            image = self.oracle(f, self.llm.embed_tokens) if self.stage.oracle else self.projector(f)
            mask = packed.block_mask(rows.segments, cells.shape[1] + len(packed.PREFIX))
            blind = packed.HIDDEN * (torch.rand(len(mask), 1, 1, 1) < share).to(mask.dtype)
            run = self.compiled if training else packed.forward
            return run(self.llm, image, cells + len(packed.PREFIX), rows.tokens, rows.positions, mask, blind)

    def fit(self, images: int = 1500) -> None:
        """Move from oracle tokens to the tower's: refit the projector."""
        data, features = self.data["train"], self.features["train"]
        fs, wanted, digits = [], [], []
        with torch.no_grad():
            for i in range(0, images, 50):
                ids = list(range(i, i + 50))
                f, cells = choose(features.read(ids).float(), data.labels[ids], 140)
                x = self.oracle(describe(data.labels[ids], data.settings[ids]), self.llm.embed_tokens)
                fs.append(f.flatten(0, 1))
                digits.append(torch.from_numpy(data.labels[ids][:, DIGIT]).long().gather(1, cells).flatten())
                wanted.append(x.gather(1, cells[..., None].expand(-1, -1, x.shape[-1])).flatten(0, 1))
        fit_projector(self.model, torch.cat(fs), torch.cat(wanted), torch.cat(digits))

    @torch.no_grad()
    def evaluate(self, images: int, rows: int = 6) -> dict[str, str]:
        """Held-out accuracy by benchmark, form and kind of the training mix's questions; every layer sees."""
        rng, seen, data = random.Random(5), defaultdict(list), self.data["eval"]
        for i in range(0, images, 16):
            ids = list(range(i, i + 16))

            packed_rows = pack([data.scenes[j] for j in ids for _ in range(rows)], partial(self._asked, rng))
            best = self.logits("eval", ids, packed_rows, False).argmax(-1)
            for a in packed_rows.asked:
                p = cast(Posed, a.what)
                for key in ("all", p.benchmark, f"{p.question.kind}/{p.form}"):
                    seen[key].append(int(best[a.row, a.column] == a.token))
        return {k: f"{np.mean(v):.2f}({len(v)})" for k, v in sorted(seen.items())}

    def _follow(self, logits: Tensor, rows: Rows, loss: float) -> None:
        at = [(a.row, a.column, a.token) for a in rows.asked]
        r, c, t = (list(x) for x in zip(*at, strict=True))
        right = (logits.detach()[r, c].argmax(-1) == torch.tensor(t)).tolist()
        batch = defaultdict(list)
        for ok, a in zip(right, rows.asked, strict=True):
            batch[a.what if isinstance(a.what, str) else f"{a.what.question.kind}/{a.what.form}"].append(ok)
        for k, v in batch.items():
            new = float(np.mean(v))
            self.means[k] = self.means[k] + min(0.3, 0.01 * len(v)) * (new - self.means[k]) if k in self.means else new
        self.means["loss"] = 0.95 * self.means.get("loss", loss) + 0.05 * loss

    @staticmethod
    def _asked(rng: random.Random, scene: Scene) -> Part | None:
        p = question_for(scene, rng, 0.6)
        return of_question(p) if p else None

    def _drawn(self, mix: Mix, scene: Scene) -> Part | None:
        return drawn(scene, self.rng, mix)

    def _ids(self) -> list[int]:
        n = self.stage.images
        if len(self.order) < n:
            self.order = self.rng.sample(range(self.size), self.size)
        ids, self.order = sorted(self.order[:n]), self.order[n:]
        return ids

    def train(self, seconds: float, path: Path, scale: float = 1.0) -> None:
        """Train for `seconds`, save to `path` at the end and about every five minutes. `scale` multiplies the
        learning rates."""
        stage, begun, step, next_save, packing = self.stage, time.time(), 0, 300.0, 0.0
        matrices = [p for p in self.llm.layers.parameters() if p.ndim == 2]
        others = [p for n, p in self.llm.named_parameters() if p.ndim < 2 or "layers" not in n]
        others += list((self.oracle if stage.oracle else self.projector).parameters())
        optimizers: list[tuple[float, torch.optim.Optimizer]] = [
            (1.0, torch.optim.Muon(matrices, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw")),
            (0.2, torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0)),
        ]
        while not self.stopped and (share := (time.time() - begun) / seconds) < 1:
            rate, text, image, extra = (
                x + (y - x) * share for x, y in (stage.rate, stage.text, stage.pictures, stage.extra)
            )
            for factor, optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = scale * factor * rate * min(1, (step + 1) / WARM)
            ids, mix = self._ids(), Mix(text, image, 0.02, extra, stage.drills)
            scenes = [self.data["train"].scenes[i] for i in ids for _ in range(stage.rows)]
            started = time.time()
            rows = pack(scenes, partial(self._drawn, mix))
            packing += time.time() - started
            out = self.logits("train", ids, rows, True, stage.blind)
            ce = F.cross_entropy(out[:, :-1].float().flatten(0, 1), rows.tokens[:, 1:].flatten(), reduction="none")
            loss = (ce.view(len(rows.tokens), -1) * rows.weights[:, 1:]).sum() / rows.weights.sum()
            for _, optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(matrices + others, 1.0)
            for _, optimizer in optimizers:
                optimizer.step()
            step += 1
            self._follow(out, rows, loss.item())
            if step % 100 == 0:
                told = ", ".join(f"{k} {v:.2f}" for k, v in sorted(self.means.items()))
                print(f"{time.time() - begun:.0f} s ({packing:.0f} s packing), step {step}: {told}", flush=True)
            if time.time() - begun > next_save:
                next_save += 300
                self.save(path.with_suffix(".part.safetensors"))
                print("held out:", self.evaluate(96), flush=True)
        self.save(path)
        print(f"ended, {step} steps, {time.time() - begun:.0f} s; held out:", self.evaluate(192), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--start", type=Path, help="a saved state to go on from (default: that of the stage before)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the learning rates")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    stage = STAGES[options.stage]
    trainer = Trainer(options.work, stage, options.seed)
    start = options.start or (checkpoint(options.work, stage.before) if stage.before else None)
    if start:
        trainer.load(start)
    if stage.fit and not options.start:
        trainer.fit()
    print(
        f"stage {options.stage}, {options.seconds:.0f} s, from {start.name if start else 'random weights'}", flush=True
    )
    trainer.train(options.seconds, checkpoint(options.work, options.stage), options.scale)


if __name__ == "__main__":
    main()
