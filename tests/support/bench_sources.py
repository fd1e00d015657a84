"""Bundles as a benchmark's plan sees them, without any files."""

from __future__ import annotations

import dataclasses

from hummingbird_bench.bundle_source import Source

PUBLISHED_UNET = {
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": 1,
    "attention_resolutions": [1, 2, 4],
    "middle_block": False,
    "num_head_channels": 64,
    "init_attn_heads": 8,
    "context_dim": 1024,
    "time_cond_proj_dim": 256,
}
FULL_DECODER = {
    "in_channels": 3,
    "latent_channels": 4,
    "channels": 128,
    "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
}
TINY_DECODER = {
    "latent_channels": 4,
    "out_channels": 3,
    "channels": [128, 96, 64, 32],
    "blocks": [4, 4, 3, 2],
}


def source(**changes) -> Source:
    """The 0.7 B model in int8 with both decoders, at its published size."""
    values = {
        "path": "/bundles/ours",
        "precision": "int8",
        "decoders": ("full", "tiny"),
        "guidance": 7.5,
        "passes_per_step": 1,
        "steps": 4,
        "sampler": "lcm",
        "eta": 0.0,
        "random": True,
        "size_bytes": 1_200_000_000,
        "unet": PUBLISHED_UNET,
        "text": {"max_length": 77, "width": 1024, "layers": 24},
        "decoder": {"full": FULL_DECODER, "tiny": TINY_DECODER},
        "cell": 8,
        "sizes": (320, 512),
    }
    return Source(**{**values, **changes})


def opponent(**changes) -> Source:
    """VideoCrafter2 by our own exporter, in int8."""
    own = source(**{"path": "/bundles/vc2", "size_bytes": 2_200_000_000, **changes})
    unet = {**PUBLISHED_UNET, "num_res_blocks": 2, "middle_block": True}
    return dataclasses.replace(
        own, passes_per_step=2, steps=50, sampler="ddim", eta=1.0, guidance=12.0, unet=unet
    )
