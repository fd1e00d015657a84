"""The form in which a U-Net is written: what a target's runtime is good at, as data.

Every form computes the same function. ``PORTABLE`` uses standard operators and cuts nothing. Others
work through frames and cells in chunks, so that no activation is large: on CPUs memory traffic, not
arithmetic, was what a plain graph spent its time on; GPUs bind buffers of limited size. The fused
form takes ONNX Runtime's own operators besides.
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
    def in_pieces(
        cls, config: UNetConfig, size: tuple[int, int, int], largest: int, *, fused: bool
    ) -> Form:
        """Cut so that no activation inside a block exceeds some bytes in a usual clip.

        Args:
            config: gives widths and levels; the widest activation is a feed-forward's, 4 channels
                for each of the level's, or without fused attention the scores of all pairs of a
                frame's cells.
            size: frames, rows and columns of the latent.
            largest: bytes of one piece; one frame is the smallest piece.
            fused: with the operators of ``com.microsoft``.
        """
        frames, rows, columns = size
        in_frames, in_cells = [], []
        for level, mult in enumerate(config.channel_mult):
            cells = (rows >> level) * (columns >> level)
            width = mult * config.model_channels
            hidden = frames * cells * 4 * width * 4  # float32
            scores = 0
            if not fused and 2**level in config.attention_resolutions:
                scores = frames * (width // config.num_head_channels) * cells**2 * 4
            in_cells.append(_count(hidden, largest, frames))
            in_frames.append(_count(max(hidden, scores), largest, frames))
        return cls(fused=fused, frame_chunks=tuple(in_frames), cell_chunks=tuple(in_cells))


def _count(whole: int, largest: int, most: int) -> int:
    return min(most, max(1, -(-whole // largest)))


PORTABLE = Form()
"""Standard operators, nothing cut."""
