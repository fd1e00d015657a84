"""Preference learning from rewards that give no gradient: best-of-n pairs and Diffusion-DPO.

Wallace et al. 2023 (arXiv:2311.12908), equation 14: the student's denoising error on the winner is
to fall, against a frozen reference, by more than on the loser. Scores may come from anything, such
as the exact judge.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.autoencoder import save_averaged
from hummingbird_train.base import embedded_guidance, torch_generator
from hummingbird_train.devices import Placed
from hummingbird_train.diffusion import ForwardProcess, stratified_timesteps
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.recipe import Phase

Weighting = Literal["eps", "native"]


@dataclass(frozen=True)
class DpoConfig:
    """Strength and measure of the preference loss."""

    beta: float = 2000.0
    """beta T omega of equation 14, over errors that are means, not sums, of squares."""
    weighting: Weighting = "native"
    """``eps``: errors of the noise, as in the paper; a v-prediction is turned into noise, which
    weighs its error by alpha-bar. ``native``: errors of what the network predicts."""
    w: float = 1.0
    """Guidance scale given to a network that embeds one."""
    fps: int = 8
    """Condition."""


def denoising_error(
    output: Tensor, x_0: Tensor, eps: Tensor, t: Tensor, process: ForwardProcess, how: Weighting
) -> Tensor:
    """Mean squared error per sample [b] of a network's output at int64 t [b].

    eps = s x_t + a v, so an error of the noise is a times the error of v.
    """
    error = (output.float() - process.target(x_0, eps, t)).square().flatten(1).mean(dim=1)
    if how == "eps" and process.prediction_type == "v_prediction":
        error = error * process.signal[t].square()
    return error


def dpo_loss(
    winner: Tensor, winner_reference: Tensor, loser: Tensor, loser_reference: Tensor, beta: float
) -> Tensor:
    """Equation 14: mean of -log sigmoid(-beta ((e_w - e_w_ref) - (e_l - e_l_ref))), a scalar.

    Args:
        winner: [b] errors of the student on the preferred clips.
        winner_reference: [b] of the frozen reference, same noise and timestep.
        loser: [b] of the student on the others.
        loser_reference: [b] of the reference.
        beta: beta T omega; at equal errors the loss is ln 2 whatever it is.
    """
    gap = (winner - winner_reference) - (loser - loser_reference)
    return -F.logsigmoid(-beta * gap).mean()


def best_of_n(scores: NDArray[np.floating], margin: float = 0.0) -> NDArray[np.int64]:
    """Best and worst of each prompt's clips, where they differ by more than ``margin``.

    Args:
        scores: [p, n], higher is better; NaN counts as the worst.
        margin: in the scores' unit.

    Returns:
        int64 [k, 3]: prompt, winner, loser. Of equal scores the first counts.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    best, worst = known.argmax(axis=1), known.argmin(axis=1)
    row = np.arange(len(known))
    high, low = known[row, best], known[row, worst]
    with np.errstate(invalid="ignore"):  # -inf less -inf, where nothing could be scored
        chosen = np.flatnonzero((high > low) & (high - low > margin))
    return np.stack([chosen, best[chosen], worst[chosen]], axis=1).astype(np.int64)


@dataclass(frozen=True)
class Pairs:
    """Preferred and other clips of the same prompts."""

    winners: Tensor
    """Scaled latents float [k, c, f, h, w]."""
    losers: Tensor
    prompts: tuple[str, ...]
    """k sentences."""


def make_pairs(
    make: Callable[[Sequence[str], Sequence[int]], tuple[Tensor, Tensor]],
    score: Callable[[Tensor, Sequence[str]], NDArray[np.floating]],
    prompts: Sequence[str],
    *,
    n: int,
    margin: float = 0.0,
) -> Pairs:
    """Draw n clips of each prompt, score them, keep best and worst.

    Args:
        make: as in ``guard.Make``.
        score: frames (n, f, 3, H, W) in [0, 1] and their prompts -> [n], any way at all.
        prompts: p sentences.
        n: clips per prompt, at least 2.
        margin: least difference of scores that makes a pair.

    Raises:
        InputError: ``feedback.no_pairs`` when no prompt has clips that differ in score.
    """
    winners, losers, kept = [], [], []
    for number, prompt in enumerate(prompts):
        latents, frames = make([prompt] * n, [1000 * number + s for s in range(n)])
        scores = np.asarray(score(frames, [prompt] * n), np.float64)[None]
        for _, best, worst in best_of_n(scores, margin):
            winners.append(latents[best].cpu())
            losers.append(latents[worst].cpu())
            kept.append(prompt)
    if not kept:
        raise InputError(
            "feedback.no_pairs",
            f"preference pairs, got none from {len(prompts)} prompts with {n} clips each, expected "
            f"scores that differ by more than {margin:g}",
            hint="draw more clips per prompt, or lower the margin",
        )
    return Pairs(torch.stack(winners), torch.stack(losers), tuple(kept))


