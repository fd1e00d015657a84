"""The training loop: phases of an objective, resumable bit for bit, paused by a minutes budget.

It knows nothing of diffusion: an objective gives a scalar per step, the loop averages gradients
over the ranks, steps the optimiser, keeps the moving average and writes state. Step n draws its
samples from the generator seeded with (seed, n, rank), so a killed run repeats the same steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.errors import ExecutionError
from hummingbird_train import parallel
from hummingbird_train.checkpoint import load_state, save_state
from hummingbird_train.ema import MovingAverage
from hummingbird_train.optim import MuonAdam, OptimizerConfig
from hummingbird_train.recipe import Phase

SAVE_EVERY_S = 60.0
REPORT_EVERY_S = 10.0


class Objective(Protocol):
    """What one stage trains."""

    modules: Mapping[str, nn.Module]
    """Trained modules by name."""

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Scalar loss of one batch and named numbers to report."""
        ...

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the model files from averaged weights named ``module.parameter``."""
        ...


@dataclass(frozen=True)
class RunConfig:
    """How a stage runs, whatever it trains."""

    seed: int = 0
    ema_decay: float = 0.995
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def train(
    objective: Objective,
    phases: Sequence[Phase],
    folder: Path,
    *,
    config: RunConfig,
    minutes: float | None = None,
    log: Callable[[str], None] = lambda _: None,
) -> bool:
    """Run or resume the phases.

    Args:
        objective: modules and loss.
        phases: run in order; the global step indexes into them.
        folder: holds ``state.safetensors`` and the model files.
        config: seed, averaging, optimiser.
        minutes: pause after this much wall time; None runs to the end.
        log: takes a progress line now and then (rank 0 only).

    Returns:
        True when the last phase is finished.

    Raises:
        ExecutionError: ``train.non_finite`` when a loss is NaN or infinite; the last state stays.
    """
    named = [
        (f"{m}.{n}", p) for m, module in objective.modules.items()
        for n, p in module.named_parameters() if p.requires_grad
    ]  # fmt: skip
    optimizer = MuonAdam(named, config.optimizer)
    average = MovingAverage(named, config.ema_decay)
    state_path = folder / "state.safetensors"
    step = _resume(state_path, optimizer, average) if state_path.exists() else 0
    total = sum(p.steps for p in phases)
    report = _Report(total, step, log)
    started = saved = time.monotonic()
    while step < total:
        phase, local = _locate(phases, step)
        rng = np.random.default_rng([config.seed, step, parallel.rank()])
        images = phase.images_every > 0 and local % phase.images_every == 0
        loss, numbers = objective.loss(phase, images, rng)
        for _, parameter in named:
            parameter.grad = None
        loss.backward()
        out_of_time = minutes is not None and time.monotonic() - started > minutes * 60
        pause = out_of_time or parallel.orphaned()
        stop = parallel.average_gradients([p for _, p in named], pause)
        if not np.isfinite(loss.item()):
            raise ExecutionError(
                "train.non_finite",
                f"loss is {loss.item()} at step {step} of phase {phase.name}",
                hint="resume from the last state with a lower learning rate",
            )
        rate = phase.rate(local)
        norm = optimizer.step(rate)
        average.update(step)
        report.add(loss.item(), numbers, norm)
        step += 1
        if parallel.rank() == 0:
            report.maybe_log(step, phase, images, rate)
        if stop or time.monotonic() - saved > SAVE_EVERY_S or step == total:
            _save(state_path, objective, optimizer, average, step)
            saved = time.monotonic()
        if stop:
            return step == total
    return True


def _locate(phases: Sequence[Phase], step: int) -> tuple[Phase, int]:
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise AssertionError("step lies beyond the last phase")


def _save(
    path: Path, objective: Objective, optimizer: MuonAdam, average: MovingAverage, step: int
) -> None:
    if parallel.rank() != 0:
        return
    tensors = {f"live.{n}": p for n, p in average.live.items()}
    tensors |= {f"average.{n}": p for n, p in average.average.items()}
    tensors |= {f"optimizer.{n}": p for n, p in optimizer.state().items()}
    save_state(path, tensors, {"step": step})
    objective.save(path.parent, average.average)


def _resume(path: Path, optimizer: MuonAdam, average: MovingAverage) -> int:
    tensors, facts = load_state(path)
    with torch.no_grad():
        for name, parameter in average.live.items():
            parameter.copy_(tensors[f"live.{name}"])
    average.load(_under(tensors, "average."))
    optimizer.load_state(_under(tensors, "optimizer."))
    return int(facts["step"])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


class _Report:
    """Running means between two progress lines."""

    def __init__(self, total: int, step: int, log: Callable[[str], None]) -> None:
        self.total = total
        self.log = log
        self.first = step
        self.started = self.last = time.monotonic()
        self.sums: dict[str, list[float]] = {}

    def add(self, loss: float, numbers: Mapping[str, float], norm: float) -> None:
        for name, value in {"loss": loss, "grad": norm, **numbers}.items():
            self.sums.setdefault(name, []).append(value)

    def maybe_log(self, step: int, phase: Phase, images: bool, rate: float) -> None:
        now = time.monotonic()
        if now - self.last < REPORT_EVERY_S and step < self.total:
            return
        pace = (now - self.started) / max(1, step - self.first)
        means = " ".join(f"{k} {np.mean(v):.4f}" for k, v in self.sums.items())
        eta = (self.total - step) * pace / 60
        self.log(
            f"{phase.name} {step}/{self.total} {means} lr {rate:.2e} "
            f"{pace * 1e3:.0f} ms/step, {eta:.1f} min left"
        )
        self.last = now
        self.sums.clear()
