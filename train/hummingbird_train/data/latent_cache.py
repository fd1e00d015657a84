"""A cache of encoded user clips: every clip goes through the autoencoder once.

Clips are brought to one frame rate, one size and pieces of at most ``max_frames`` frames, encoded,
and kept as float16 beside an index. The folder is named by a hash of the autoencoder's file, the
settings and the clips, so that another autoencoder or an edited clip never meets old latents.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError
from hummingbird_train import parallel
from hummingbird_train.data.entries import Entry
from hummingbird_train.data.media import Picture, corrupt, probe, read_frames, resize_and_crop
from hummingbird_train.models.autoencoder import AutoencoderKL
from hummingbird_train.models.weights import load_model

LAYOUT = 1
"""Raised when files of the same settings would hold something else."""


@dataclass(frozen=True)
class CacheConfig:
    """What decides the latents, besides the clips and the autoencoder."""

    size: tuple[int, int]
    """Height and width, pixels; multiples of what the autoencoder divides by."""
    fps: int = 8
    """Every clip is brought to this rate: frames are left out, or shown again."""
    max_frames: int = 104
    """Longer clips are cut into pieces of this many frames."""
    shard: int = 64
    """Clips of one file."""


def cache_key(vae_path: Path, entries: Sequence[Entry], config: CacheConfig) -> str:
    """Name of a cache: 16 hexadecimal digits.

    Raises:
        InputError: ``checkpoint.missing`` without the autoencoder, ``data.corrupt`` for a clip that
            is gone.
    """
    digest = hashlib.sha256(json.dumps([LAYOUT, asdict(config)]).encode())
    try:
        digest.update(vae_path.read_bytes())
    except OSError as error:
        raise InputError(
            "checkpoint.missing",
            f"weights {vae_path}, got {error.strerror or error}, expected a safetensors file",
            hint="check the path",
        ) from error
    for entry in entries:
        try:
            identity = entry.place.identity()
        except OSError as error:
            raise corrupt(entry, error.strerror or error) from error
        digest.update(json.dumps([entry.key, entry.fps, *identity]).encode())
    return digest.hexdigest()[:16]


def encode_clips(
    entries: Sequence[Entry],
    vae_path: Path,
    folder: Path,
    config: CacheConfig,
    *,
    scaling_factor: float | None = None,
    on_failure: Literal["raise", "skip"] = "raise",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClipLatents:
    """Encode what is missing and open the cache. Every rank encodes its own shards.

    Writes ``folder/KEY/latents-NNNN.npy`` (float16 [n, C, h, w], unscaled) and
    ``latents-NNNN.json`` (key, frames and error of each clip).

    Args:
        entries: clips of a source; their captions may change without encoding again.
        vae_path: safetensors file of the autoencoder.
        folder: of the caches.
        config: rate, size and lengths.
        scaling_factor: of the model that the latents are for; None measures 1 / std.
        on_failure: ``raise`` stops at the first clip that cannot be read; ``skip`` leaves it out
            and names it in ``failures``.
        progress: told how many of how many clips of this rank are done.

    Raises:
        InputError: ``data.corrupt``, ``data.empty``, ``data.options`` for a size that the
            autoencoder cannot take, and the codes of ``load_model``.
        ResourceError: ``output.*``, ``extra.missing``.
    """
    model = load_model(vae_path)
    if not isinstance(model, AutoencoderKL):
        raise InputError(
            "checkpoint.kind",
            f"weights {vae_path}, got {type(model).__name__}, expected an autoencoder",
            hint="give the autoencoder of the model",
        )
    if any(side % model.config.downscale for side in config.size):
        raise InputError(
            "data.options",
            f"size, got {config.size}, expected multiples of {model.config.downscale}",
            hint="crop to such a size",
        )
    place = folder / cache_key(vae_path, entries, config)
    place.mkdir(parents=True, exist_ok=True)
    shards = -(-len(entries) // config.shard)
    mine = range(parallel.rank(), shards, parallel.world_size())
    total = sum(len(_members(entries, number, config)) for number in mine)
    done = 0
    for number in mine:
        members = _members(entries, number, config)
        if not (place / f"latents-{number:04d}.json").exists():
            _encode_shard(
                model, members, place, number, config, on_failure,
                lambda n, done=done: progress(done + n, total),
            )  # fmt: skip
        done += len(members)
        progress(done, total)
    if parallel.world_size() > 1:
        torch.distributed.barrier()
    return ClipLatents(place, entries, config, scaling_factor=scaling_factor)


def _members(entries: Sequence[Entry], number: int, config: CacheConfig) -> Sequence[Entry]:
    return entries[number * config.shard : (number + 1) * config.shard]


def _encode_shard(
    model: AutoencoderKL,
    members: Sequence[Entry],
    place: Path,
    number: int,
    config: CacheConfig,
    on_failure: str,
    progress: Callable[[int], None],
) -> None:
    latents, records = [], []
    for done, entry in enumerate(members, 1):
        pieces: list[np.ndarray] = []
        error = ""
        try:
            pieces = list(encode_entry(model, entry, config))
        except InputError as failure:
            if on_failure == "raise":
                raise
            pieces, error = [], failure.message
        latents += pieces
        records.append({"key": entry.key, "pieces": [len(p) for p in pieces], "error": error})
        progress(done)
    channels = model.config.latent_channels
    sides = [side // model.config.downscale for side in config.size]
    stacked = np.concatenate(latents) if latents else np.zeros((0, channels, *sides), np.float16)
    path = place / f"latents-{number:04d}.npy"
    with atomic_file(path, overwrite=True) as temporary, open(temporary, "wb") as file:
        np.save(file, stacked)
    with atomic_file(path.with_suffix(".json"), overwrite=True) as temporary:
        temporary.write_text(json.dumps(records), encoding="utf-8")


def encode_entry(
    model: AutoencoderKL, entry: Entry, config: CacheConfig, *, chunk: int = 8
) -> Iterator[np.ndarray]:
    """Latents of the pieces of one clip: float16 [F, C, h, w] each, unscaled.

    Args:
        model: in evaluation mode.
        entry: a clip.
        config: rate, size and lengths.
        chunk: frames encoded at once.

    Raises:
        InputError: ``data.corrupt``.
    """
    media = probe(entry)
    rate = media.fps or float(config.fps)
    count = max(1, int((media.frames - 1) * config.fps / rate + 1e-6) + 1)
    indices = [min(int(i * rate / config.fps + 1e-6), media.frames - 1) for i in range(count)]
    piece: list[np.ndarray] = []
    waiting: list[Picture] = []
    for position, frame in enumerate(read_frames(entry, indices), 1):
        waiting.append(resize_and_crop(frame[None], config.size)[0])
        end = position == count or position % config.max_frames == 0
        if end or len(waiting) == chunk:
            piece.append(_encode(model, np.stack(waiting)))
            waiting = []
        if end:
            yield np.concatenate(piece)
            piece = []


@torch.no_grad()
def _encode(model: AutoencoderKL, frames: Picture) -> np.ndarray:
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    mean, _ = model.encode(pixels)
    return mean.numpy().astype(np.float16)


class ClipLatents:
    """Read access to a cache; a ``ClipSource`` whose third part are captions.

    Args:
        place: folder of one cache.
        entries: the clips that it was made from, for their captions.
        config: of the cache.
        scaling_factor: of the model; None measures 1 / std.

    Raises:
        InputError: ``cache.incomplete`` when shards are missing or damaged, ``data.empty`` when no
            clip could be read.
    """

    def __init__(
        self,
        place: Path,
        entries: Sequence[Entry],
        config: CacheConfig,
        *,
        scaling_factor: float | None = None,
    ) -> None:
        self.config, self.fps = config, config.fps
        self.failures: dict[str, str] = {}
        """Key -> why a clip was left out."""
        self.captions: list[str] = []
        self.keys: list[str] = []
        captions = {entry.key: entry.caption for entry in entries}
        parts, lengths = [], []
        for number in range(-(-len(entries) // config.shard)):
            array, records = _read_shard(place / f"latents-{number:04d}.npy")
            parts.append(array)
            for record in records:
                if record["error"]:
                    self.failures[record["key"]] = record["error"]
                for frames in record["pieces"]:
                    lengths.append(frames)
                    self.keys.append(record["key"])
                    self.captions.append(captions[record["key"]])
        if not lengths:
            first = next(iter(self.failures.values()), "no clip")
            raise InputError(
                "data.empty",
                f"got {len(entries)} clips, none of them readable: {first}",
                hint="check the source with `hummingbird train data`",
            )
        self.lengths = np.array(lengths)
        self.latents = np.concatenate(parts)  # (n, C, h, w), the clips one after the other
        self.starts = np.cumsum(self.lengths) - self.lengths
        if scaling_factor is None:
            scaling_factor = 1.0 / float(self.latents[:20_000].astype(np.float64).std())
        self.scaling_factor = scaling_factor

    def __len__(self) -> int:
        """Clips and pieces of long clips."""
        return len(self.lengths)

    def sample(
        self, rng: np.random.Generator, count: int, frames: int, stride: int
    ) -> tuple[Tensor, np.ndarray, list[str]]:
        """Random sub-clips, see ``ClipSource``; with one frame, images are drawn as well.

        Raises:
            InputError: ``data.short`` when no clip has that many frames at that stride.
        """
        span = (frames - 1) * stride + 1
        long_enough = np.flatnonzero(self.lengths >= span)
        if not len(long_enough):
            raise InputError(
                "data.short",
                f"got clips of at most {self.lengths.max()} frames at {self.fps} a second, "
                f"expected one of {span} ({frames} at stride {stride})",
                hint="train on fewer frames, a smaller stride or single frames",
            )
        clips = long_enough[rng.integers(len(long_enough), size=count)]
        starts = rng.integers(self.lengths[clips] - span + 1)
        index = starts[:, None] + np.arange(frames) * stride
        rows = self.starts[clips][:, None] + index
        chosen = self.latents[rows].astype(np.float32) * np.float32(self.scaling_factor)
        latents = torch.from_numpy(np.ascontiguousarray(chosen.transpose(0, 2, 1, 3, 4)))
        return latents, index, [self.captions[c] for c in clips]


def _read_shard(path: Path) -> tuple[np.ndarray, list[dict[str, Any]]]:
    try:
        records = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        array = np.load(path)
        if len(array) != sum(sum(record["pieces"]) for record in records):
            raise ValueError(f"got {len(array)} frames, expected those of its index")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise InputError(
            "cache.incomplete",
            f"latent cache {path.parent}: {error}",
            hint="remove the folder and run again: it encodes what is missing",
        ) from error
    return array, records
