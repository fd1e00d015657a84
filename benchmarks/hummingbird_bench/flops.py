"""Work of the networks counted from their configurations: FLOPs of matrix products, in closed form.

A multiply-add is two. Counted are convolutions, linear layers and both products of attention, as
torch's flop counter does; norms, activations and resampling are not. The configurations are the
``config.json`` files that a bundle carries beside its graphs, so nothing is opened or imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hummingbird_runtime.errors import InputError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class ClipWork:
    """FLOPs of one clip by network."""

    text: int
    """Of one prompt."""
    texts: int
    """Prompts read: two with classifier-free guidance."""
    unet_pass: int
    """Of one evaluation of the U-Net."""
    passes: int
    """Evaluations of the U-Net."""
    decoded_frame: int
    """Of one frame through the decoder."""
    frames: int

    @property
    def total(self) -> int:
        """Of the whole clip."""
        return (
            self.text * self.texts + self.unet_pass * self.passes + self.decoded_frame * self.frames
        )

    def to_json(self) -> dict[str, int]:
        """The figures and their total, whole numbers."""
        return {
            "text": self.text,
            "texts": self.texts,
            "unet_pass": self.unet_pass,
            "passes": self.passes,
            "decoded_frame": self.decoded_frame,
            "frames": self.frames,
            "total": self.total,
        }


def unet_flops(
    config: Config,
    *,
    frames: int,
    height: int,
    width: int,
    tokens: int = 77,
    copied_context: bool = False,
) -> int:
    """FLOPs of one evaluation of a video U-Net.

    Args:
        config: the fields of ``UNetConfig`` as in a bundle's ``unet/config.json``.
        frames: latent frames.
        height: latent rows, a multiple of 2 ** (levels - 1).
        width: latent columns, likewise.
        tokens: length of the prompt.
        copied_context: the original's form, in which the prompt and the time embedding are copied
            once per frame before they are projected. It gives the published 20.46, 13.31 and
            12.95 TFLOP at 26 x 40 x 64; projecting them once saves 0.5 % of it.

    Raises:
        InputError: ``bench.model_config`` for a configuration without a known key.
    """
    count = _UNetCount(config, frames, tokens, copied_context)
    return count.total(height, width)


PLACE_HIDDEN = 128
"""Width of the layers between a prompt and the object's place."""


