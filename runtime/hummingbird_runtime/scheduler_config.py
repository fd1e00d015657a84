"""The sampler's configuration: ``scheduler/scheduler_config.json`` as a checked, frozen dataclass.

The names are diffusers'; the defaults are Hummingbird's published 4-step sampler.
Refuses combinations that have no meaning (eps prediction at zero SNR) when it is built.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.strict_json import record

PredictionType = Literal["epsilon", "v_prediction"]
TimestepSpacing = Literal["lcm_origin", "trailing", "leading+1"]
Sampler = Literal["lcm", "ddim"]


@dataclass(frozen=True)
class DynamicRescale:
    """VideoCrafter2's ``use_scale``: x0 is divided by s_t, which falls from 1 to ``base``."""

    base: float = 0.7
    """Last value of s_t."""
    turning_step: int = 400
    """s_t = linspace(1, base, turning_step)[t] before this step, base from it on."""


@dataclass(frozen=True)
class SchedulerConfig:
    """``scheduler/scheduler_config.json`` under diffusers' names; defaults are Hummingbird's."""

    num_train_timesteps: int = 1000
    """Length of the training schedule."""
    beta_start: float = 0.00085
    """Beta of the first training step."""
    beta_end: float = 0.012
    """Beta of the last training step."""
    beta_schedule: Literal["scaled_linear"] = "scaled_linear"
    """``scaled_linear``: the square roots of the betas are equally spaced."""
    prediction_type: PredictionType = "epsilon"
    """What the network predicts."""
    rescale_betas_zero_snr: bool = False
    """Shift the schedule so that the last step carries no signal; needs v_prediction."""
    timestep_spacing: TimestepSpacing = "lcm_origin"
    """``lcm_origin`` 999,759,519,279; ``trailing`` starts at 999; ``leading+1`` 981,..,21,1."""
    original_inference_steps: int = 50
    """Length of the teacher's schedule from which lcm_origin picks."""
    sigma_data: float = 0.5
    """Boundary terms of the consistency function (LCM only)."""
    timestep_scaling: float = 10.0
    """The factor on t inside the boundary terms (LCM only)."""
    eta: float = 0.0
    """Share of fresh noise in a DDIM step, 0..1; LCM always takes fresh noise, keep 0 there."""
    sampler: Sampler = "lcm"
    """The solver."""
    dynamic_rescale: DynamicRescale | None = None
    """DDIM only; None switches it off."""

    def __post_init__(self) -> None:
        steps = self.num_train_timesteps
        for name, choices in _CHOICES.items():
            got = getattr(self, name)
            _check(got in choices, f"{name} {got!r}", f"one of {', '.join(choices)}")
        _check(2 <= steps <= 100_000, f"num_train_timesteps {steps}", "2..100000")
        _check(
            0.0 < self.beta_start <= self.beta_end < 1.0,
            f"beta_start {self.beta_start}, beta_end {self.beta_end}",
            "0 < beta_start <= beta_end < 1",
        )
        origin = self.original_inference_steps
        _check(1 <= origin <= steps, f"original_inference_steps {origin}", f"1..{steps}")
        _check(0.0 <= self.eta <= 1.0, f"eta {self.eta}", "0..1")
        positive = math.isfinite(self.sigma_data) and self.sigma_data > 0.0
        _check(positive, f"sigma_data {self.sigma_data}", "a positive number")
        positive = math.isfinite(self.timestep_scaling) and self.timestep_scaling > 0.0
        _check(positive, f"timestep_scaling {self.timestep_scaling}", "a positive number")
        zero_snr_eps = self.rescale_betas_zero_snr and self.prediction_type == "epsilon"
        _check(
            not zero_snr_eps,
            "prediction_type epsilon with rescale_betas_zero_snr",
            "v_prediction (at zero signal x0 cannot be recovered from eps)",
        )
        rescale = self.dynamic_rescale
        if self.sampler == "lcm":
            _check(self.eta == 0.0, f"eta {self.eta} with sampler lcm", "eta 0")
            _check(rescale is None, "dynamic_rescale with sampler lcm", "null (DDIM only)")
        if rescale is not None:
            _check(0.0 < rescale.base <= 1.0, f"dynamic_rescale.base {rescale.base}", "in (0, 1]")
            turning = rescale.turning_step
            _check(1 <= turning <= steps, f"dynamic_rescale.turning_step {turning}", f"1..{steps}")

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SchedulerConfig:
        """Read a parsed ``scheduler_config.json``; keys that start with ``_`` are notes.

        Raises:
            InputError: ``bundle.manifest_invalid`` for an unknown key or a wrong type,
                ``scheduler.invalid`` for a value out of range or a meaningless combination.
        """
        config = {key: value for key, value in data.items() if not key.startswith("_")}
        return record(cls, config, "scheduler_config.json")

    def to_json(self) -> dict[str, Any]:
        """The dictionary that ``from_json`` reads back to an equal config."""
        return asdict(self)


_CHOICES: dict[str, tuple[str, ...]] = {
    "beta_schedule": ("scaled_linear",),
    "prediction_type": get_args(PredictionType),
    "timestep_spacing": get_args(TimestepSpacing),
    "sampler": get_args(Sampler),
}


def _check(ok: bool, got: str, expected: str) -> None:
    if not ok:
        raise InputError(
            "scheduler.invalid",
            f"scheduler configuration, got {got}, expected {expected}",
            hint="export the bundle again or correct scheduler/scheduler_config.json",
        )
