"""The manifest of a bundle: every file with its hash, every graph with its signature, model facts.

Written by export, read by the runtime before anything else of the bundle is touched. It describes;
what is allowed (operators, opsets, paths) is decided by operators.py and integrity.py.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hummingbird_runtime.errors import InputError
from hummingbird_runtime.facts import Choice, Frames, Guidance, ModelFacts, Side
from hummingbird_runtime.fixed_sizes import check_fixed_sizes
from hummingbird_runtime.manifest_entries import (
    Adapter,
    FileEntry,
    Graph,
    Licence,
    Precision,
    Tensor,
    check_relative_path,
)
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.strict_json import fail, parse_json, record

__all__ = [
    "Adapter",
    "Choice",
    "FileEntry",
    "Frames",
    "Graph",
    "Guidance",
    "Licence",
    "Manifest",
    "ModelFacts",
    "Precision",
    "SessionSettings",
    "Side",
    "Tensor",
    "check_relative_path",
]

SCHEMA_VERSION = 1
MAX_FILES = 1024
ROLES = ("text_encoder", "unet", "vae_decoder", "vae_decoder_tiny", "vae_encoder", "upscaler")
REQUIRED_ROLES = ROLES[:2]
DECODERS = {"full": "vae_decoder", "tiny": "vae_decoder_tiny"}
"""Role by the name that a caller gives; a bundle has one of them or both."""
UPSCALER = "upscaler"
UPSCALE = 4
"""Pixels of an upscaled frame per decoded pixel along one side: part of the bundle's contract."""
MAX_ADAPTERS = 64
MANIFEST = "manifest.json"
DIGEST = "manifest.sha256"
SCHEDULER = "scheduler/scheduler_config.json"
REQUIRED_FILES = (
    SCHEDULER,
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime knows about a bundle before it opens a graph."""

    bundle_id: str
    """UUID drawn before export."""
    name: str
    files: dict[str, FileEntry]
    """Every file except manifest.json and manifest.sha256, by relative path."""
    graphs: dict[str, Graph]
    """By role: text_encoder, unet, vae_decoder or vae_decoder_tiny; optional the rest."""
    model: ModelFacts
    licence: Licence
    target: str = "portable"
    adapters: dict[str, Adapter] = field(default_factory=dict)
    """Styles that come with the bundle, by name."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Base weights, pruning plan, recipe, tool versions."""
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        try:
            uuid.UUID(self.bundle_id)
        except ValueError:
            fail("bundle_id", f"got {self.bundle_id[:60]!r}, expected a UUID")
        if len(self.files) > MAX_FILES:
            fail("files", f"got {len(self.files)} files, expected at most {MAX_FILES}")
        for path in self.files:
            check_relative_path(path, "files")
        folded = {path.casefold() for path in self.files}
        if len(folded) != len(self.files) or folded & {MANIFEST, DIGEST}:
            fail("files", "got names that differ only by case or name the manifest itself")
        unknown = sorted(self.graphs.keys() - set(ROLES))
        missing = sorted(set(REQUIRED_ROLES) - self.graphs.keys())
        if not self.graphs.keys() & set(DECODERS.values()):
            missing.append(" or ".join(DECODERS.values()))
        if unknown or missing:
            fail("graphs", f"unknown roles {unknown}, missing roles {missing}")
        if len(self.adapters) > MAX_ADAPTERS or not all(map(_NAME.fullmatch, self.adapters)):
            fail(
                "adapters",
                f"got {sorted(self.adapters)!r:.80}, expected at most {MAX_ADAPTERS} "
                "names of letters, digits, '_' and '-'",
            )
        needed = {*REQUIRED_FILES, self.licence.file}
        needed |= {graph.path for graph in self.graphs.values()}
        needed |= {adapter.path for adapter in self.adapters.values()}
        absent = sorted(needed - self.files.keys())
        if absent:
            fail("files", f"lacks {', '.join(absent)}, expected every used file to be listed")
        check_fixed_sizes(self.graphs, self.model)

    @classmethod
    def from_json(cls, source: bytes | Mapping[str, Any]) -> Manifest:
        """Read a manifest from its bytes or from a parsed object.

        Raises:
            InputError: ``bundle.version``, ``bundle.manifest_invalid``.
            IntegrityError: ``bundle.unsafe_path``.
        """
        value: Any = parse_json(source, what=MANIFEST) if isinstance(source, bytes) else source
        if isinstance(value, Mapping) and value.get("schema_version") != SCHEMA_VERSION:
            raise InputError(
                "bundle.version",
                f"manifest.json: got schema_version {str(value.get('schema_version'))[:40]!r}, "
                f"this runtime reads {SCHEMA_VERSION}",
                hint="update hummingbird-edge or export the bundle again",
            )
        return record(cls, value, "manifest")

    def to_json(self) -> dict[str, Any]:
        """The manifest as plain JSON values; ``from_json`` reads them back to an equal object."""
        return dataclasses.asdict(self)

    def to_bytes(self) -> bytes:
        """The text of manifest.json: sorted keys, two spaces, one line feed at the end."""
        text = json.dumps(
            self.to_json(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return (text + "\n").encode("utf-8")
