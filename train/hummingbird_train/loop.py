"""The training loop: phases of an objective, resumable bit for bit, paused by a minutes budget.

It knows nothing of diffusion: an objective gives a scalar per micro-batch, the loop steps the
optimiser, keeps the moving average and writes state. Step n draws its samples, and its dropout,
from generators seeded with (seed, n, micro-batch), so the data cursor is the step and a killed run
repeats the same steps. Devices, ranks and number formats are accelerator.py's.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.errors import ExecutionError, InputError, UsageError
from hummingbird_train import parallel
from hummingbird_train.accelerator import Stepper
from hummingbird_train.checkpoint import Checkpoints, load_state
from hummingbird_train.ema import MovingAverage
from hummingbird_train.loss_plot import plot_loss
from hummingbird_train.optim import gradient_norm, make_optimizer, scale_gradients
from hummingbird_train.progress import Meter, RunLog, Sink, TensorBoardLog
from hummingbird_train.recipe import Phase, locate, rewritten
from hummingbird_train.run_config import FIXED, RunConfig

__all__ = ["Objective", "RunConfig", "train"]

OLD_STATE = "state.safetensors"
"""One-file state of version 0.1; read when there is no newer state, never written."""


class Objective(Protocol):
    """What one stage trains.

    It may also have:

    - ``to(device)``, as `hummingbird_train.devices.Placed` gives it: then a GPU is used if present.
    - ``samples(folder, step)``: writes pictures of what the averaged weights draw.
    - ``state() -> dict[str, Tensor]`` and ``load_state(tensors)``: more than weights to resume
      with, the same on every rank.
    """

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


def train(
    objective: Objective,
    phases: Sequence[Phase],
    folder: Path,
    *,
    config: RunConfig,
    minutes: float | None = None,
    log: Callable[[str], None] = lambda _: None,
    progress: Sink = lambda _: None,
) -> bool:
    """Run or resume the phases.

    Args:
        objective: modules and loss.
        phases: run in order; the global step indexes into them.
        folder: holds ``checkpoints/``, ``log.jsonl``, ``loss.png``, ``samples/`` and model files.
        config: seed, averaging, optimiser, number format and so on.
        minutes: pause after this much wall time; None runs to the end.
        log: takes a line now and then (rank 0 only).
        progress: takes a report at every step (rank 0 only), such as `progress.TerminalBar`.

    Returns:
        True when the last phase is finished.

    Raises:
        ExecutionError: ``train.non_finite`` when more steps than allowed had no finite loss or
            gradient; nothing of such a step enters weights or averages, the last state stays.
        InputError: ``train.recipe_changed`` when the run's state was made by other settings.
        UsageError: ``train.sharded_muon``, ``train.sharded_samples``.
    """
    stepper = Stepper(
        objective,
        seed=config.seed,
        precision=config.precision,
        checkpointing=config.checkpointing,
        accumulate=config.accumulate,
    )
    try:
        return _Run(objective, phases, folder, config, stepper, log, progress).go(minutes)
    finally:
        stepper.close()


class _Run:
    """State of one call of ``train``."""

    def __init__(
        self,
        objective: Objective,
        phases: Sequence[Phase],
        folder: Path,
        config: RunConfig,
        stepper: Stepper,
        log: Callable[[str], None],
        progress: Sink,
    ) -> None:
        self.objective, self.phases, self.folder = objective, phases, folder
        self.config, self.stepper = config, stepper
        self.main = parallel.rank() == 0
        self.log = log if self.main else lambda _: None
        self.progress = progress if self.main else lambda _: None
        if config.samples_every and stepper.sharded:
            raise UsageError(
                "train.sharded_samples",
                f"samples_every {config.samples_every} with sharded weights, expected 0",
                hint="draw samples from the saved model",
            )
        self.parameters = [p for _, p in stepper.named]
        self.optimizer = make_optimizer(stepper.named, config.optimizer)
        self.average = MovingAverage(stepper.named, config.ema_decay)
        self.checkpoints = Checkpoints(folder, config.keep)
        self.step = self.skipped = 0
        self.total = sum(p.steps for p in phases)
        if self.main:
            self.checkpoints.clean()
        parallel.any_rank([False], stepper.device)  # nobody reads before rank 0 has tidied up
        self._resume()

    def go(self, minutes: float | None) -> bool:
        """Run to the end, or to the end of the budget."""
        config, device = self.config, self.stepper.device
        meter = Meter(self.total, self.step)
        started = saved = reported = time.monotonic()
        if self.step == self.total:  # killed between the last state and the model files
            self._save_model()
            return True
        run_log = RunLog(self.folder, self.step) if self.main else None
        board = TensorBoardLog(self.folder) if self.main and config.tensorboard else None
        try:
            while self.step < self.total:
                phase, local = locate(self.phases, self.step)
                images = phase.images_every > 0 and local % phase.images_every == 0
                rate = phase.rate(local)
                found = self.stepper.gradients(phase, images, self.step)
                now = time.monotonic()
                late = minutes is not None and now - started > minutes * 60
                # Ranks must agree on what the clock says and on what any of them met.
                pause, due, bad = parallel.any_rank(
                    [
                        late or parallel.orphaned(),
                        now - saved > config.save_every,
                        not math.isfinite(found.loss),
                    ],
                    device,
                )
                norm = self._update(phase, rate, found.loss, bad)
                self.step += 1
                if norm is not None:
                    meter.add({"loss": found.loss, "grad": norm, **found.numbers})
                end = self.step == self.total
                if self.main:
                    clear = now - reported > config.report_every or end or pause
                    report = meter.report(self.step, phase.name, rate, self.skipped, clear=clear)
                    self.progress(report)
                    if clear:
                        reported = now
                        self.log(report.line())
                        run_log.add(report)
                        if board:
                            board.add(report)
                if config.samples_every and (self.step % config.samples_every == 0 or end):
                    self._samples()
                if pause or due or end:
                    self._save()
                    if run_log:
                        plot_loss(run_log.rows, self.folder / "loss.png")
                    saved = time.monotonic()
                if pause:
                    break
        finally:
            if board:
                board.close()
        return self.step == self.total

    def _update(self, phase: Phase, rate: float, loss: float, bad: bool) -> float | None:
        """One optimiser step; returns the gradient's norm, None for a step left out."""
        scale = self.stepper.scale
        norm = gradient_norm(self.parameters) / scale.value
        if not bad and math.isfinite(norm):
            limit = self.config.optimizer.clip_norm
            factor = min(1.0, limit / (norm + 1e-6)) / scale.value
            scale_gradients(self.parameters, factor)
            scale.succeeded()
            self.optimizer.step(rate)
            self.average.update(self.step)
            return norm
        if not bad and scale.overflowed():
            self.log(f"step {self.step}: fp16 overflow, loss scale now {scale.value:.0f}")
            return None
        self.skipped += 1
        what = f"loss {loss}, gradient norm {norm} at step {self.step} of phase {phase.name}"
        if self.skipped > self.config.skip_non_finite:
            raise ExecutionError(
                "train.non_finite",
                f"{what}, expected finite numbers; {self.skipped} such steps, "
                f"{self.config.skip_non_finite} allowed",
                hint="end the phase at an earlier step and go on in one with a lower learning "
                "rate, or allow some with skip_non_finite",
            )
        self.log(f"left out: {what} ({self.skipped} of {self.config.skip_non_finite} allowed)")
        return None

    def _facts(self) -> dict[str, Any]:
        config = dataclasses.asdict(self.config)
        return {
            "format": 1,
            "phases": [dataclasses.asdict(p) for p in self.phases],
            "fixed": {name: config[name] for name in FIXED},
            "micro_batches": parallel.world_size() * self.config.accumulate,
            "skipped": self.skipped,
            "loss_scale": [self.stepper.scale.value, self.stepper.scale.good],
        }

    def _save(self) -> None:
        average = parallel.wholes(self.average.average)
        self.stepper.save(self.objective, self.folder, average)
        groups = {
            "weights": parallel.wholes(self.average.live),
            "average": average,
            "optimizer": parallel.wholes(self.optimizer.state()),
        }
        if hasattr(self.objective, "state"):
            groups["objective"] = self.objective.state()
        if self.main:
            self.checkpoints.save(self.step, groups, self._facts())

    def _save_model(self) -> None:
        average = parallel.wholes(self.average.average)
        self.stepper.save(self.objective, self.folder, average)

    def _samples(self) -> None:
        samples = getattr(self.objective, "samples", None)
        if samples is None or not self.main:
            return
        folder = self.folder / "samples"
        folder.mkdir(exist_ok=True)
        with torch.no_grad(), self.average.applied():
            samples(folder, self.step)

    def _resume(self) -> None:
        steps = self.checkpoints.steps()
        if steps:
            groups, facts = self.checkpoints.load(steps[-1])
            self._check(facts)
        elif (self.folder / OLD_STATE).exists():
            groups, facts = _old(self.folder / OLD_STATE)
            if self.config.optimizer.kind != "muon":
                raise self._changed(f"optimizer was muon, is {self.config.optimizer.kind}")
        else:
            return
        self._restore(groups)
        self.step = int(facts["step"])
        self.skipped = int(facts.get("skipped", 0))
        scale = self.stepper.scale
        if scale.dynamic and "loss_scale" in facts:
            value, good = facts["loss_scale"]
            scale.value, scale.good = float(value), int(good)

    def _restore(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        held = {n: tuple(t.shape) for n, t in groups["weights"].items()}
        wanted = {n: tuple(p.shape) for n, p in self.average.live.items()}
        if held != wanted:
            names = sorted(n for n in held | wanted if held.get(n) != wanted.get(n))
            raise self._changed(
                f"{len(names)} trained tensors, the first {names[0]}, was "
                f"{held.get(names[0], 'absent')}, is {wanted.get(names[0], 'absent')}"
            )
        for name, parameter in self.average.live.items():
            parallel.assign(parameter, groups["weights"][name])
        self.average.load(groups["average"])
        self.optimizer.load_state(groups["optimizer"])
        if hasattr(self.objective, "load_state"):
            self.objective.load_state(groups["objective"])

    def _check(self, facts: Mapping[str, Any]) -> None:
        step = int(facts["step"])
        changed = rewritten(facts["phases"], self.phases, step)
        now, usual = (_plain(dataclasses.asdict(c)) for c in (self.config, RunConfig()))
        for name in FIXED:
            before = facts["fixed"].get(name, usual[name])
            if isinstance(before, dict):  # fields that there were not then count as their defaults
                before = {**usual[name], **before}
            if now[name] != before:
                changed.append(f"{name} was {before!r}, is {now[name]!r}")
        if changed:
            raise self._changed("; ".join(changed))
        micro = parallel.world_size() * self.config.accumulate
        if facts["micro_batches"] != micro:
            self.log(
                f"micro-batches per step were {facts['micro_batches']}, are {micro}: "
                "from here on the run is another one"
            )

    def _changed(self, what: str) -> InputError:
        return InputError(
            "train.recipe_changed",
            f"the state in {self.folder} was made with other settings: {what}",
            hint="restore them and end the phase at the steps done to go on otherwise, "
            "or start a new run folder",
        )


def _plain(value: Any) -> Any:
    """A setting as JSON gives it back."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    return list(value) if isinstance(value, tuple) else value


def _old(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    tensors, facts = load_state(path)
    groups = {
        new: {n.removeprefix(old): t for n, t in tensors.items() if n.startswith(old)}
        for old, new in (
            ("live.", "weights"), ("average.", "average"), ("optimizer.", "optimizer")
        )
    }  # fmt: skip
    return groups, facts
