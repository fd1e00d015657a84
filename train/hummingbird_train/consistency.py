"""Stage `consistency`: latent consistency distillation to a few steps (Hummingbird, stage 2).

Luo et al. 2023 (arXiv:2310.04378) as in T2V-Turbo (arXiv:2405.18750): the student's clean latent at
a timestep of the solver's grid is drawn to its own, without gradient, one solver step of the guided
teacher further. With ``student_steps`` the grid is the sampler's own timesteps.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime import schedule as runtime_schedule
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train import parallel
from hummingbird_train.autoencoder import save_averaged
from hummingbird_train.base import torch_generator
from hummingbird_train.data.clip_source import ClipSource
from hummingbird_train.devices import Placed
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.guided_teacher import (
    GuidanceForm,
    GuidedTeacher,
    check_guidance,
    draw,
    draw_guidance,
    embed,
)
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.recipe import Phase
from hummingbird_train.sampling import Contexts


@dataclass(frozen=True)
class ConsistencyConfig:
    """Grid, guidance and loss of stage 2; defaults are the published ones."""

    guidance: tuple[float, float] = (5.0, 15.0)
    """Lowest and highest scale; drawn uniformly and embedded."""
    form: GuidanceForm = "lcm"
    """How the teacher is guided."""
    solver_steps: int = 50
    """Timesteps of the grid; becomes the scheduler's ``original_inference_steps``."""
    skip: int = 1
    """Grid timesteps between a trained timestep and the one that its target stands at."""
    student_steps: int = 0
    """0: every timestep of the grid is trained; n: only the n that an n-step sampler visits, each
    against the next of them and the last against timestep 0 (then ``skip`` is not used)."""
    substeps: int = 1
    """Solver steps of the teacher between the two, of equal length."""
    huber_c: float = 1e-3
    """Of the pseudo-Huber loss."""
    sigma_data: float = 0.5
    """Of the boundary terms."""
    timestep_scaling: float = 10.0
    """Of the boundary terms."""
    target_decay: float = 0.0
    """0: the target is the student itself; above: an average of it with this decay."""
    partial_captions: float = 0.15
    """Share of the tiny world's captions that leave size or background open."""


@dataclass(frozen=True)
class ConsistencyTerms:
    """One step's loss and what else was computed for it."""

    loss: Tensor
    """Pseudo-Huber distance, a scalar."""
    x_0_student: Tensor
    """One-step clean latents with gradient, float32 [b, c, f, h, w]."""
    t: Tensor
    """Trained timesteps, int64 [b]."""
    context: Tensor
    """Prompts, [b, L, D]."""
    prompts: list[str]
    """b sentences."""
    w: Tensor
    """Guidance scales, float64 [b]."""
    numbers: dict[str, float]
    """To report."""
    conditions: dict[str, Any]
    """Further arguments of the student: timestep_cond, fps, frame_indices, images."""