class DpoObjective(Placed):
    """The preference loss on stored pairs.

    Args:
        unet: the student; a frozen copy of it is the reference.
        unet_config: its shape.
        contexts: prompts -> (b, l, d), frozen.
        pairs: from ``make_pairs``.
        process: noise schedule.
        config: strength.
        stride: world frames between two frames of the pairs' clips.
    """

    def __init__(
        self,
        unet: VideoUNet,
        unet_config: UNetConfig,
        contexts: Callable[[Sequence[str]], Tensor],
        pairs: Pairs,
        process: ForwardProcess,
        config: DpoConfig,
        *,
        stride: int = 1,
    ) -> None:
        if not config.beta > 0 or config.weighting not in ("eps", "native"):
            raise UsageError(
                "feedback.config",
                f"preference loss, got {config}, expected beta above 0 and weighting eps or native",
                hint="correct the recipe",
            )
        self.unet, self.unet_config = unet, unet_config
        self.reference = copy.deepcopy(unet).requires_grad_(False).eval()
        self.modules = {"unet": unet}
        self.contexts, self.pairs, self.process = contexts, pairs, process
        self.config, self.stride = config, stride

    def loss(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        """Loss of ``phase.batch`` pairs: winner and loser share noise and timestep."""
        rows = torch.from_numpy(rng.integers(len(self.pairs.prompts), size=phase.batch))
        t = stratified_timesteps(rng, phase.batch)
        eps = torch.randn(
            (phase.batch, *self.pairs.winners.shape[1:]), generator=torch_generator(rng)
        )
        x_0 = torch.cat([self.pairs.winners[rows], self.pairs.losers[rows]])
        eps, t = eps.repeat(2, 1, 1, 1, 1), t.repeat(2)
        x_t = self.process.noised(x_0, eps, t)
        with torch.no_grad():
            context = self.contexts([self.pairs.prompts[i] for i in rows.tolist()])
        width, count = self.unet_config.time_cond_proj_dim, len(t)
        w = None
        if width is not None:
            w = embedded_guidance(np.full(1, self.config.w), width).expand(count, -1)
        conditions = {
            "timestep_cond": w,
            "fps": torch.full((count,), max(1, self.config.fps // self.stride)),
            "frame_indices": torch.arange(x_0.shape[2]) * self.stride,
        }
        context = torch.cat([context, context])
        student = self._errors(self.unet, x_t, t, context, x_0, eps, conditions)
        with torch.no_grad():
            reference = self._errors(self.reference, x_t, t, context, x_0, eps, conditions)
        (won, lost), (won_ref, lost_ref) = student.chunk(2), reference.chunk(2)
        loss = dpo_loss(won, won_ref, lost, lost_ref, self.config.beta)
        margin = ((lost - lost_ref) - (won - won_ref)).detach()
        return loss, {"margin": float(margin.mean()), "right": float((margin > 0).float().mean())}

    def _errors(
        self,
        unet: VideoUNet,
        x_t: Tensor,
        t: Tensor,
        context: Tensor,
        x_0: Tensor,
        eps: Tensor,
        conditions: Mapping[str, Tensor | None],
    ) -> Tensor:
        moved = {n: None if v is None else v.to(self.device) for n, v in conditions.items()}
        inputs = self.here(x_t, t, context)
        output = unet(*inputs, **moved).to(x_0.device)
        return denoising_error(output, x_0, eps, t, self.process, self.config.weighting)

    def save(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write ``unet.safetensors`` from averaged weights."""
        save_averaged(folder / "unet.safetensors", self.unet, self.unet_config, weights, "unet")
