"""Memory of one graph: what its weights take while it is open, and what one run takes besides.

Runs are counted in tensors alive at the worst moment, from the network's shape: the count follows
the graphs that the exporter writes, its constants are fitted to measurements (docs/memory.md gives
both). Whole processes and stages are in planner.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.network_shapes import (
    DecoderShape,
    UNetShape,
    decoder_shape,
    graph_bytes,
    unet_shape,
)
from hummingbird_runtime.session_settings import SessionSettings

FLOAT = 4

FEED_FORWARD = 15.2
"""Tensors of a transformer's width alive in its feed-forward: three of 4 widths, input, norm."""
TEMPORAL_OUTER = 3.3
"""Of a level's width around a temporal transformer: input, clip, norm, output."""
TEMPORAL_CONV = 5
"""Of a level's width around four convolutions over time."""
QUANTIZED = 1.06
"""Factor on runs of graphs in 8 bits: ranges are applied to copies."""
NODES = 10
"""Bytes that an open session takes for one byte of graph, weights not counted."""
SESSION = 2_000_000
"""Bytes of any open session."""

DECODER_INPUTS = {"normed": 5.0, "plain": 4.0, "patch": 3.0}
"""Tensors of a level's input alive in a decoder, by its kind of block, beside one output."""

LARGEST_PIECE = {
    "cpu": 90_000_000,
    "cpu-lowmem": 26_000_000,
    "android-cpu": 26_000_000,
    "igpu-webgpu": 2**29,
    "igpu-directml": 2**29,
    "igpu-openvino": 2**29,
    "igpu-migraphx": 2**29,
    "android-qnn": 2**29,
    "ios-coreml": 2**29,
    "web": 2**27,
}
"""Bytes of the largest activation inside a U-Net block for the usual clip, by target: what the
exporter cuts it for. Others, such as ``portable``, are not cut."""
FUSED = ("cpu", "cpu-lowmem", "android-cpu")
"""Targets whose spatial attention never holds the scores of all pairs of cells."""


@dataclass(frozen=True)
class Latent:
    """Size of a latent clip."""

    frames: int
    rows: int
    columns: int

    def cells(self, level: int) -> int:
        """Cells of a frame at a level, each half the last along both sides."""
        return max(1, self.rows >> level) * max(1, self.columns >> level)


def weights(bundle: Bundle, role: str, settings: SessionSettings) -> tuple[int, int]:
    """(while it is opened, once it is open): bytes of a graph's weights and nodes."""
    graph, beside = graph_bytes(bundle, role)
    entry = bundle.graph(role)
    prepacked = settings.prepacking is not False
    if beside:
        copies = 1.17 if prepacked and entry.precision in ("int8", "int8-dynamic", "mixed") else 1.0
        if entry.precision.endswith("-storage") and prepacked:
            # read back to float32 by constant folding
            copies = 2.0 if entry.precision == "fp16-storage" else 4.0
        opened = copies * beside + NODES * graph
        return round(opened) + SESSION, round(opened) + SESSION
    opening, opened = {
        "fp32": (2.0, 1.3), "fp16-storage": (4.0, 4.0), "int8-storage": (7.0, 7.0)
    }.get(entry.precision, (2.3, 1.5))  # fmt: skip
    return round(opening * graph) + SESSION, round(opened * graph) + SESSION


def run_bytes(bundle: Bundle, role: str, latent: Latent, frames: int) -> int:
    """Bytes that one run of a graph takes at its worst moment, given back or kept for the next.

    Args:
        bundle: gives the network's shape.
        role: of the graph.
        latent: size of the clip; for the upscaler that of the decoded frames, in pixels.
        frames: run at once, by a decoder or the upscaler.
    """
    if role == "text_encoder":
        return 16 * 77 * 1024 * FLOAT if sum(graph_bytes(bundle, role)) > 1 << 27 else 1 << 20
    entry = bundle.graph(role)
    if role == "unet":
        floats = unet_floats(unet_shape(bundle), bundle, latent)
    else:
        floats = decoder_floats(decoder_shape(bundle, role), latent, frames)
    factor = QUANTIZED if entry.precision in ("int8", "int8-dynamic", "mixed") else 1.0
    return round(FLOAT * factor * floats)