def boundary_scalings(
    t: Tensor, sigma_data: float = 0.5, timestep_scaling: float = 10.0
) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out) of the consistency function, float32 in the shape of ``t``.

    c_skip = sigma^2 / ((s t)^2 + sigma^2), c_out = s t / sqrt((s t)^2 + sigma^2): at t = 0 the
    function is the identity.
    """
    config = SchedulerConfig(sigma_data=sigma_data, timestep_scaling=timestep_scaling)
    c_skip, c_out = runtime_schedule.boundary_scalings(config, t.float())
    return c_skip, c_out


def pseudo_huber(a: Tensor, b: Tensor, c: float = 1e-3) -> Tensor:
    """Mean over elements of sqrt((a - b)^2 + c^2) - c, a scalar.

    Computed as d^2 / (sqrt(d^2 + c^2) + c), which loses no digits for small d.
    """
    d2 = (a.float() - b.float()).square()
    return (d2 / ((d2 + c * c).sqrt() + c)).mean()


class SolverGrid:
    """Timesteps of the teacher's solver, and which pairs of them a student is trained on.

    Args:
        process: tables of the schedule.
        steps: of the solver; timestep i is (i + 1) (T / steps) - 1.
        skip: grid timesteps from a trained one down to its target's; below the grid lies 0.
        student_steps: 0 trains every timestep; n those of an n-step run, see ``student_schedule``.
        substeps: solver steps between the two.

    Raises:
        UsageError: ``train.solver_grid`` for counts without meaning.
    """

    def __init__(
        self,
        process: ForwardProcess,
        steps: int = 50,
        *,
        skip: int = 1,
        student_steps: int = 0,
        substeps: int = 1,
    ) -> None:
        total = len(process.signal)
        in_range = 1 <= steps <= total and 1 <= skip <= steps and 0 <= student_steps <= steps
        if not in_range or substeps < 1:
            raise _bad_grid(steps, skip, student_steps, substeps, "fit into the schedule")
        self.process, self.steps = process, steps
        self.timesteps = (torch.arange(steps) + 1) * (total // steps) - 1
        """Rising, int64 [steps]."""
        if student_steps:
            config = SchedulerConfig(num_train_timesteps=total, original_inference_steps=steps)
            falling = runtime_schedule.timesteps(config, student_steps)
            self.starts = torch.from_numpy(falling[::-1].copy())
            self.ends = torch.cat([torch.zeros(1, dtype=torch.int64), self.starts[:-1]])
        else:
            self.starts = self.timesteps
            self.ends = (self.timesteps - skip * (total // steps)).clamp(min=0)
        share = torch.arange(substeps + 1, dtype=torch.float64) / substeps
        way = self.starts[:, None] + (self.ends - self.starts)[:, None] * share
        self.way = way.round().long()
        """Timesteps that the solver passes, falling along a row: int64 [trained, substeps + 1]."""
        if bool((self.way.diff(dim=1) >= 0).any()):
            raise _bad_grid(steps, skip, student_steps, substeps, "give falling timesteps")

    def ddim_step(self, x_0: Tensor, eps: Tensor, index: Tensor) -> Tensor:
        """One solver step from grid timesteps down to the next lower ones (0 below the grid).

        Args:
            x_0: predicted clean latents [b, c, f, h, w].
            eps: predicted noise, same shape.
            index: int64 [b], into ``timesteps``.
        """
        lower = torch.cat([torch.zeros(1, dtype=torch.int64), self.timesteps[:-1]])
        return self.ddim_to(x_0, eps, lower[index.cpu()])

    def ddim_to(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """DDIM with eta 0: sqrt(alpha_t) x_0 + sqrt(1 - alpha_t) eps at int64 t [b]."""
        signal, noise = levels_at(self.process, t, x_0)
        return signal * x_0 + noise * eps


def _bad_grid(steps: int, skip: int, student: int, substeps: int, expected: str) -> UsageError:
    return UsageError(
        "train.solver_grid",
        f"solver grid, got solver_steps {steps}, skip {skip}, student_steps {student}, substeps "
        f"{substeps}, expected counts that {expected}",
        hint="the published grid is 50 steps, skip 1, every timestep, one substep",
    )


def levels_at(process: ForwardProcess, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(signal, noise) at int64 t [b], to broadcast against ``like`` on its device."""
    signal, noise = process.coefficients(t.to(process.signal.device))
    return signal.to(like.device), noise.to(like.device)


