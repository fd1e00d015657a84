"""Where a prompt says that the object is in each frame, as planes over height and width.

Not part of the published models. A word such as "left" says nothing of a position until the frame's
index is known, and what a frame gains by it is small beside everything else in the loss: without a
place learnt for itself and drawn where a convolution can use it, motion words stay unread.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hummingbird_train.models.blocks import zeroed

HALF_SPAN = 12.5
"""Frame indices from a clip's middle to either end: a clip of 26 frames spans -1 to 1."""
COORDINATES = 3
"""Centre x, centre y and radius, each standardised."""
HIDDEN = 128


class PlacePlanes(nn.Module):
    """Tokens and frame indices to a place, and the place to planes of features.

    The place is linear in time: a middle and a velocity, each a sum over tokens, so that one word
    may be a velocity. The planes are x, y and x^2 + y^2 - 2/3 over cell centres in (-1, 1), with
    one coefficient a channel; these are zero at first.

    Args:
        context_dim: width of a token.
        channels: of the features that the planes are added to.
    """

    def __init__(self, context_dim: int, channels: int) -> None:
        super().__init__()
        self.text = nn.Linear(context_dim, HIDDEN)
        self.motion = nn.Linear(HIDDEN, 2 * COORDINATES)
        self.hidden = nn.Linear(COORDINATES, HIDDEN)
        self.planes = zeroed(nn.Linear(HIDDEN, channels * COORDINATES))

    def place(self, tokens: Tensor, frame_indices: Tensor) -> Tensor:
        """Tokens (b, l, d) and int64 indices (t) or (b, t) to places (b, t, 3)."""
        hidden = nn.functional.silu(self.text(tokens)).sum(dim=1) / tokens.shape[1] ** 0.5
        middle, velocity = self.motion(hidden)[:, None].chunk(2, dim=-1)  # (b, 1, 3) each
        time = (frame_indices[..., None] / HALF_SPAN - 1).to(middle)
        return middle + time * velocity

    def forward(self, tokens: Tensor, frame_indices: Tensor | None, size: Sequence[int]) -> Tensor:
        """Planes to add to the first features.

        Args:
            tokens: (b, l, d).
            frame_indices: int64 (t) or (b, t); counted from 0 when None.
            size: frames, height and width of the latent.

        Returns:
            (b, t, channels, h, w).
        """
        frames, height, width = size
        if frame_indices is None:
            frame_indices = torch.arange(frames, device=tokens.device)
        place = self.place(tokens, frame_indices)
        weights = self.planes(nn.functional.silu(self.hidden(place)))
        weights = weights.unflatten(-1, (-1, COORDINATES))  # (b, t, channels, 3)
        y, x = ((2 * torch.arange(n, device=tokens.device) + 1) / n - 1 for n in (height, width))
        x, y = x.expand(height, -1), y[:, None].expand(-1, width)
        basis = torch.stack([x, y, x * x + y * y - 2 / 3]).flatten(1)  # (3, h*w)
        return (weights @ basis.to(weights)).unflatten(-1, (height, width))
