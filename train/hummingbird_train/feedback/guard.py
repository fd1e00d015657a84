"""Monitors that tell when a reward is gamed: a held-out judge, diversity, motion, colour.

Clips of fixed prompts and seeds are made now and then and compared with those of the student before
feedback. A reward that rises while these fall is being gamed; the run stops, the best weights stay.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import ExecutionError, UsageError
from hummingbird_train.feedback.reward import RewardModel


@dataclass(frozen=True)
class Health:
    """What the monitors read off one set of clips."""

    held_out: float
    """Mean score of the held-out judge; higher is better."""
    diversity: float
    """Mean distance between latents of one prompt and different seeds."""
    motion: float
    """Energy of frame differences."""
    saturation: float
    """Mean colour saturation, 0..1."""


@dataclass(frozen=True)
class GuardConfig:
    """When to stop."""

    diversity: float = 0.9
    """Least share of the diversity before feedback."""
    motion: float = 0.9
    """Least share of the motion energy before feedback."""
    saturation: float = 0.05
    """Largest change of the mean saturation, as a share of that before feedback."""
    judge_drop: float = 0.02
    """How far the held-out score may lie below its best, in its own unit."""
    patience: int = 2
    """Checks in a row that may do so before the run stops."""

    def __post_init__(self) -> None:
        """Refuse limits that nothing can meet with ``feedback.guard_config``."""
        values = (self.diversity, self.motion, self.saturation, self.judge_drop, self.patience - 1)
        if min(values) < 0:
            raise UsageError(
                "feedback.guard_config",
                f"guard, got {self}, expected limits of at least 0 and patience of at least 1",
                hint="correct the recipe",
            )


class Guard:
    """Compares checks with the student before feedback and with the best so far.

    Args:
        before: health of the student before feedback, same prompts and seeds.
        config: limits.
    """

    def __init__(self, before: Health, config: GuardConfig | None = None) -> None:
        self.before, self.config = before, config or GuardConfig()
        self.best = before.held_out
        self.below = 0

    def check(self, now: Health) -> list[str]:
        """Why to stop: empty while all is well.

        The held-out judge has patience; diversity, motion and saturation have none.
        """
        config, before = self.config, self.before
        reasons = []
        for name, least in (("diversity", config.diversity), ("motion", config.motion)):
            got, base = getattr(now, name), getattr(before, name)
            if got < least * base:
                reasons.append(f"{name} {got:.4g}, expected at least {least:g} x {base:.4g}")
        change = abs(now.saturation - before.saturation)
        if change > config.saturation * max(before.saturation, 1e-6):
            reasons.append(
                f"saturation {now.saturation:.4g}, expected within {config.saturation:.0%} of "
                f"{before.saturation:.4g}"
            )
        self.below = self.below + 1 if now.held_out < self.best - config.judge_drop else 0
        if self.below >= config.patience:
            reasons.append(
                f"held-out judge {now.held_out:.4g}, expected at least {self.best:.4g} - "
                f"{config.judge_drop:g} within {config.patience} checks"
            )
        self.best = max(self.best, now.held_out)
        return reasons


def diversity(latents: Tensor) -> float:
    """Mean root-mean-square distance between seeds of (prompts, seeds, ...); needs two seeds."""
    flat = latents.detach().double().flatten(2)  # (p, s, d)
    seeds = flat.shape[1]
    if seeds < 2:
        raise UsageError(
            "feedback.guard_config",
            f"diversity, got {seeds} seed, expected at least 2",
            hint="make clips of each prompt with two seeds or more",
        )
    distance = torch.cdist(flat, flat) / flat.shape[2] ** 0.5  # (p, s, s)
    return float(distance.sum(dim=(1, 2)).mean() / (seeds * (seeds - 1)))


def motion_energy(frames: Tensor) -> float:
    """Mean squared difference of neighbouring frames of (n, f, 3, h, w)."""
    return float((frames[:, 1:] - frames[:, :-1]).detach().double().square().mean())


def saturation(frames: Tensor) -> float:
    """Mean of (max - min) / max over colour channels of (n, f, 3, h, w), black counting as 0."""
    high, low = frames.detach().double().amax(dim=2), frames.detach().double().amin(dim=2)
    return float(((high - low) / high.clamp(min=1e-3)).mean())


Make = Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Tensor]]
"""(prompts, seeds), one of each per clip -> latents (n, c, f, h, w) and frames (n, f, 3, H, W)."""


class Probe:
    """Health of whatever ``make`` draws with, on fixed prompts and seeds.

    Args:
        make: draws clips with the student as it is now.
        prompts: that the run does not train on.
        seeds: two or more.
        judge: the held-out one.
        batch: clips made together.
    """

    def __init__(
        self,
        make: Make,
        prompts: Sequence[str],
        seeds: Sequence[int],
        judge: RewardModel,
        batch: int = 16,
    ) -> None:
        self.make, self.judge, self.batch = make, judge, batch
        self.prompts, self.seeds = list(prompts), list(seeds)

    @torch.no_grad()
    def __call__(self) -> Health:
        """Make the clips and read them."""
        pairs = [(p, s) for p in self.prompts for s in self.seeds]
        latents, energies, colours, scores = [], [], [], []
        for start in range(0, len(pairs), self.batch):
            prompts, seeds = zip(*pairs[start : start + self.batch], strict=True)
            made, frames = self.make(prompts, seeds)
            frames = frames.clamp(0, 1)
            latents.append(made.cpu())
            index = self.judge.wants.choose(frames.shape[1], np.random.default_rng(0))
            seen = frames[:, torch.from_numpy(index)]
            scores.append(self.judge(seen, self.judge.encode_text(list(prompts))).cpu())
            energies += [motion_energy(clip[None]) for clip in frames]
            colours += [saturation(clip[None]) for clip in frames]
        shape = (len(self.prompts), len(self.seeds), *latents[0].shape[1:])
        return Health(
            held_out=float(torch.cat(scores).double().mean()),
            diversity=diversity(torch.cat(latents).view(shape)),
            motion=sum(energies) / len(pairs),
            saturation=sum(colours) / len(pairs),
        )


class GuardedSamples:
    """What ``FeedbackObjective`` calls now and then: probe, note, keep the best, stop.

    ``guard.jsonl`` begins with the student before feedback, as step 0.

    The loop calls it with averaged weights in place, on rank 0.

    Args:
        probe: reads the student's health.
        guard: holds what it was before feedback.
        keep: writes the student as it is now into a folder.
    """

    FILE = "guard.jsonl"

    def __init__(self, probe: Probe, guard: Guard, keep: Callable[[Path], None]) -> None:
        self.probe, self.guard, self.keep = probe, guard, keep
        self.kept = -float("inf")
        self._replayed = False

    def __call__(self, folder: Path, step: int) -> None:
        """Check at a step.

        Raises:
            ExecutionError: ``feedback.guard`` naming the monitors; ``best`` in the folder holds the
                weights of the healthy check that the held-out judge liked most.
        """
        path = folder / self.FILE
        rows = _rows(path, before=step)  # a resumed run repeats the steps after its last state
        if not self._replayed:
            for row in rows[1:]:
                self._note(Health(**{name: row[name] for name in _HEALTH}))
            self._replayed = True
        if not rows:
            rows = [{"step": 0, **dataclasses.asdict(self.guard.before), "reasons": []}]
        now = self.probe()
        best = self.kept
        reasons = self._note(now)
        rows.append({"step": step, **dataclasses.asdict(now), "reasons": reasons})
        with atomic_file(path, overwrite=True) as partial:
            partial.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
        if self.kept > best:
            (folder / "best").mkdir(exist_ok=True)
            self.keep(folder / "best")
        if reasons:
            healthy = f"take {folder / 'best'}, or " if self.kept > -float("inf") else ""
            raise ExecutionError(
                "feedback.guard",
                f"feedback stopped at step {step}: {'; '.join(reasons)}",
                hint=f"{healthy}lower the reward's weight or gradient share, or its limits",
            )

    def _note(self, health: Health) -> list[str]:
        reasons = self.guard.check(health)
        if not reasons:
            self.kept = max(self.kept, health.held_out)
        return reasons


_HEALTH = tuple(field.name for field in dataclasses.fields(Health))


def _rows(path: Path, *, before: int) -> list[dict[str, Any]]:
    """Checks of earlier steps."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines()]
    return [row for row in rows if row["step"] < before]
