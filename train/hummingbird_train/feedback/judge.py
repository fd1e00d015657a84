"""Networks that read the tiny world's five attributes off a clip: learned judges A and B.

A looks at single frames and then along time; B, of another build and seed, is 3-D from the start.
A is trained against and B is kept apart, so that what pleases A alone shows (held-out judge).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hummingbird_runtime.errors import InputError
from hummingbird_train.feedback.prompt_labels import CLASSES
from hummingbird_train.models.config import ModelConfig
from hummingbird_train.models.weights import check_tensors, write_tensors
from hummingbird_train.world.scene import SIZE

KIND = "judge"


@dataclass(frozen=True)
class JudgeConfig(ModelConfig):
    """Shape of a judge."""

    build: Literal["frames", "volume"] = "frames"
    """``frames``: 2-D convolutions, then 1-D along time (A). ``volume``: 3-D convolutions (B)."""
    width: int = 48
    """Channels of the first level."""
    frames: int = 8
    """Frames of a clip that the judge is shown, evenly spaced."""

    @classmethod
    def a(cls) -> JudgeConfig:
        """The judge that is trained against."""
        return cls()

    @classmethod
    def b(cls) -> JudgeConfig:
        """The held-out judge."""
        return cls(build="volume", width=40)


class _Frames(nn.Module):
    """(b, f, 3, h, w) -> (b, 2 c, f): convolutions on frames, their cells kept apart until late."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(48, width, 3, padding=1)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.pool = nn.Conv2d(2 * width, 2 * width, 4, stride=4)
        self.join = nn.Linear(2 * width * (SIZE // 32) ** 2, 2 * width)

    def forward(self, frames: Tensor) -> Tensor:
        x = F.pixel_unshuffle(frames.flatten(0, 1) * 2 - 1, 4)  # (b * f, 48, 16, 16)
        x = F.gelu(self.stem(x))
        x = x + F.gelu(self.conv1(x))
        x = F.gelu(self.down(x))  # (b * f, 2 c, 8, 8)
        x = x + F.gelu(self.conv2(x))
        x = F.gelu(self.pool(x)).flatten(1)  # (b * f, 2 c * 4)
        x = F.gelu(self.join(x))
        return x.unflatten(0, frames.shape[:2]).transpose(1, 2)


class _Volume(nn.Module):
    """(b, f, 3, h, w) -> (b, 4 c, f): convolutions over space and time at once."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv3d(12, width, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))
        self.conv1 = nn.Conv3d(width, 2 * width, (3, 3, 3), stride=(1, 2, 2), padding=1)
        self.conv2 = nn.Conv3d(2 * width, 2 * width, (1, 3, 3), padding=(0, 1, 1))
        self.conv3 = nn.Conv3d(2 * width, 4 * width, (3, 4, 4), stride=(1, 4, 4), padding=(1, 0, 0))
        self.mix = nn.Conv3d(4 * width, 4 * width, (1, 2, 2))

    def forward(self, frames: Tensor) -> Tensor:
        x = F.pixel_unshuffle(frames * 2 - 1, 2).transpose(1, 2)  # (b, 12, f, 32, 32)
        x = F.relu(self.stem(x))  # (b, c, f, 16, 16)
        x = F.relu(self.conv1(x))  # (b, 2 c, f, 8, 8)
        x = x + F.relu(self.conv2(x))
        x = F.relu(self.conv3(x))  # (b, 4 c, f, 2, 2)
        return F.relu(self.mix(x)).flatten(2)


class Judge(nn.Module):
    """Clips to one row of logits per attribute.

    Args:
        config: shape of the network.
    """

    def __init__(self, config: JudgeConfig) -> None:
        super().__init__()
        self.config = config
        wide = 2 * config.width if config.build == "frames" else 4 * config.width
        self.trunk = _Frames(config.width) if config.build == "frames" else _Volume(config.width)
        self.time1 = nn.Conv1d(wide, wide, 3, padding=1)
        self.time2 = nn.Conv1d(wide, wide, 3, padding=1)
        self.heads = nn.ModuleDict({n: nn.Linear(3 * wide, len(v)) for n, v in CLASSES.items()})

    def features(self, frames: Tensor) -> Tensor:
        """(b, 3 d) features of (b, f, 3, 64, 64) in [0, 1]: mean, maximum, and end less start."""
        x = self.trunk(frames)  # (b, d, f)
        x = x + F.gelu(self.time1(x))
        x = x + F.gelu(self.time2(x))
        half = max(1, x.shape[2] // 2)
        change = x[:, :, -half:].mean(dim=2) - x[:, :, :half].mean(dim=2)
        return torch.cat([x.mean(dim=2), x.amax(dim=2), change], dim=1)

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Logits [b, classes] by attribute; frames (b, f, 3, 64, 64) in [0, 1]."""
        features = self.features(frames)
        return {name: head(features) for name, head in self.heads.items()}


def save_judge(path: Path, judge: Judge, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a judge as safetensors, with ``weights`` in place of its own where given."""
    own = {n: t.detach().cpu().contiguous() for n, t in judge.state_dict().items()}
    own |= {n: t.detach().cpu().contiguous() for n, t in (weights or {}).items()}
    facts = {"model": KIND, "config": json.dumps(judge.config.to_json())}
    write_tensors(path, own, {"format": "pt", **facts})


def load_judge(path: Path) -> Judge:
    """Read what ``save_judge`` wrote, frozen and in evaluation mode.

    Raises:
        InputError: ``checkpoint.missing``, ``checkpoint.corrupt``, ``checkpoint.kind``,
            ``checkpoint.config``, ``checkpoint.keys`` or ``checkpoint.shapes``.
    """
    if not path.is_file():
        raise InputError(
            "checkpoint.missing",
            f"weights {path}, got no such file, expected a judge's safetensors file",
            hint="train one with `hummingbird train judge`",
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        values = json.loads(metadata.get("config", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(
            "checkpoint.corrupt",
            f"weights {path}, got {error}, expected a judge's safetensors file",
            hint="get the file again",
        ) from error
    if metadata.get("model") != KIND:
        raise InputError(
            "checkpoint.kind",
            f"weights {path}, got metadata for {metadata.get('model')!r}, expected {KIND!r}",
            hint="train one with `hummingbird train judge`",
        )
    judge = Judge(JudgeConfig.from_json(values))
    check_tensors(path, tensors, judge.state_dict())
    judge.load_state_dict(tensors)
    return judge.requires_grad_(False).eval()
