"""Writes golden.json: one file of vectors for Python, the C-API path and JavaScript.

python tests/data/generate_golden.py          needs NumPy and mpmath

Cases are read from the file and kept: Philox counters and keys, quantile positions m, and prompts
with the ids that open_clip gave. What follows from them is computed here: in whole numbers, with
60 digits, or step by step in float64, apart from the runtime's own arithmetic. Two things are the
runtime's: the bits of the quantiles and whole draws (a hash has no tolerance), and built-in tokens.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from pathlib import Path
from typing import Any

import mpmath
import numpy as np

from hummingbird_runtime import SchedulerConfig, builtin_bundle
from hummingbird_runtime.noise import noise
from hummingbird_runtime.normal import normal_quantile
from hummingbird_runtime.scheduler_config import DynamicRescale
from hummingbird_runtime.tokenizer import Tokenizer

GOLDEN = Path(__file__).with_name("golden.json")
ABOUT = (
    "Whole numbers above 2^53 are decimal text. Numbers with a point are float64 in their shortest "
    "form, or float32 widened: both are exact. noise.*.float64, first and last are C99 hexadecimal "
    "floats. sha256 of clips: float32 little-endian [1, C, F, h, w]; of alphas: float64 "
    "little-endian [num_train_timesteps]. trajectories: denoise(x, t) = x / 2 + t / 2000, rows of "
    "[1, C, F, h, w], exact to about 1e-15: float32 stays within 1e-5 of the largest value."
)
CONFIGS = {
    "hummingbird": SchedulerConfig(),
    "videocrafter2": SchedulerConfig(
        timestep_spacing="leading+1", sampler="ddim", eta=1.0, dynamic_rescale=DynamicRescale()
    ),
    "zero_snr": SchedulerConfig(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        sampler="ddim",
    ),
}
COUNTS = (1, 2, 3, 4, 5, 6, 8, 16, 50)
PLACES = (0, 1, 19, 159, 199, 279, 399, 400, 519, 639, 759, 879, 981, 998, 999)
SCALES = ((7.5, 256), (2.0, 16), (1.0, 8), (0.0, 6), (12.0, 256), (3.25, 32))
SMALL = (2, 4, 2, 2)  # frames, channels, height, width of the trajectories' latents
SEED, STEPS = 7, 4
WORLD_PROMPTS = (
    "a small red circle moving to the left on a black background",
    "A  LARGE\tBlue ring, on a grey background!",
    "a cat surfing on a red circle",
    "&amp;lt;red&amp;gt; it's 3 red circles",
    "ein kleiner roter Kreis, 小さな赤い円, маленький красный круг",
    "",
    "red " * 100,
)


def main() -> None:
    kept = json.loads(GOLDEN.read_text("utf-8"))
    text = json.dumps(golden(kept), ensure_ascii=True, indent=None, separators=(",", ":"))
    # one row a line, so that a change shows where it is
    GOLDEN.write_text(text.replace("},{", "},\n{").replace("],[", "],\n[") + "\n", "utf-8")


def golden(kept: dict[str, Any]) -> dict[str, Any]:
    """The whole document; ``kept`` gives the cases."""
    return {
        "about": ABOUT,
        "noise": {
            "philox": [{**row, "words": philox(row)} for row in kept["noise"]["philox"]],
            "quantiles": [quantile(row["m"]) for row in kept["noise"]["quantiles"]],
            "clips": [
                clip("7", 0, [26, 4, 40, 64]),
                clip(str(2**64 - 1), 8, [3, 4, 5, 6]),
                clip("0", 1, [26, 4, 8, 8]),
            ],
        },
        "tokens": {
            "clip": kept["tokens"]["clip"],
            "built_in": [built_in_tokens(prompt) for prompt in WORLD_PROMPTS],
        },
        "guidance_embeddings": [embedding(w, dim) for w, dim in SCALES],
        "schedules": [schedule(name, config) for name, config in CONFIGS.items()],
        "trajectories": [trajectory(name, config) for name, config in CONFIGS.items()],
    }


def philox(row: dict[str, Any]) -> list[str]:
    """Philox4x32-10 in whole numbers."""
    c = [int(word, 16) for word in row["counter"]]
    k = [int(word, 16) for word in row["key"]]
    for _ in range(10):
        a, b = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [b >> 32 ^ c[1] ^ k[0], b & 0xFFFFFFFF, a >> 32 ^ c[3] ^ k[1], a & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return [f"{word:08x}" for word in c]


def quantile(m: int) -> dict[str, Any]:
    with mpmath.workdps(60):
        p = (mpmath.mpf(m) + 0.5) / mpmath.mpf(2) ** 52
        exact = mpmath.nstr(mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1), 25)
    bits = float(normal_quantile(np.array([(m + 0.5) * 2.0**-52]))[0]).hex()
    return {"m": m, "float64": bits, "exact": exact}


def clip(seed: str, stream: int, sizes: list[int]) -> dict[str, Any]:
    values = noise(int(seed), stream, *sizes).astype("<f4").ravel()
    return {
        "seed": seed,
        "stream": stream,
        "frames_channels_height_width": sizes,
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        "first": [float(v).hex() for v in values[:4]],
        "last": [float(v).hex() for v in values[-4:]],
    }


def built_in_tokens(prompt: str) -> dict[str, Any]:
    tokens = Tokenizer.from_files(builtin_bundle() / "tokenizer").encode(prompt)
    return {
        "prompt": prompt,
        "ids": tokens.ids[0].tolist(),
        "truncated": tokens.truncated,
        "num_tokens": tokens.num_tokens,
        "unknown": list(tokens.unknown),
    }


def float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


def embedding(w: float, dim: int) -> dict[str, Any]:
    """Each product and quotient rounded to float32, as the definition says."""
    half = dim // 2
    rate = float32(float32(math.log(10000.0)) / (half - 1))
    waves = [float32(math.exp(float32(-rate * i))) for i in range(half)]
    angles = [float32(float32(float32(w) * 1000.0) * wave) for wave in waves]
    values = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return {"w": w, "dim": dim, "values": [float32(v) for v in values]}


def alphas(config: SchedulerConfig) -> list[float]:
    """Cumulative alphas in a fixed order of operations: spacing i * step + start, end exact."""
    total = config.num_train_timesteps
    start, stop = math.sqrt(config.beta_start), math.sqrt(config.beta_end)
    step = (stop - start) / (total - 1)
    roots = [i * step + start for i in range(total - 1)] + [stop]
    product, values = 1.0, []
    for root in roots:
        product *= 1.0 - root * root
        values.append(product)
    if not config.rescale_betas_zero_snr:
        return values
    signal = [math.sqrt(value) for value in values]
    factor = signal[0] / (signal[0] - signal[-1])
    return [((s - signal[-1]) * factor) ** 2 for s in signal]


def rescale(config: SchedulerConfig, t: int) -> float:
    if config.dynamic_rescale is None:
        return 1.0
    base, turning = config.dynamic_rescale.base, config.dynamic_rescale.turning_step
    return base if t >= turning - 1 else 1.0 + t * ((base - 1.0) / (turning - 1))


def timesteps(config: SchedulerConfig, n: int) -> list[int]:
    if config.timestep_spacing == "leading+1":
        return [i * (1000 // n) + 1 for i in reversed(range(n))]
    if config.timestep_spacing == "trailing":
        return [round(1000 - i * (1000 / n)) - 1 for i in range(n)]
    return [(50 - i * (50 // n)) * 20 - 1 for i in range(n)]


def boundary(config: SchedulerConfig, t: int) -> tuple[float, float]:
    scaled, variance = config.timestep_scaling * t, config.sigma_data**2
    return variance / (scaled**2 + variance), scaled / math.sqrt(scaled**2 + variance)


def schedule(name: str, config: SchedulerConfig) -> dict[str, Any]:
    values = alphas(config)
    return {
        "name": name,
        "config": config.to_json(),
        "timesteps": {str(n): timesteps(config, n) for n in COUNTS},
        "at": list(PLACES),
        "alphas_cumprod": [values[t] for t in PLACES],
        "alphas_cumprod_sha256": hashlib.sha256(struct.pack("<1000d", *values)).hexdigest(),
        "rescale_factors": [rescale(config, t) for t in PLACES],
        "boundary_scalings": [list(boundary(config, t)) for t in PLACES],
    }


def trajectory(name: str, config: SchedulerConfig) -> dict[str, Any]:
    """Four steps by hand on 32 numbers, in float64 from beginning to end."""
    a, steps = alphas(config), timesteps(config, STEPS)
    x = noise(SEED, 0, *SMALL).ravel().tolist()
    document: dict[str, Any] = {
        "name": name,
        "seed": str(SEED),
        "frames_channels_height_width": list(SMALL),
        "initial_noise": x,
        "steps": [],
    }
    for i, t in enumerate(steps):
        last = i + 1 == STEPS
        t_next = 0 if last else steps[i + 1]
        fresh = noise(SEED, 1 + i, *SMALL).ravel().tolist()
        pairs = [
            by_hand(value, z, t, t_next, a, config, last) for value, z in zip(x, fresh, strict=True)
        ]
        x, denoised = [p[0] for p in pairs], [p[1] for p in pairs]
        document["steps"].append(
            {"timestep": t, "next_timestep": t_next, "x_next": x, "denoised": denoised}
        )
    return document


def by_hand(
    x: float, z: float, t: int, t_next: int, a: list[float], config: SchedulerConfig, last: bool
) -> tuple[float, float]:
    """One number through one step: (x at the next timestep, denoised)."""
    output = x / 2 + t / 2000
    signal, spread = math.sqrt(a[t]), math.sqrt(1 - a[t])
    if config.prediction_type == "v_prediction":
        clean, eps = signal * x - spread * output, spread * x + signal * output
    else:
        clean, eps = (x - spread * output) / signal, output
    if config.sampler == "lcm":
        skip, out = boundary(config, t)
        clean = out * clean + skip * x
        mixed = math.sqrt(a[t_next]) * clean + math.sqrt(1 - a[t_next]) * z
        return (clean if last else mixed), clean
    sigma = config.eta * math.sqrt((1 - a[t_next]) / (1 - a[t]) * (1 - a[t] / a[t_next]))
    clean /= rescale(config, t)
    towards = math.sqrt(max(1 - a[t_next] - sigma**2, 0.0)) * eps + sigma * z
    return math.sqrt(a[t_next]) * rescale(config, t_next) * clean + towards, clean


if __name__ == "__main__":
    main()