class _UNetCount:
    """The walk of ``VideoUNet.__init__`` with products in the place of layers."""

    def __init__(self, config: Config, frames: int, tokens: int, copied: bool) -> None:
        self.frames, self.tokens = frames, tokens
        self.copies = frames if copied else 1
        self.channels = _whole(config, "model_channels")
        self.mult = _wholes(config, "channel_mult")
        self.blocks = _whole(config, "num_res_blocks")
        self.attention = _wholes(config, "attention_resolutions")
        self.middle = bool(_field(config, "middle_block"))
        self.inner = _whole(config, "init_attn_heads") * _whole(config, "num_head_channels")
        self.context = _whole(config, "context_dim")
        self.ends = _whole(config, "in_channels"), _whole(config, "out_channels")
        self.guidance = config.get("time_cond_proj_dim") or 0
        # Models that tell frames apart have one time embedding per frame.
        self.per_frame = bool(config.get("frame_embedding"))
        self.embeddings = {
            name: bool(config.get(name))
            for name in ("frame_embedding", "pooled_text_embedding", "place_planes")
        }
        self.emb_rows = frames if self.per_frame or copied else 1

    def total(self, height: int, width: int) -> int:
        """FLOPs of one evaluation."""
        top, first = len(self.mult) - 1, self.channels
        cells = height * width
        work = self._embedding() + self._conv(cells, self.ends[0], first, 9)
        if self.embeddings["place_planes"]:
            work += self._places(cells)
        work += self._temporal(cells, first, self.inner)
        skips = [first]
        for level, mult in enumerate(self.mult):
            here = cells >> (2 * level)
            for _ in range(self.blocks):
                work += self._stage(here, skips[-1], mult * first, level)
                skips.append(mult * first)
            if level < top:
                work += self._conv(here >> 2, skips[-1], skips[-1], 9)
                skips.append(skips[-1])
        channels = skips[-1]
        if self.middle:
            lowest = cells >> (2 * top)
            work += 2 * self._residual(lowest, channels, channels)
            work += self._transformers(lowest, channels)
        for level in range(top, -1, -1):
            here = cells >> (2 * level)
            for i in range(self.blocks + 1):
                joined = channels + skips.pop()
                channels = self.mult[level] * first
                work += self._stage(here, joined, channels, level)
                if level and i == self.blocks:
                    work += self._conv(here << 2, channels, channels, 9)
        return work + self._conv(cells, first, self.ends[1], 9)

    def _embedding(self) -> int:
        narrow, wide = self.channels, 4 * self.channels
        mlp = _linear(1, narrow, wide) + _linear(1, wide, wide)
        work = 2 * mlp + _linear(1, self.guidance, narrow)
        if self.embeddings["frame_embedding"]:
            work += self.frames * mlp
        if self.embeddings["pooled_text_embedding"]:
            work += _linear(1, self.context, wide) + _linear(1, wide, wide)
        return work

    def _places(self, cells: int) -> int:
        """Planes over height and width, three coordinates, see ``place_planes``."""
        hidden, axes = PLACE_HIDDEN, 3
        work = _linear(self.tokens, self.context, hidden) + _linear(1, hidden, 2 * axes)
        work += _linear(self.frames, axes, hidden)
        work += _linear(self.frames, hidden, self.channels * axes)
        return work + _linear(self.frames * self.channels, axes, cells)

    def _stage(self, cells: int, channels_in: int, channels: int, level: int) -> int:
        work = self._residual(cells, channels_in, channels)
        if 2**level in self.attention:
            work += self._transformers(cells, channels)
        return work

    def _residual(self, cells: int, channels_in: int, channels: int) -> int:
        work = self._conv(cells, channels_in, channels, 9)
        work += self._conv(cells, channels, channels, 9)
        work += _linear(self.emb_rows, 4 * self.channels, channels)
        if channels_in != channels:
            work += self._conv(cells, channels_in, channels, 1)
        return work + 4 * self._conv(cells, channels, channels, 3)

    def _transformers(self, cells: int, channels: int) -> int:
        return self._spatial(cells, channels) + self._temporal(cells, channels, channels)

    def _spatial(self, cells: int, channels: int) -> int:
        rows = self.frames * cells
        work = 2 * _linear(rows, channels, channels)
        work += 4 * _linear(rows, channels, channels)
        work += self.frames * _attention(cells, cells, channels)
        work += 2 * _linear(rows, channels, channels)  # queries and output of the prompt's part
        work += 2 * _linear(self.copies * self.tokens, self.context, channels)
        work += self.frames * _attention(cells, self.tokens, channels)
        return work + _feed_forward(rows, channels)

    def _temporal(self, cells: int, channels: int, inner: int) -> int:
        rows = self.frames * cells
        work = _linear(rows, channels, inner) + _linear(rows, inner, channels)
        each = 4 * _linear(rows, inner, inner) + cells * _attention(self.frames, self.frames, inner)
        return work + 2 * each + _feed_forward(rows, inner)

    def _conv(self, cells: int, channels_in: int, channels: int, taps: int) -> int:
        return _linear(self.frames * cells, channels_in * taps, channels)


