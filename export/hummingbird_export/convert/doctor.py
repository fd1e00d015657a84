"""The checkpoint doctor: which model a set of files holds, and what is wrong with its tensors.

Everything is told from names, shapes and number types; no tensor is read.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hummingbird_export.convert import layout
from hummingbird_export.convert.container import Checkpoint, TensorInfo
from hummingbird_export.convert.keys import PARTS, KeyMap, map_keys
from hummingbird_export.convert.lora import Lora, read_lora
from hummingbird_export.convert.variants import VARIANTS, Variant, variant_of
from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.models.weights import KINDS, Config, skeleton

KIND = {"unet": "unet", "vae": "autoencoder", "text": "text_encoder"}
"""Part -> kind of network in ``models.weights``."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """One network as the files have it, beside what its configuration wants."""

    name: str
    config: Config
    tensors: Mapping[str, TensorInfo]
    """Name in our module -> what is stored, unused ones left out."""
    expected: Mapping[str, Shape]
    origin: Mapping[str, tuple[Checkpoint, str]]
    """Name in our module -> file and name in it."""

    @property
    def missing(self) -> list[str]:
        """Tensors that the network needs and no file has."""
        return [name for name in self.expected if name not in self.tensors]

    @property
    def unexpected(self) -> list[str]:
        """Tensors that the network does not have."""
        return [name for name in self.tensors if name not in self.expected]

    @property
    def misshapen(self) -> list[str]:
        """Tensors of another shape than the network's."""
        return [
            name
            for name, info in self.tensors.items()
            if name in self.expected and info.shape != self.expected[name]
        ]

    @property
    def sound(self) -> bool:
        """Whether nothing is missing, unexpected or mis-shaped."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def parameters(self) -> int:
        """Number of values stored."""
        return sum(math.prod(info.shape) for info in self.tensors.values())

    @property
    def dtypes(self) -> Counter[str]:
        """Number type -> tensors of it."""
        return Counter(info.dtype for info in self.tensors.values())


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found."""

    sources: tuple[Checkpoint, ...]
    variant: Variant | None
    """None without a U-Net."""
    parts: Mapping[str, Part]
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> tensors that no network needs."""
    unknown: tuple[str, ...] = ()
    """Names that belong to no part."""
    lora: Lora | None = None
    """The only thing found, when the file is a LoRA."""
    lora_base: Variant | None = None
    """The published model whose layers the LoRA fits."""

    @property
    def sound(self) -> bool:
        """Whether every tensor of every part that is there is as it should be."""
        return not self.unknown and all(part.sound for part in self.parts.values())


def diagnose(sources: Sequence[Checkpoint], *, drop: Sequence[str] = ()) -> Diagnosis:
    """Name the model in one or more files and compare it with its configuration.

    Args:
        sources: files that together hold the parts of one model.
        drop: beginnings of names to leave out.

    Raises:
        InputError: ``checkpoint.kind`` for a file without any known part, ``checkpoint.twice`` for
            a part that two files hold, ``checkpoint.config`` for metadata that make no network.
    """
    if len(sources) == 1 and (lora := read_lora(sources[0])) is not None:
        return Diagnosis(tuple(sources), None, {}, lora=lora, lora_base=lora_base(lora))
    maps = [map_keys(source.tensors, drop=drop) for source in sources]
    dropped: Counter[str] = Counter()
    for mapped in maps:
        dropped += mapped.dropped
    parts = {}
    for name in PARTS:
        holders = [i for i, mapped in enumerate(maps) if mapped.parts[name]]
        if len(holders) > 1:
            raise InputError(
                "checkpoint.twice",
                f"part {name}, got it in {' and '.join(sources[i].path.name for i in holders)}, "
                "expected it in one file",
                hint="leave one of them out",
            )
        for i in holders:
            part, unused = _part(name, sources[i], maps[i])
            parts[name] = part
            dropped["text layers that never run"] += unused
    if not parts:
        raise _no_model(sources, maps)
    unet = parts.get("unet")
    variant = variant_of(unet.config) if unet and isinstance(unet.config, UNetConfig) else None
    unknown = tuple(name for mapped in maps for name in mapped.unknown)
    return Diagnosis(tuple(sources), variant, parts, +dropped, unknown)


def lora_base(lora: Lora) -> Variant | None:
    """The first published variant whose U-Net a LoRA fits."""
    for variant in VARIANTS:
        if variant.published and lora.fits(expected_shapes("unet", variant.unet)):
            return variant
    return None


@cache
def expected_shapes(part: str, config: Config) -> Mapping[str, Shape]:
    """Name -> shape of every tensor of a configuration, in the order of our modules."""
    model = skeleton(KIND[part], config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _part(name: str, source: Checkpoint, mapped: KeyMap) -> tuple[Part, int]:
    """A part and the number of its tensors that are left out."""
    names = mapped.parts[name]
    infos = {ours: source.tensors[theirs] for ours, theirs in names.items()}
    config = _stated_config(name, source) or _config(name, infos)
    unused = layout.unused_text_names(config) if isinstance(config, TextConfig) else ()
    kept = {n: info for n, info in infos.items() if not n.startswith(unused)} if unused else infos
    origin = {n: (source, names[n]) for n in kept}
    part = Part(name, config, kept, expected_shapes(name, config), origin)
    return part, len(infos) - len(kept)


def _stated_config(part: str, source: Checkpoint) -> Config | None:
    """The configuration in the metadata of a file that this project wrote."""
    if source.metadata.get("model") != KIND[part]:
        return None
    try:
        values: Any = json.loads(source.metadata.get("config", ""))
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    if part == "text":
        values = {**values, "published_extras": False}
    return KINDS[KIND[part]][0].from_json(values)


def _config(part: str, infos: Mapping[str, TensorInfo]) -> Config:
    """The configuration that a part has, or the published one that is nearest to it."""
    shapes = {name: info.shape for name, info in infos.items()}
    published: list[Config]
    if part == "unet":
        guess: Config | None = layout.unet_config(shapes)
        published = [variant.unet for variant in VARIANTS if variant.published]
    elif part == "vae":
        guess, published = layout.vae_config(shapes), [AutoencoderConfig.videocrafter2()]
    else:
        guess = layout.text_config(shapes)
        published = [layout.published_text()]
    if guess is not None and not _distance(part, guess, shapes):
        return guess
    candidates = published if guess is None or guess in published else [*published, guess]
    return min(candidates, key=lambda config: _distance(part, config, shapes))


def _distance(part: str, config: Config, shapes: Mapping[str, Shape]) -> int:
    """Number of tensors that are missing, unexpected or of another shape."""
    expected = expected_shapes(part, config)
    if part == "text" and isinstance(config, TextConfig):
        unused = layout.unused_text_names(config)
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(unused)}
    wrong = sum(expected.get(name) != shape for name, shape in shapes.items())
    return wrong + sum(name not in shapes for name in expected)


def _no_model(sources: Sequence[Checkpoint], maps: Sequence[KeyMap]) -> InputError:
    names = [name for mapped in maps for name in mapped.unknown]
    firsts = list(dict.fromkeys(name.partition(".")[0] for name in names))
    layouts = {"down_blocks", "up_blocks", "mid_block"}
    return InputError(
        "checkpoint.kind",
        f"checkpoint {', '.join(str(source.path) for source in sources)}: got {len(names)} tensors "
        f"under {', '.join(firsts[:6]) or 'no name'}, expected a U-Net, an autoencoder or an "
        "OpenCLIP text tower under their published names",
        hint="this is the layout of diffusers; give the publisher's own file"
        if layouts & set(firsts)
        else "see docs/convert.md for the files that can be read",
    )