def unet_floats(shape: UNetShape, bundle: Bundle, latent: Latent) -> float:
    """Floats alive at the worst moment of a pass, skip connections included."""
    target = bundle.manifest.target
    piece, fused = LARGEST_PIECE.get(target), target in FUSED
    facts = bundle.manifest.model
    usual = Latent(
        facts.frames.default,
        facts.height.default // facts.vae_scale_factor,
        facts.width.default // facts.vae_scale_factor,
    )
    levels = range(len(shape.channel_mult))
    widths = [shape.model_channels * mult for mult in shape.channel_mult]
    volumes = [latent.frames * latent.cells(level) for level in levels]

    def scores(level: int, size: Latent) -> float:
        """Of all pairs of a frame's cells."""
        heads = max(1, widths[level] // shape.num_head_channels)
        attends = 2**level in shape.attention_resolutions
        return 0.0 if fused or not attends else size.frames * heads * size.cells(level) ** 2

    def pieces(level: int, *, by_cells: bool = False) -> int:
        if piece is None:
            return 1
        widest = 4.0 * widths[level] * usual.frames * usual.cells(level)
        if not by_cells:
            widest = max(widest, scores(level, usual))
        return min(usual.frames, max(1, -(-round(FLOAT * widest) // piece)))

    def temporal(level: int, inner: int) -> float:
        count = pieces(level, by_cells=True)
        count = -(-count * inner // widths[level]) if count > 1 else 1
        return volumes[level] * (TEMPORAL_OUTER * widths[level] + FEED_FORWARD * inner / count)

    def spatial(level: int) -> float:
        count, volume, width = pieces(level), volumes[level], widths[level]
        products = 7.0 * width * volume + 2 * scores(level, latent)
        inner = max(FEED_FORWARD * width * volume, products) / count
        return 2 * width * volume + (width * volume if count > 1 else 0) + inner

    def residual(level: int, joined: int) -> float:
        count, volume, width = pieces(level), volumes[level], widths[level]
        inner = (2 * joined + 3 * width) / count
        once = joined + inner + (width if count > 1 else 0)
        return volume * max(once, TEMPORAL_CONV * width)

    def block(level: int, joined: int) -> float:
        worst = residual(level, joined)
        if 2**level in shape.attention_resolutions:
            worst = max(worst, spatial(level), temporal(level, widths[level]))
        return worst

    worst = temporal(0, shape.init_attn_heads * shape.num_head_channels)
    skips = [float(widths[0] * volumes[0])]
    sources = [widths[0]]
    for level in levels:
        for _ in range(shape.num_res_blocks):
            worst = max(worst, sum(skips) + block(level, sources[-1]))
            skips.append(float(widths[level] * volumes[level]))
            sources.append(widths[level])
        if level + 1 < len(widths):
            skips.append(float(widths[level] * volumes[level + 1]))
            sources.append(widths[level])
    below = widths[-1]
    for level in reversed(levels):
        for _ in range(shape.num_res_blocks + 1):
            joined = below + sources.pop()
            skips.pop()
            worst = max(worst, sum(skips) + block(level, joined))
            below = widths[level]
    return worst


def decoder_floats(shape: DecoderShape, latent: Latent, frames: int) -> float:
    """Floats alive at the worst moment of ``frames`` frames."""
    inputs = DECODER_INPUTS[shape.blocks]
    worst, before = 0.0, shape.widths[0]
    for level, width in enumerate(shape.widths):
        cells = (latent.rows << level) * (latent.columns << level)
        worst = max(worst, cells * (inputs * before + width))
        before = width
    pixels = 3 * shape.patch**2
    worst = max(worst, cells * (before + 3 * pixels))
    if shape.attention:
        worst = max(worst, 2.0 * latent.cells(0) ** 2 + 6.0 * shape.widths[0] * latent.cells(0))
    return frames * worst