def decoder_flops(config: Config, *, height: int, width: int) -> int:
    """FLOPs of one frame through a decoder.

    Args:
        config: a bundle's ``vae_decoder/config.json`` or ``vae_decoder_tiny/config.json``.
        height: latent rows.
        width: latent columns.

    Raises:
        InputError: ``bench.model_config``.
    """
    cells, latent = height * width, _whole(config, "latent_channels")
    if "blocks" in config:
        return _tiny_decoder(config, cells, latent)
    colours = _whole(config, "in_channels")
    if config.get("stem") == "pixel_shuffle":
        width_of = _whole(config, "decoder_channels")
        blocks = _whole(config, "decoder_res_blocks")
        patch = _whole(config, "stem_patch")
        work = _linear(cells, latent * 9, width_of)
        work += blocks * 2 * _linear(cells, width_of * 9, width_of)
        return work + _linear(cells, width_of * 9, colours * patch**2)
    base, blocks = _whole(config, "channels"), _whole(config, "num_res_blocks") + 1
    widths = [base * mult for mult in _wholes(config, "channel_mult")]
    top = widths[-1]
    work = _linear(cells, latent, latent) + _linear(cells, latent * 9, top)
    work += 2 * _resnet(cells, top, top) + 4 * _linear(cells, top, top)
    work += _attention(cells, cells, top)
    channels = top
    for level in range(len(widths) - 1, -1, -1):
        for _ in range(blocks):
            work += _resnet(cells, channels, widths[level])
            channels = widths[level]
        if level:
            cells <<= 2
            work += _linear(cells, channels * 9, channels)
    return work + _linear(cells, channels * 9, colours)


def _tiny_decoder(config: Config, cells: int, latent: int) -> int:
    widths, blocks = _wholes(config, "channels"), _wholes(config, "blocks")
    taps = int(config.get("head_kernel", 3)) ** 2
    pixels = int(config.get("patch", 1)) ** 2
    work = _linear(cells, latent * 9, widths[0])
    for level, (channels, count) in enumerate(zip(widths, blocks, strict=True)):
        if level:
            cells <<= 2
            work += _linear(cells, widths[level - 1] * 9, channels)
        work += count * 2 * _linear(cells, channels * 9, channels)
    return work + _linear(cells, widths[-1] * taps, _whole(config, "out_channels") * pixels)


def text_flops(config: Config) -> int:
    """FLOPs of one prompt through a text encoder, read at its penultimate layer.

    Args:
        config: a bundle's ``text_encoder/config.json``.

    Raises:
        InputError: ``bench.model_config``.
    """
    tokens, width = _whole(config, "max_length"), _whole(config, "width")
    layer = 12 * _linear(tokens, width, width) + _attention(tokens, tokens, width)
    return (_whole(config, "layers") - 1) * layer


def _linear(rows: int, channels_in: int, channels: int) -> int:
    return 2 * rows * channels_in * channels


def _attention(queries: int, keys: int, channels: int) -> int:
    """Scores and their product with the values, all heads together."""
    return 4 * queries * keys * channels


def _feed_forward(rows: int, channels: int) -> int:
    return _linear(rows, channels, 8 * channels) + _linear(rows, 4 * channels, channels)


def _resnet(cells: int, channels_in: int, channels: int) -> int:
    work = _linear(cells, 9 * channels_in, channels) + _linear(cells, 9 * channels, channels)
    return work + (_linear(cells, channels_in, channels) if channels_in != channels else 0)


def _field(config: Config, name: str) -> Any:
    if name not in config:
        raise InputError(
            "bench.model_config",
            f"configuration of a network: got no {name!r}, expected the fields of its class",
            hint="use a bundle that `hummingbird export` wrote",
        )
    return config[name]


def _whole(config: Config, name: str) -> int:
    value = _field(config, name)
    if type(value) is not int or value < 1:
        raise InputError(
            "bench.model_config",
            f"configuration of a network: got {name} = {value!r:.40}, expected a number above 0",
            hint="use a bundle that `hummingbird export` wrote",
        )
    return value


def _wholes(config: Config, name: str) -> tuple[int, ...]:
    values = _field(config, name)
    if not isinstance(values, list | tuple) or not values:
        raise InputError(
            "bench.model_config",
            f"configuration of a network: got {name} = {values!r:.40}, expected a list of numbers",
            hint="use a bundle that `hummingbird export` wrote",
        )
    return tuple(int(value) for value in values)
