"""Several rewards as one loss, bounded so that none of them outruns the anchor loss.

A term's rewards are clipped at what real clips reach, divided by their running standard deviation
and weighted; the gradient it sends into the student's prediction is scaled down to a share of the
anchor's, and warmed up. Clark et al. 2024 (DRaFT) and T2V-Turbo leave this to the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_train.feedback.reward import RewardModel

CONSTANT = "constant"
LINEAR = "linear"
COSINE = "cosine"
SCHEDULES = (CONSTANT, LINEAR, COSINE)


@dataclass(frozen=True)
class MixConfig:
    """How rewards are balanced against the anchor loss and each other."""

    warmup: float = 0.2
    """Share of the run's steps without reward."""
    ramp: float = 0.1
    """Share of the run's steps in which the weight then rises to its full value."""
    momentum: float = 0.99
    """Of the running moments that a reward is divided by the standard deviation of."""
    normalise: bool = True
    """Divide rewards by their running standard deviation; False leaves their own scale."""
    clip_quantile: float = 0.95
    """Rewards above this quantile of real clips' rewards earn nothing more."""
    gradient_share: float = 0.3
    """Largest norm of one term's gradient over the norm of the anchor's; inf turns the cap off."""
    images: float = 1.0
    """Factor of every term that looks at single frames (``FrameSpec.sampling`` "random")."""
    videos: float = 1.0
    """Factor of every other term. The published run, four ranks in two roles, comes to anchor
    3/4, images 3/4 and videos 1/2 with weights (1, 2): see ``ROLE_SPLIT``."""
    anchor: float = 1.0
    """Factor of the anchor loss."""

    def __post_init__(self) -> None:
        """Refuse shares outside 0 to 1 and negative factors with ``feedback.mix``."""
        for name in ("warmup", "ramp", "momentum", "clip_quantile"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise _wrong(name, getattr(self, name), "0 to 1")
        for name in ("gradient_share", "images", "videos", "anchor"):
            if not getattr(self, name) >= 0.0:
                raise _wrong(name, getattr(self, name), "at least 0")


ROLE_SPLIT = {"anchor": 0.75, "images": 0.75, "videos": 0.25}
"""Factors that one process needs to repeat the published run: of its four ranks three carry anchor
and image reward, one the video reward alone, and gradients are averaged. With term weights 1
(image) and 2 (video) that is 3/4, 3/4 and 1/2."""


@dataclass(frozen=True)
class Term:
    """One reward of the mix."""

    model: RewardModel
    weight: float = 1.0
    """Of the normalised reward."""
    schedule: str = CONSTANT
    """After the warm-up: ``constant``, or falling to 0 as ``linear`` or ``cosine``."""
    every_n: int = 1
    """Steps between two uses; the others cost nothing."""
    clip_at: float = math.inf
    """Reward above which nothing more is earned: see ``real_quantile``."""
    share: float | None = None
    """Largest norm of this term's gradient over the anchor's; None: the mix's ``gradient_share``.
    Where caps bind, as they do in the tiny world, this and not the weight says how strong it is."""

    def __post_init__(self) -> None:
        """Refuse unknown schedules and steps below one with ``feedback.mix``."""
        if self.schedule not in SCHEDULES:
            raise _wrong("schedule", self.schedule, f"one of {', '.join(SCHEDULES)}")
        if self.every_n < 1:
            raise _wrong("every_n", self.every_n, "at least 1")
        if not math.isfinite(self.weight):
            raise _wrong("weight", self.weight, "a finite number")
        if self.share is not None and not self.share >= 0.0:
            raise _wrong("share", self.share, "at least 0")


class Due(NamedTuple):
    """A term to compute at a step."""

    term: Term
    weight: float
    """Of the reward, before the cap."""
    factor: float
    """Of the warm-up and schedule, 0..1, after the cap."""


def schedule_factor(schedule: str, step: int, total: int, warmup: float, ramp: float) -> float:
    """Factor of a term's weight at a 0-based step: 0, then a linear rise, then the schedule.

    Args:
        schedule: one of ``SCHEDULES``.
        step: 0 .. total - 1.
        total: steps of the run.
        warmup: share of the steps before the rise.
        ramp: share of the steps that the rise takes.
    """
    done = step / max(1, total)
    if done < warmup:
        return 0.0
    rise = 1.0 if ramp == 0.0 else min(1.0, (done - warmup) / ramp)
    left = 1.0 if warmup >= 1.0 else (1.0 - done) / (1.0 - warmup)  # 1 at the end of the warm-up
    if schedule == LINEAR:
        return rise * left
    if schedule == COSINE:
        return rise * 0.5 * (1.0 - math.cos(math.pi * left))
    return rise


def real_quantile(rewards: Tensor, quantile: float) -> float:
    """Value below which this share of real clips' rewards [n] lies (linear interpolation)."""
    return float(torch.quantile(rewards.detach().double().flatten(), quantile))


class RunningMoments:
    """Exponential mean and variance of a stream of batches, without bias at the start.

    Args:
        momentum: share that the past keeps at every batch.
    """

    def __init__(self, momentum: float) -> None:
        self.momentum = momentum
        self.values = torch.zeros(3, dtype=torch.float64)  # weight, mean x, mean x squared

    def update(self, rewards: Tensor) -> None:
        """Add a batch of rewards [b], in a distributed run those of all ranks."""
        x = rewards.detach().double()
        batch = torch.stack([torch.ones_like(x[0]), x.mean(), x.square().mean()])
        if dist.is_initialized():
            dist.all_reduce(batch)
            batch /= dist.get_world_size()
        batch = batch.cpu()
        self.values = self.momentum * self.values + (1.0 - self.momentum) * batch

    @property
    def deviation(self) -> float:
        """Standard deviation seen so far, at least 1e-6; 1 before two different rewards came."""
        weight, mean, square = self.values.tolist()
        if weight == 0.0:
            return 1.0
        variance = square / weight - (mean / weight) ** 2
        return math.sqrt(variance) if variance > 1e-12 else 1.0


def capped_scale(reward_norm: float, anchor_norm: float, share: float) -> float:
    """Factor <= 1 that brings a reward's gradient norm to at most ``share`` of the anchor's."""
    if math.isinf(share) or reward_norm <= share * anchor_norm:
        return 1.0
    return share * anchor_norm / reward_norm


class RewardMix:
    """The weighted, normalised, clipped and capped sum of rewards, as something to minimise.

    Args:
        terms: rewards; two or more of different kinds are harder to game than one.
        config: balance.

    Raises:
        UsageError: ``feedback.mix`` when two terms share a name or a term cannot be differentiated.
    """

    def __init__(self, terms: Sequence[Term], config: MixConfig) -> None:
        names = [term.model.name for term in terms]
        if len(set(names)) != len(names):
            raise _wrong("terms", names, "a name of its own for each")
        for term in terms:
            if not term.model.differentiable:
                raise _wrong(
                    f"term {term.model.name}", "a reward without gradient", "a differentiable one"
                )
        self.terms, self.config = tuple(terms), config
        self.moments = {name: RunningMoments(config.momentum) for name in names}

    def due(self, step: int, total: int) -> list[Due]:
        """Terms that count at a 0-based step of ``total``; the others need not be computed."""
        config, found = self.config, []
        for term in self.terms:
            kind = config.images if _is_image(term) else config.videos
            factor = schedule_factor(term.schedule, step, total, config.warmup, config.ramp)
            due = Due(term, term.weight * kind, factor)
            if step % term.every_n == 0 and due.weight and due.factor:
                found.append(due)
        return found

    def term_loss(self, term: Term, rewards: Tensor, weight: float) -> Tensor:
        """-weight mean(min(r, clip)) / deviation of rewards [b]; updates the running moments."""
        moments = self.moments[term.model.name]
        moments.update(rewards)
        scale = moments.deviation if self.config.normalise else 1.0
        return -(weight / scale) * rewards.clamp(max=term.clip_at).mean()

    def capped(
        self,
        x_0: Tensor,
        anchor_norm: float,
        due: Sequence[Due],
        reward: Callable[[Term, Tensor], Tensor],
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of the terms due, each one's gradient at ``x_0`` capped by the anchor's.

        Gradients are compared at the student's prediction: one backward through decoder and reward
        model a term, none through the student.

        Args:
            x_0: the student's prediction, with gradient.
            anchor_norm: norm of the anchor's gradient at its own prediction of the same shape.
            due: from ``due``.
            reward: decodes a leaf that stands for x_0 and scores it: rewards [b].

        Returns:
            A scalar whose gradient with respect to x_0 is the sum of the capped gradients, and
            whose value is the sum of the scaled losses; and numbers to report.
        """
        numbers: dict[str, float] = {}
        total_slope = torch.zeros_like(x_0)
        value = 0.0
        for term, weight, factor in due:
            leaf = x_0.detach().requires_grad_(True)
            rewards = reward(term, leaf)
            loss = self.term_loss(term, rewards, weight)
            (slope,) = torch.autograd.grad(loss, leaf)
            norm = float(slope.norm())
            share = self.config.gradient_share if term.share is None else term.share
            scale = capped_scale(norm, anchor_norm, share)
            total_slope += factor * scale * slope
            value += factor * scale * float(loss.detach())
            numbers[f"reward/{term.model.name}"] = float(rewards.detach().mean())
            numbers[f"cap/{term.model.name}"] = scale
        # d/dx_0 of <x_0, g> is g: the student is run backward once, for anchor and rewards together
        linear = (x_0 * total_slope).sum()
        return linear - linear.detach() + value, numbers

    def state(self) -> dict[str, Tensor]:
        """The running moments by term, to resume with."""
        return {f"moments.{name}": m.values.clone() for name, m in self.moments.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take moments from ``state``; terms that are new start afresh."""
        for name, moments in self.moments.items():
            if f"moments.{name}" in tensors:
                moments.values = tensors[f"moments.{name}"].double().clone()


def _is_image(term: Term) -> bool:
    return term.model.wants.sampling == "random"


def _wrong(name: str, got: object, expected: str) -> UsageError:
    return UsageError(
        "feedback.mix",
        f"reward mix, {name}: got {got}, expected {expected}",
        hint="correct the mix",
    )
