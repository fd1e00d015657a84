"""Names of a published checkpoint to the parts of a model and the names of our modules.

``model.diffusion_model.*`` is the U-Net, ``first_stage_model.*`` the autoencoder and
``cond_stage_model.model.*`` the OpenCLIP text tower; our modules have the published names behind
these prefixes. What no network needs is dropped, counted by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

PARTS = ("unet", "vae", "text")

PREFIXES = {
    "unet": ("model.diffusion_model.", "diffusion_model."),
    "vae": ("first_stage_model.",),
    "text": ("cond_stage_model.model.",),
}

_WRAPPERS = ("_forward_module.", "module.")
"""In front of every name of a checkpoint that DeepSpeed or DistributedDataParallel wrote."""

_BARE = {
    "unet": {
        "time_embed", "fps_embedding", "time_cond_proj", "input_blocks", "init_attn",
        "middle_block", "output_blocks", "out", "frame_embedding", "text_embedding",
        "place_planes",
    },
    "vae": {"encoder", "decoder", "quant_conv", "post_quant_conv"},
    "text": {
        "transformer", "token_embedding", "positional_embedding", "ln_final", "text_projection",
        "logit_scale", "visual", "attn_mask",
    },
}  # fmt: skip
"""First words of names in files that hold one part without its prefix."""

_TABLES = (
    "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod "
    "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod "
    "posterior_variance posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2 "
    "scale_arr logvar lvlb_weights scale_factor"
)
SCHEDULE_TABLES = frozenset(_TABLES.split())

_DROPPED = (
    ("averaged copies", ("model_ema.", "ema.", "first_stage_model.model_ema.")),
    ("training losses", ("loss.", "first_stage_model.loss.")),
    ("image tower", ("cond_stage_model.model.visual.",)),
    ("attention masks", ("cond_stage_model.model.attn_mask",)),
)
"""Reason -> beginnings of names."""


@dataclass
class KeyMap:
    """Names of one checkpoint, sorted by part."""

    parts: dict[str, dict[str, str]] = field(default_factory=lambda: {p: {} for p in PARTS})
    """Part -> name in our module -> name in the file."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> number of tensors that no network needs."""
    unknown: list[str] = field(default_factory=list)
    """Names that belong to no part."""


def map_keys(names: Iterable[str], *, drop: Sequence[str] = ()) -> KeyMap:
    """Sort the names of a file by part.

    Args:
        names: every tensor of the file.
        drop: beginnings of names that the caller wants left out.
    """
    mapped = KeyMap()
    stripped = _unwrap(list(names))
    prefixed = any(name.startswith(p) for name in stripped for ps in PREFIXES.values() for p in ps)
    for name, original in stripped.items():
        full = name if prefixed else _with_prefix(name)
        reason = _reason(full, drop)
        if reason:
            mapped.dropped[reason] += 1
            continue
        for part, prefixes in PREFIXES.items():
            prefix = next((p for p in prefixes if full.startswith(p)), None)
            if prefix is not None:
                mapped.parts[part][full.removeprefix(prefix)] = original
                break
        else:
            mapped.unknown.append(name)
    return mapped


def _unwrap(names: list[str]) -> dict[str, str]:
    """Name without a trainer's wrapper -> name in the file."""
    for wrapper in _WRAPPERS:
        if names and all(name.startswith(wrapper) for name in names):
            return {name.removeprefix(wrapper): name for name in names}
    return {name: name for name in names}


def _with_prefix(name: str) -> str:
    first = name.partition(".")[0]
    part = next((part for part, words in _BARE.items() if first in words), None)
    return name if part is None else PREFIXES[part][0] + name


def _reason(name: str, drop: Sequence[str]) -> str:
    if name.startswith(tuple(drop)):
        return "left out as asked"
    if name in SCHEDULE_TABLES:
        return "schedule tables"
    return next((reason for reason, starts in _DROPPED if name.startswith(starts)), "")
