"""Small objectives that train in milliseconds, and a worker that ranks can run."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_train.checkpoint import Checkpoints
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.optim import OptimizerConfig
from hummingbird_train.recipe import Phase

torch.set_num_threads(1)  # on networks this small a second thread costs more than it does

PHASES = (
    Phase(name="one", steps=6, batch=4, learning_rate=1e-2, warmup=2),
    Phase(name="two", steps=5, batch=4, learning_rate=5e-3, images_every=2, images_batch=2),
)

SMALL = UNetConfig(
    in_channels=2,
    out_channels=2,
    model_channels=8,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(1, 2),
    middle_block=False,
    num_head_channels=4,
    init_attn_heads=1,
    context_dim=6,
    time_cond_proj_dim=4,
    temporal_dropout=0.0,
    norm_num_groups=2,
)


class Regression:
    """A two-layer network with dropout on random data; NaN at chosen calls."""

    def __init__(self, *, fails_at: tuple[int, ...] = (), dropout: float = 0.1) -> None:
        torch.manual_seed(3)
        self.net = nn.Sequential(
            nn.Linear(5, 7), nn.Tanh(), nn.Dropout(dropout), nn.Linear(7, 3)
        )  # fmt: skip
        self.modules: Mapping[str, nn.Module] = {"net": self.net}
        self.calls, self.fails_at = 0, fails_at
        self.seen: list[tuple[str, bool]] = []

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        count = phase.images_batch if images else phase.batch
        self.seen.append((phase.name, images))
        x = torch.from_numpy(rng.standard_normal((count, 5)).astype(np.float32))
        loss = (self.net(x) - x[:, :3]).square().mean()
        if self.calls in self.fails_at:
            loss = loss * float("nan")
        self.calls += 1
        return loss, {"half": float(loss.detach()) / 2}

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        (folder / "saved").write_text(str(len(weights)), "utf-8")


class Clips:
    """A video U-Net of 8 channels on random latents; single frames leave layers over time out.

    Args:
        joined: draw what that many micro-batches would see, as one batch.
    """

    def __init__(self, *, joined: int = 0, seed: int = 5) -> None:
        torch.manual_seed(2)
        self.unet = VideoUNet(SMALL)
        with torch.no_grad():  # zero-initialised branches would hide the layers before them
            for parameter in self.unet.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        self.modules: Mapping[str, nn.Module] = {"unet": self.unet}
        self.joined, self.seed, self.step = joined, seed, 0

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        sources = [rng]
        if self.joined:
            sources = [np.random.default_rng([self.seed, self.step, m]) for m in range(self.joined)]
        self.step += 1
        drawn = [
            self._draw(source, phase.batch, 1 if images else phase.frames) for source in sources
        ]
        x, target, context, w, t = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        fps = torch.full((len(x),), 8)
        out = self.unet(x, t, context, timestep_cond=w, fps=fps, images=images)
        return (out - target).square().mean(), {}

    def _draw(self, rng: np.random.Generator, count: int, frames: int) -> list[Tensor]:
        shapes = [(2, frames, 4, 4), (2, frames, 4, 4), (3, 6), (4,)]
        floats = [rng.standard_normal((count, *s)).astype(np.float32) for s in shapes]
        return [*map(torch.from_numpy, floats), torch.from_numpy(rng.integers(1000, size=count))]

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        from hummingbird_train.autoencoder import save_averaged

        save_averaged(folder / "unet.safetensors", self.unet, SMALL, weights, "unet")


# Biases before a norm have no gradient but rounding, which Adam turns into steps of up to the
# learning rate: it is small so that two orders of summation can be told from two batches.
CLIPS = (
    Phase(
        name="clips", steps=5, batch=2, learning_rate=5e-5, warmup=2, frames=3, images_every=3,
        images_batch=2,
    ),
)  # fmt: skip


def train_clips(folder: Path, kind: str, options: Mapping[str, object]) -> None:
    """Five steps of `Clips` in every rank."""
    options = {"seed": 5, **options}
    folder.mkdir(parents=True, exist_ok=True)
    config = RunConfig(optimizer=OptimizerConfig(kind=kind), **options)
    assert train(Clips(), CLIPS, folder, config=config)


def train_clips_paused(folder: Path) -> None:
    """The first step of the same with AdamW."""
    folder.mkdir(parents=True, exist_ok=True)
    config = RunConfig(seed=5, optimizer=OptimizerConfig(kind="adamw"))
    assert not train(Clips(), CLIPS, folder, config=config, minutes=0.0)


def die(folder: Path) -> None:
    """End as the system's out-of-memory killer ends a process."""
    os.kill(os.getpid(), signal.SIGKILL)


def regression(folder: Path, phases: tuple[Phase, ...] = PHASES, **options: object) -> bool:
    """Train `Regression`, from a fresh process's state as far as a test can tell."""
    folder.mkdir(exist_ok=True)
    objective = options.pop("objective", None) or Regression()
    settings = {k: options.pop(k) for k in ("minutes", "log", "progress") if k in options}
    return train(objective, phases, folder, config=RunConfig(seed=5, **options), **settings)


def state(folder: Path) -> dict[str, Tensor]:
    """The newest complete state, flat."""
    checkpoints = Checkpoints(folder)
    groups, _ = checkpoints.load(checkpoints.steps()[-1])
    return {f"{group}/{name}": t for group, table in groups.items() for name, t in table.items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(t, b[n]) for n, t in a.items())
