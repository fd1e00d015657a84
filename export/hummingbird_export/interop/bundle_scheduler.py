"""The bundle's sampler behind diffusers' scheduler interface, with the runtime's own solver steps.

Its ``config`` speaks diffusers' names, so ``DDIMScheduler.from_config(scheduler.config)`` gives
diffusers' solver for the same schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.sampler import ddim_step, lcm_step
from hummingbird_runtime.schedule import (
    SchedulerConfig,
    alphas_cumprod,
    rescale_factors,
    timesteps,
    to_x0_eps,
)


class BundleScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """LCM or DDIM as a bundle's ``scheduler_config.json`` says.

    The ``prev_sample`` of the last step is the result of the run, as in diffusers' own schedulers.

    Args:
        settings: the bundle's sampler.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, settings: SchedulerConfig) -> None:
        self._settings = settings
        self._alphas: list[float] = alphas_cumprod(settings).tolist()
        self._scales: list[float] = rescale_factors(settings).tolist()
        self._steps: list[int] = []
        self.timesteps = torch.zeros(0, dtype=torch.int64)
        """int64 [n]; filled by ``set_timesteps``."""
        self.register_to_config(**_diffusers_names(settings))

    def set_timesteps(self, num_inference_steps: int, device: Any = None) -> None:
        """Choose the timesteps of a run.

        Raises:
            InputError: ``request.steps`` for a number of steps that the schedule cannot give.
        """
        self._steps = timesteps(self._settings, num_inference_steps).tolist()
        self.timesteps = torch.tensor(self._steps, dtype=torch.int64, device=device)

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        """The sample itself: neither solver scales the network's input."""
        return sample

    def step(
        self,
        model_output: Any,
        timestep: Any,
        sample: Any,
        *,
        noise_fn: Callable[[int], Any] | None = None,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> Any:
        """One step of the solver.

        Args:
            model_output: network output, a tensor of the shape of ``sample``.
            timestep: one of ``timesteps``.
            sample: the step's input.
            noise_fn: i -> standard normal noise on leaving step i; asked only when it is used.
            generator: source of the noise without ``noise_fn``.
            return_dict: False gives a tuple.

        Returns:
            ``prev_sample`` and ``pred_original_sample``, the clean latent as it is seen now.

        Raises:
            UsageError: ``interop.timestep`` for a timestep that is not one of the run's.
        """
        t, settings = int(timestep), self._settings
        if t not in self._steps:
            raise UsageError(
                "interop.timestep",
                f"scheduler step at timestep {t}, expected one of {self._steps}",
                hint="call set_timesteps first and go through scheduler.timesteps",
            )
        i = self._steps.index(t)
        last = i + 1 == len(self._steps)
        t_next = 0 if last else self._steps[i + 1]

        def noise() -> Any:
            if noise_fn is not None:
                return noise_fn(i)
            return randn_tensor(
                sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
            )

        alpha_t, alpha_next = self._alphas[t], self._alphas[t_next]
        x_0, eps = to_x0_eps(model_output, sample, alpha_t, settings.prediction_type)
        x_next: Any
        denoised: Any
        if settings.sampler == "lcm":
            x_next, denoised = lcm_step(
                x_0, sample, t, alpha_next, None if last else noise(), settings
            )
        else:
            x_next, denoised = ddim_step(
                x_0,
                eps,
                alpha_t,
                alpha_next,
                eta=settings.eta,
                noise=noise() if settings.eta > 0.0 and not last else None,
                scale_t=self._scales[t],
                scale_next=self._scales[t_next],
            )
        output = DDIMSchedulerOutput(denoised if last else x_next, denoised)
        return output if return_dict else output.to_tuple()


def _diffusers_names(settings: SchedulerConfig) -> dict[str, Any]:
    """The settings in the words of diffusers' DDIM and LCM schedulers."""
    names: dict[str, Any] = {
        "num_train_timesteps": settings.num_train_timesteps,
        "beta_start": settings.beta_start,
        "beta_end": settings.beta_end,
        "beta_schedule": settings.beta_schedule,
        "prediction_type": settings.prediction_type,
        "rescale_betas_zero_snr": settings.rescale_betas_zero_snr,
        "timestep_spacing": "trailing" if settings.timestep_spacing == "trailing" else "leading",
        "steps_offset": int(settings.timestep_spacing == "leading+1"),
        "clip_sample": False,
        "set_alpha_to_one": True,  # the last step lands on the clean latent
    }
    if settings.sampler == "lcm":
        names["original_inference_steps"] = settings.original_inference_steps
        names["timestep_scaling"] = settings.timestep_scaling
    return names
