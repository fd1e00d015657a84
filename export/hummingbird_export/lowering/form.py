"""The form in which a U-Net is written: what a target's runtime is good at, as data.

Every form computes the same function. ``PORTABLE`` uses standard operators only. ``CPU`` uses ONNX
Runtime's fused operators and works through frames and cells in chunks, so that no activation is
large: memory traffic, not arithmetic, was what a plain graph spent its time on.
"""

from __future__ import annotations

from dataclasses import dataclass

from hummingbird_train.models.unet import UNetConfig


@dataclass(frozen=True)
class Form:
    """How a U-Net's graph is written."""

    fused: bool = False
    """Operators of ``com.microsoft``: flash attention, GELU, SiLU, scaled products."""
    frame_chunks: tuple[int, ...] = ()
    """Pieces of a clip's frames at each level, finest first, for what works on single frames:
    convolutions and spatial transformers. Missing levels are not cut. Counts, not sizes: equal
    names at every clip size, so that ranges calibrated on a small clip hold for a large one."""
    cell_chunks: tuple[int, ...] = ()
    """Pieces of a frame's cells at each level for temporal transformers."""

    def frames_at(self, level: int) -> int:
        """Number of pieces that frames are cut into at a level."""
        return self.frame_chunks[level] if level < len(self.frame_chunks) else 1

    def cells_at(self, level: int) -> int:
        """Number of pieces that cells are cut into at a level."""
        return self.cell_chunks[level] if level < len(self.cell_chunks) else 1

    @property
    def fewest_frames(self) -> int:
        """Frames that a clip needs so that no piece is empty."""
        return max(self.frame_chunks, default=1)

    @classmethod
    def in_pieces(cls, config: UNetConfig, size: tuple[int, int, int], largest: int) -> Form:
        """The fused form, cut so that no hidden activation of a usual clip exceeds some bytes.

        Args:
            config: gives widths and levels; the widest activation is a feed-forward's, 4 channels
                for each of the level's.
            size: frames, rows and columns of the latent.
            largest: bytes of one piece.
        """
        frames, rows, columns = size
        pieces = []
        for level, mult in enumerate(config.channel_mult):
            cells = (rows >> level) * (columns >> level)
            hidden = frames * cells * 4 * mult * config.model_channels * 4  # float32
            pieces.append(min(frames, max(1, -(-hidden // largest))))
        return cls(fused=True, frame_chunks=tuple(pieces), cell_chunks=tuple(pieces))


PORTABLE = Form()
"""Standard operators, nothing cut."""
