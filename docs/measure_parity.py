"""Print how far models and samplers are from the published ones, on the stored reference vectors.

The vectors are random-weight runs of the published architectures at small widths, and trajectories
of the published samplers over a closed-form network. Every figure is a relative L2 error, the worst
over all compared arrays. Needs the extra `train`.

python docs/measure_parity.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file

from hummingbird_runtime.sampler import sample
from hummingbird_runtime.schedule import DynamicRescale, SchedulerConfig
from hummingbird_train.models.autoencoder import AutoencoderConfig, AutoencoderKL
from hummingbird_train.models.unet import UNetConfig, VideoUNet

TESTS = Path(__file__).resolve().parents[1] / "tests"
MODELS, SAMPLERS = TESTS / "train" / "models" / "data", TESTS / "runtime" / "data"

SMALL_UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2),
    attention_resolutions=(1, 2),
    num_head_channels=16,
    context_dim=48,
)
SMALL_VAE = AutoencoderConfig(channels=32, channel_mult=(1, 2), num_res_blocks=1)
UNETS = {
    "unet_hummingbird_07b_mini": dataclasses.replace(
        SMALL_UNET, num_res_blocks=1, middle_block=False, time_cond_proj_dim=256
    ),
    "unet_videocrafter2_mini": SMALL_UNET,
}
DDIM = SchedulerConfig(
    sampler="ddim", timestep_spacing="leading+1", dynamic_rescale=DynamicRescale()
)
LCM_RUNS = {f"steps{n}.": SchedulerConfig() for n in (1, 2, 4)}
DDIM_RUNS = {"steps5.eta0.0.": DDIM, "steps10.eta1.0.": dataclasses.replace(DDIM, eta=1.0)}


def relative(got: ArrayLike, expected: ArrayLike) -> float:
    """Relative L2 error."""
    a, b = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def load_vectors(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Float32 weights, then inputs and outputs, of one reference network."""
    weights = load_file(MODELS / f"{name}.weights.safetensors")
    io = load_file(MODELS / f"{name}.io.safetensors")
    return {key: tensor.float() for key, tensor in weights.items()}, io


@torch.no_grad()
def unet_error(name: str, config: UNetConfig) -> float:
    """One forward pass."""
    weights, io = load_vectors(name)
    model = VideoUNet(config).eval()
    model.load_state_dict(weights)
    output = model(
        io["sample"],
        io["timestep"],
        io["context"],
        timestep_cond=io.get("timestep_cond"),
        fps=io["fps"].reshape(-1),
    )
    return relative(output, io["output"])


@torch.no_grad()
def vae_error() -> float:
    """Encoder and decoder."""
    weights, io = load_vectors("vae_mini")
    model = AutoencoderKL(SMALL_VAE).eval()
    model.load_state_dict(weights)
    mean, logvar = model.encode(io["pixels"])
    got = (mean, logvar, model.decode(io["latent"]))
    names = ("moments_mean", "moments_logvar", "decoded")
    return max(relative(a, io[name]) for a, name in zip(got, names, strict=True))


def sampler_errors(file: str, runs: dict[str, SchedulerConfig], clean: str) -> Iterator[float]:
    """Every step of every stored run; ``clean`` names the array of clean latents."""
    arrays = {key: tensor.numpy() for key, tensor in load_file(SAMPLERS / file).items()}
    for prefix, config in runs.items():
        expected = arrays[prefix + clean]
        start, fresh = arrays[prefix + "initial_noise"], arrays[prefix + "step_noise"]
        states = list(sample(network, start, config, len(expected), fresh.__getitem__))
        assert [s.timestep for s in states] == arrays[prefix + "timesteps"].tolist()
        yield from (relative(s.denoised, x) for s, x in zip(states, expected, strict=True))


def network(x: np.ndarray, t: int) -> np.ndarray:
    """The closed-form network of the stored trajectories."""
    return (0.6 * x + 0.3 * np.sin(3 * x + t / 100)).astype(np.float32)


def main() -> None:
    """Print one line per figure."""
    figures = {name: unet_error(name, config) for name, config in UNETS.items()}
    figures["vae_mini"] = vae_error()
    figures["lcm"] = max(sampler_errors("lcm_scheduler.safetensors", LCM_RUNS, "denoised"))
    figures["ddim"] = max(sampler_errors("ddim_scheduler.safetensors", DDIM_RUNS, "pred_x0"))
    for name, error in figures.items():
        print(f"{name:28}{error:.1e}")


if __name__ == "__main__":
    main()
