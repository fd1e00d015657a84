"""The one seam between an objective and a device: `to` moves what it holds, `here` moves a batch.

Objectives draw data and noise on the CPU, from NumPy's generator, so that the same step sees the
same samples on every device. One that derives from `Placed` is trained on the GPU where there is
one; any other stays on the CPU.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Moved = TypeVar("Moved", bound=Tensor | None)


class Placed:
    """An objective that can live on a device.

    ``loss`` passes what it drew through ``here`` before the networks see it::

        x_0, eps, t = self.here(x_0, eps, t)
    """

    device = torch.device("cpu")
    """Where the networks are."""

    def to(self, device: torch.device) -> None:
        """Move every attribute that is a network, a tensor, or has a ``to`` of its own.

        Networks move in place, so other references to them stay good.
        """
        for name, value in vars(self).items():
            if isinstance(value, nn.Module):
                value.to(device)
            elif isinstance(value, Tensor):
                setattr(self, name, value.to(device))
            elif hasattr(value, "to"):
                value.to(device)
        self.device = device

    def here(self, *tensors: Moved) -> tuple[Moved, ...]:
        """The tensors on the objective's device; None stays None."""
        return tuple(t if t is None else t.to(self.device, non_blocking=True) for t in tensors)
