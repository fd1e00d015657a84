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
from typing import Any, Literal

from hummingbird_runtime.errors import InputError, IntegrityError
from hummingbird_runtime.facts import Choice, Frames, Guidance, ModelFacts, Side
from hummingbird_runtime.strict_json import fail, parse_json, record

__all__ = [
    "Choice",
    "FileEntry",
    "Frames",
    "Graph",
    "Guidance",
    "Licence",
    "Manifest",
    "ModelFacts",
    "Side",
    "Tensor",
    "check_relative_path",
]

SCHEMA_VERSION = 1
MAX_FILES = 1024
ROLES = ("text_encoder", "unet", "vae_decoder", "vae_decoder_tiny", "vae_encoder")
REQUIRED_ROLES = ROLES[:3]
MANIFEST = "manifest.json"
DIGEST = "manifest.sha256"
SCHEDULER = "scheduler/scheduler_config.json"
REQUIRED_FILES = (
    SCHEDULER,
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
)

_SAFE_PATH = re.compile(
    r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}/){0,6}[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPERATOR = re.compile(r"[A-Za-z0-9_.]{1,64}:[A-Za-z0-9_]{1,64}")


def check_relative_path(path: str, where: str) -> None:
    """Refuse a name that is not plain ASCII parts joined by ``/`` inside the bundle.

    Raises:
        IntegrityError: ``bundle.unsafe_path``.
    """
    if not _SAFE_PATH.fullmatch(path) or any(part.endswith(".") for part in path.split("/")):
        raise IntegrityError(
            "bundle.unsafe_path",
            f"{where}: got path {path[:80]!r}, expected letters, digits, '_', '.', '-' and '/' "
            "inside the bundle",
            hint="do not use this bundle unless you trust where it came from",
        )


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle."""

    sha256: str
    """64 lower-case hexadecimal digits."""
    bytes: int
    """Exact size."""

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            fail("files", f"got sha256 {self.sha256[:70]!r}, expected 64 lower-case hex digits")
        if self.bytes < 0:
            fail("files", f"got {self.bytes} bytes, expected 0 or more")


@dataclass(frozen=True)
class Tensor:
    """One input or output of a graph."""

    name: str
    dtype: Literal["float32", "float16", "int64", "int32", "uint8", "int8", "bool"]
    dims: tuple[int | str, ...]
    """A number is fixed, a name is a size chosen at run time; () is a scalar."""


@dataclass(frozen=True)
class Graph:
    """One ONNX graph of the bundle."""

    path: str
    opset: int
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    ops: tuple[str, ...]
    """Every operator in it, subgraphs included, as ``domain:Name`` (``ai.onnx:Conv``)."""
    precision: Literal["fp32", "fp16-storage", "int8"] = "fp32"
    parity: dict[str, float] = field(default_factory=dict)
    """Errors against the torch module it came from, measured at export."""

    def __post_init__(self) -> None:
        check_relative_path(self.path, "graph")
        for op in self.ops:
            if not _OPERATOR.fullmatch(op):
                fail(f"{self.path} ops", f"got {op[:80]!r}, expected 'domain:Name'")


@dataclass(frozen=True)
class Licence:
    """Under what terms the weights may be used."""

    name: str
    file: str


@dataclass(frozen=True)
class Manifest:
    """Everything the runtime knows about a bundle before it opens a graph."""

    bundle_id: str
    """UUID drawn before export."""
    name: str
    files: dict[str, FileEntry]
    """Every file except manifest.json and manifest.sha256, by relative path."""
    graphs: dict[str, Graph]
    """By role: text_encoder, unet, vae_decoder; optional vae_decoder_tiny, vae_encoder."""
    model: ModelFacts
    licence: Licence
    target: str = "portable"
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
        if unknown or missing:
            fail("graphs", f"unknown roles {unknown}, missing roles {missing}")
        needed = {*REQUIRED_FILES, self.licence.file, *(g.path for g in self.graphs.values())}
        absent = sorted(needed - self.files.keys())
        if absent:
            fail("files", f"lacks {', '.join(absent)}, expected every used file to be listed")

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
