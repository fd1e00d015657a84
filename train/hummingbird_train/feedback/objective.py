"""Stage `feedback`: consistency distillation with visual rewards beside it.

Hummingbird, section 3.2, after T2V-Turbo (arXiv:2405.18750), equation 8: total = L_CD minus the
weighted rewards of decoded frames. The reward's gradient reaches the student through its one-step
prediction, or through the last step of the sampler that ships (DRaFT-1, arXiv:2309.17400).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.base import torch_generator
from hummingbird_train.devices import Placed
from hummingbird_train.feedback.augmentation import Augmentation
from hummingbird_train.feedback.decode import FrameDecoder
from hummingbird_train.feedback.mix import RewardMix, Term
from hummingbird_train.feedback.reward import resized
from hummingbird_train.recipe import Phase

Through = Literal["one_step", "last_step", "both"]


class Terms(Protocol):
    """What an anchor tells of one batch: `consistency.ConsistencyTerms`."""

    loss: Tensor
    """Scalar, depends on ``x_0_student``."""
    x_0_student: Tensor
    """(b, c, f, h, w), the student's prediction of the clean latent."""
    t: Tensor
    """int64 [b]."""
    context: Tensor
    """(b, l, d)."""
    prompts: list[str]
    numbers: dict[str, float]
    conditions: dict[str, Any]
    """Further arguments of the student: timestep_cond, fps, frame_indices, images."""


class Anchor(Protocol):
    """The loss that keeps the student a denoiser: `consistency.ConsistencyObjective`."""

    modules: Mapping[str, nn.Module]

    def losses(self, phase: Phase, images: bool, rng: np.random.Generator) -> Terms: ...

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None: ...


@dataclass(frozen=True)
class FeedbackConfig:
    """Where rewards are taken."""

    calls: int
    """Micro-batches of the whole run per rank (steps times ``accumulate``): schedules end there."""
    through: Through = "both"
    """``one_step``: the prediction that the anchor made. ``last_step``: the sampler without
    gradient, its last step with. ``both``: one after the other, by turns."""
    latest_t: int = 800
    """One-step predictions from this timestep on earn no reward: they are mean images, and
    rewarding them makes blobs. 1000 rewards all, as the published run does."""
    steps: int = 4
    """Of the sampler of ``last_step``."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Applied to decoded frames before every reward."""

    def __post_init__(self) -> None:
        """Refuse an unknown path and an empty run with ``feedback.config``."""
        if self.through not in ("one_step", "last_step", "both") or self.calls < 1:
            raise UsageError(
                "feedback.config",
                f"feedback, got through {self.through!r} and calls {self.calls}, expected "
                "one_step, last_step or both, and at least 1",
                hint="correct the recipe",
            )


