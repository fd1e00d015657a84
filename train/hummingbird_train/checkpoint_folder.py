"""A published checkpoint folder, read: networks, tokenizer, schedule and facts of one model.

The folder is what ``hummingbird train publish`` writes and ``hummingbird export build`` takes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.scheduler_config import SchedulerConfig
from hummingbird_runtime.strict_json import parse_json, record
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.text_encoder import TextEncoder
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.models.weights import load_model

BUILD = "build.json"
_LARGEST = 1 << 20
N = TypeVar("N")


@dataclass(frozen=True)
class CheckpointFolder:
    """Paths and facts; weights are loaded when they are asked for."""

    name: str
    unet_path: Path
    vae_path: Path
    text_path: Path
    tokenizer_folder: Path
    scheduler: SchedulerConfig
    facts: ModelFacts

    def unet(self) -> VideoUNet:
        """The U-Net, float32, in evaluation mode; as each network, of the file's own kind only."""
        return _load(self.unet_path, VideoUNet)

    def vae(self) -> AutoencoderKL:
        """The autoencoder."""
        return _load(self.vae_path, AutoencoderKL)

    def text(self) -> TextEncoder:
        """The text tower."""
        return _load(self.text_path, TextEncoder)

    def tokenizer(self) -> Tokenizer:
        """Its tokenizer."""
        return Tokenizer.from_files(self.tokenizer_folder)

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of a default clip's latent."""
        scale = self.facts.vae_scale_factor
        return self.facts.height.default // scale, self.facts.width.default // scale


def read_checkpoint_folder(folder: Path) -> CheckpointFolder:
    """Read ``build.json`` of a folder.

    Raises:
        InputError: ``checkpoint.folder`` when it is missing, no JSON, or names no networks;
            ``bundle.manifest_invalid`` and ``scheduler.invalid`` for facts that make no sense.
    """
    path = folder / BUILD
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
        table: Any = parse_json(data, what=BUILD, limit=_LARGEST)
        name = str(table.get("name") or folder.name)
        paths = [folder / table[key] for key in ("unet", "vae", "text", "tokenizer")]
        scheduler, facts = dict(table["scheduler"]), dict(table["facts"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise InputError(
            "checkpoint.folder",
            f"checkpoint folder {folder}: got {type(error).__name__} {str(error)[:120]}, expected "
            f"a {BUILD} that names unet, vae, text, tokenizer, scheduler and facts",
            hint="give a folder that `hummingbird train publish` wrote",
        ) from error
    return CheckpointFolder(
        name,
        *paths,
        scheduler=SchedulerConfig.from_json(scheduler),
        facts=record(ModelFacts, facts, f"{BUILD} facts"),
    )


def _load(path: Path, kind: type[N]) -> N:
    model = load_model(path)
    if not isinstance(model, kind):
        raise InputError(
            "checkpoint.kind",
            f"weights {path}, got {type(model).__name__}, expected {kind.__name__}",
            hint="correct the paths in build.json",
        )
    return model