def predicted_x0_eps(
    process: ForwardProcess, output: Tensor, x_t: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """(x_0, eps) that a network's output means at int64 t [b], float32.

    v: x_0 = a x - s v, eps = s x + a v; epsilon: x_0 = (x - s eps) / a.
    """
    a, s = levels_at(process, t, x_t)
    output = output.float()
    if process.prediction_type == "epsilon":
        return (x_t - s * output) / a, output
    return a * x_t - s * output, s * x_t + a * output


def student_schedule(schedule: SchedulerConfig, config: ConsistencyConfig) -> SchedulerConfig:
    """The scheduler that a consistency student ships with: LCM over this stage's grid.

    Betas, zero-SNR rescale and prediction type stay the teacher's.
    """
    return dataclasses.replace(
        schedule,
        sampler="lcm",
        timestep_spacing="lcm_origin",
        original_inference_steps=config.solver_steps,
        sigma_data=config.sigma_data,
        timestep_scaling=config.timestep_scaling,
        eta=0.0,
        dynamic_rescale=None,
    )


class ConsistencyObjective(Placed):
    """The student agrees with itself along the guided teacher's solution.

    Args:
        unet: the student.
        unet_config: its shape; it needs a guidance embedding unless the range is one number.
        teacher: frozen; may be any size.
        teacher_config: its shape.
        contexts: encodes prompts, and the empty one.
        clips: encoded clips.
        schedule: of both networks.
        config: grid, guidance, loss.
        trainable: patterns of the student's parameter names (``fnmatch``) to train, all others
            are frozen; None leaves every parameter as it is.

    Raises:
        UsageError: ``train.guidance``, ``train.solver_grid``, ``train.parameters``.
    """

    def __init__(
        self,
        unet: VideoUNet,
        unet_config: UNetConfig,
        teacher: VideoUNet,
        teacher_config: UNetConfig,
        contexts: Contexts,
        clips: ClipSource[Any],
        schedule: SchedulerConfig,
        config: ConsistencyConfig,
        *,
        trainable: Sequence[str] | None = None,
    ) -> None:
        check_guidance(config.guidance, unet_config.time_cond_proj_dim)
        self.unet, self.unet_config = unet.train(), unet_config
        self.modules = {"unet": unet}
        if trainable is not None:
            _train_only(unet, trainable)
        with torch.no_grad():
            empty = contexts([""])
        self.teacher = GuidedTeacher(teacher, teacher_config, empty, config.form)
        self.contexts, self.clips, self.config = contexts, clips, config
        self.process = ForwardProcess(schedule)
        self.grid = SolverGrid(
            self.process,
            config.solver_steps,
            skip=config.skip,
            student_steps=config.student_steps,
            substeps=config.substeps,
        )
        self.target: VideoUNet | None = None
        if config.target_decay:
            if parallel.sharded():
                raise UsageError(
                    "train.parameters",
                    f"target_decay {config.target_decay} with sharded weights, expected 0",
                    hint="let the student be its own target, as published",
                )
            self.target = copy.deepcopy(unet).requires_grad_(False)

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Pseudo-Huber distance of one batch."""
        terms = self.losses(phase, images, rng)
        return terms.loss, terms.numbers

    def losses(self, phase: Phase, images: bool, rng: np.random.Generator) -> ConsistencyTerms:
        """The loss and what a reward needs to join it; draws nothing from ``rng`` afterwards."""
        config = self.config
        batch = draw(
            self.clips, self.contexts, phase, images, rng, partial_captions=config.partial_captions
        )
        count = len(batch.x_0)
        index = stratified_timesteps(rng, count, len(self.grid.starts))
        eps = torch.randn(batch.x_0.shape, generator=torch_generator(rng))
        w = draw_guidance(config.guidance, count, rng)
        x_0, eps, context, w, fps, frames, way = self.here(
            batch.x_0, eps, batch.context, w, batch.fps, batch.frame_indices, self.grid.way[index]
        )
        shared = {"fps": fps, "frame_indices": frames, "images": batch.images}
        start, end = way[:, 0], way[:, -1]
        signal, noise = levels_at(self.process, start, x_0)
        x_t = signal * x_0 + noise * eps
        row = embed(w, self.unet_config.time_cond_proj_dim)
        conditions = {"timestep_cond": row, **shared}
        student = self.clean(self.unet, x_t, start, context, conditions)
        with torch.no_grad():
            x = self.solve(x_t, way, context, w, shared)
            target = self.clean(self._target(), x, end, context, conditions)
        loss = pseudo_huber(student, target, config.huber_c)
        kind = "image" if batch.images else "clip"
        numbers = {kind: float(loss.detach())}
        return ConsistencyTerms(
            loss, student, start, context, batch.prompts, w, numbers, conditions
        )

    def clean(
        self, unet: VideoUNet, x_t: Tensor, t: Tensor, context: Tensor, conditions: dict[str, Any]
    ) -> Tensor:
        """The consistency function f = c_skip x_t + c_out x_0 (Song et al. 2023, equation 5)."""
        output = unet(x_t, t, context, **conditions)
        x_0, _ = predicted_x0_eps(self.process, output, x_t, t)
        config = self.config
        c_skip, c_out = boundary_scalings(t, config.sigma_data, config.timestep_scaling)
        shape = (-1, 1, 1, 1, 1)
        return c_skip.view(shape) * x_t + c_out.view(shape) * x_0

    def solve(
        self, x: Tensor, way: Tensor, context: Tensor, w: Tensor, conditions: dict[str, Any]
    ) -> Tensor:
        """The guided teacher's solution from ``way[:, 0]`` to ``way[:, -1]``, int64 [b, n]."""
        for t, lower in zip(way.T[:-1], way.T[1:], strict=True):
            output = self.teacher.predict(x, t, context, w, conditions)
            x = self.grid.ddim_to(*predicted_x0_eps(self.process, output, x, t), lower)
        return x

    def _target(self) -> VideoUNet:
        """The student, or its average, which moves here: once a micro-batch."""
        if self.target is None:
            return self.unet
        live = dict(self.unet.named_parameters())
        for name, average in self.target.named_parameters():
            average.lerp_(live[name].detach(), 1 - self.config.target_decay)
        return self.target

    def state(self) -> dict[str, Tensor]:
        """The averaged target, for a resume; empty without one."""
        return {} if self.target is None else dict(self.target.named_parameters())

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore ``state``."""
        with torch.no_grad():
            for name, average in self.state().items():
                average.copy_(tensors[name])

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``unet.safetensors`` from averaged weights."""
        save_averaged(folder / "unet.safetensors", self.unet, self.unet_config, weights, "unet")


def _train_only(unet: VideoUNet, patterns: Sequence[str]) -> None:
    """Freeze all but the matching parameters.

    Raises:
        UsageError: ``train.parameters`` for a pattern that matches nothing.
    """
    names = [name for name, _ in unet.named_parameters()]
    idle = [p for p in patterns if not any(fnmatch(name, p) for name in names)]
    if idle or not patterns:
        raise UsageError(
            "train.parameters",
            f"parameters to train, got patterns {list(patterns)} of which {idle} match nothing, "
            f"expected each to match some of {len(names)} names",
            hint="for instance 'time_cond_proj.*' or '*.attn2.*'",
        )
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(any(fnmatch(name, p) for p in patterns))