class FeedbackObjective(Placed):
    """The anchor's loss minus bounded rewards.

    While no reward has weight, loss, gradient and random draws are the anchor's own, bit for bit.

    Args:
        consistency: the anchor; its ``modules["unet"]`` is the student.
        rewards: terms and balance.
        decode: latents to frames.
        config: where rewards are taken.
        scheduler: schedule and solver that the student ships with; needed for ``last_step``.
        samples: called as ``samples(folder, step)`` every so often, such as `guard.GuardedSamples`.
    """

    def __init__(
        self,
        consistency: Anchor,
        rewards: RewardMix,
        decode: FrameDecoder,
        config: FeedbackConfig,
        *,
        scheduler: SchedulerConfig | None = None,
        samples: Callable[[Path, int], None] | None = None,
    ) -> None:
        if scheduler is None and config.through != "one_step":
            raise UsageError(
                "feedback.config",
                f"feedback through {config.through}, got no scheduler, expected the shipped one",
                hint='pass scheduler=..., or through="one_step"',
            )
        self.consistency, self.rewards, self.decode = consistency, rewards, decode
        self.config, self.scheduler = config, scheduler
        self.modules = consistency.modules
        self.calls = 0
        self._samples = samples

    def to(self, device: torch.device) -> None:
        """Move anchor, decoder and reward models."""
        super().to(device)
        for term in self.rewards.terms:
            if hasattr(term.model, "to"):
                term.model.to(device)

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Anchor minus rewards of one batch."""
        call, self.calls = self.calls, self.calls + 1
        mix = self.rewards
        terms = self.consistency.losses(phase, images, rng)
        numbers = dict(terms.numbers)
        loss = terms.loss if mix.config.anchor == 1.0 else mix.config.anchor * terms.loss
        single = terms.x_0_student.shape[2] == 1
        due = [
            one for one in mix.due(call, self.config.calls)
            if not (single and one.term.model.wants.sampling != "random")
        ]  # fmt: skip
        if not due:
            return loss, numbers
        # the slope with respect to the prediction: no pass through the student
        (slope,) = torch.autograd.grad(loss, terms.x_0_student, retain_graph=True)
        last = self.config.through == "last_step" or (
            self.config.through == "both" and call % 2 == 1
        )
        if last:
            x_0 = self._sampled(terms, rng)
            chosen = torch.arange(len(x_0))
        else:
            x_0 = terms.x_0_student
            chosen = torch.nonzero(terms.t.cpu() < self.config.latest_t).flatten()
            if not len(chosen):  # all ranks reduce the same moments, so none may leave here
                due = [one._replace(factor=0.0) for one in due]
                chosen = torch.zeros(1, dtype=torch.int64)
        chosen = chosen.to(x_0.device)
        prompts = [terms.prompts[i] for i in chosen.tolist()]
        reward, found = mix.capped(
            x_0,
            float(slope.norm()),
            due,
            lambda term, leaf: self._score(term, leaf[chosen], prompts, rng),
        )
        numbers |= found
        numbers["anchor"] = float(terms.loss.detach())
        return loss + reward, numbers

    def _score(
        self, term: Term, x_0: Tensor, prompts: list[str], rng: np.random.Generator
    ) -> Tensor:
        """Rewards [b] of latents that carry gradient."""
        wants = term.model.wants
        frames = self.decode(x_0, wants.choose(x_0.shape[2], rng))
        frames = resized(self.config.augmentation(frames, rng), wants.size)
        with torch.no_grad():
            text = term.model.encode_text(prompts)
        return term.model(frames, text)

    def _sampled(self, terms: Terms, rng: np.random.Generator) -> Tensor:
        """The shipped sampler from fresh noise, its last network pass with gradient."""
        unet: Any = self.modules["unet"]
        shape, device = terms.x_0_student.shape, terms.x_0_student.device
        generator = torch_generator(rng)
        conditions = dict(terms.conditions)
        if conditions.get("frame_indices") is not None:  # a made clip begins at frame 0
            index = conditions["frame_indices"]
            conditions["frame_indices"] = index - index[..., :1]
        assert self.scheduler is not None
        return last_step(
            lambda x, t: unet(x, torch.tensor(t, device=device), terms.context, **conditions),
            torch.randn(shape, generator=generator).to(device),
            self.scheduler,
            self.config.steps,
            lambda _: torch.randn(shape, generator=generator).to(device),
        )

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the anchor's model files."""
        self.consistency.save(folder, weights)

    def samples(self, folder: Path, step: int) -> None:
        """Draw and look at samples, where something was given to do so."""
        if self._samples is not None:
            self._samples(folder, step)

    def state(self) -> dict[str, Tensor]:
        """Running moments and the number of calls, besides what the anchor keeps."""
        own = {"feedback.calls": torch.tensor(self.calls), **self.rewards.state()}
        inner = getattr(self.consistency, "state", dict)()
        return own | {f"anchor.{name}": value for name, value in inner.items()}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on from ``state``."""
        self.calls = int(tensors["feedback.calls"])
        self.rewards.load_state(tensors)
        inner = {
            n.removeprefix("anchor."): t for n, t in tensors.items() if n.startswith("anchor.")
        }
        if inner and hasattr(self.consistency, "load_state"):
            self.consistency.load_state(inner)


def last_step(
    denoise: Callable[[Tensor, int], Tensor],
    x_T: Tensor,
    config: SchedulerConfig,
    steps: int,
    noise_fn: Callable[[int], Tensor],
) -> Tensor:
    """The runtime's own sampler on tensors, gradient through its last network pass only.

    Args:
        denoise: (x_t, t) -> network output.
        x_T: initial noise.
        config: schedule and solver.
        steps: network passes.
        noise_fn: i -> noise on leaving step i.

    Returns:
        The clean latent, of x_T's shape.
    """
    passes = 0

    def partly(x_t: Tensor, t: int) -> Tensor:
        nonlocal passes
        passes += 1
        with torch.set_grad_enabled(passes == steps):
            return denoise(x_t, t)

    for state in sample(partly, x_T, config, steps, noise_fn):  # type: ignore[arg-type]
        clean = state.denoised
    return clean  # type: ignore[return-value]
