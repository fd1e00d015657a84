"""Where the weights of a module lie in the files of a graph: ``<graph folder>/initializers.json``.

By module path, one entry for each initializer that holds weights of it. Everything is external
data of the graph, so that its bytes can be read, and replaced when the graph is opened, without
parsing the ONNX file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.bundle_files import read_small, unreadable
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.manifest import check_relative_path
from hummingbird_runtime.strict_json import fail, parse_json, record

MAP = "initializers.json"
MAX_MAP = 8 << 20
_DTYPES = {"float32": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1"}


@dataclass(frozen=True)
class Stored:
    """An initializer in an external data file."""

    name: str
    file: str
    """Relative to the graph's folder, as in the ONNX file."""
    offset: int
    """Bytes from the start of the file."""
    dtype: Literal["float32", "float16", "int8", "uint8"]
    dims: tuple[int, ...]

    def __post_init__(self) -> None:
        check_relative_path(self.file, MAP)
        if self.offset < 0 or min(self.dims, default=1) < 1 or len(self.dims) > 5:
            fail(MAP, f"{self.name[:80]}: got offset {self.offset}, dims {list(self.dims)!r:.60}")

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.dims) * np.dtype(_DTYPES[self.dtype]).itemsize


@dataclass(frozen=True)
class Weight(Stored):
    """An initializer with weights of one module, laid out (out, in..) or (in, out)."""

    layout: Literal["linear", "linear_t", "conv"] = "linear"
    """``linear`` and ``conv``: out axis first; ``linear_t``: a matrix, out axis last."""
    rows: tuple[int, int] | None = None
    """Which part of the module's out axis it holds; None is all of it."""
    scale: Stored | None = None
    """int8: step of each out channel, or one for all. None exactly for float weights."""
    zero_point: Stored | None = None
    """int8: what stands for 0; None is 0."""
    input_gain: Stored | None = None
    """Factor of each in channel that the stored weights were multiplied with; None is 1."""
    output_gain: Stored | None = None
    """The same of each out channel."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.scale is not None) != (self.dtype in ("int8", "uint8")):
            fail(MAP, f"{self.name[:80]}: got {self.dtype}, expected a scale exactly for integers")
        low, high = self.rows or (0, self.out_channels)
        if low < 0 or high - low != self.out_channels or len(self.dims) < 2:
            fail(MAP, f"{self.name[:80]}: got rows {[low, high]} of dims {list(self.dims)!r:.60}")
        if self.layout == "linear_t" and len(self.dims) != 2:
            fail(MAP, f"{self.name[:80]}: got dims {list(self.dims)!r:.60}, expected a matrix")
        out, into = self.out_channels, self.dims[1 - self.out_axis]
        for stored, sizes in (
            (self.scale, (1, out)),
            (self.zero_point, (1, out)),
            (self.input_gain, (into,)),
            (self.output_gain, (out,)),
        ):
            if stored is not None and math.prod(stored.dims) not in sizes:
                got = f"got dims {list(stored.dims)!r:.60}"
                fail(MAP, f"{stored.name[:80]}: {got}, expected one number a channel")

    @property
    def out_axis(self) -> int:
        """The axis of out channels."""
        return 1 if self.layout == "linear_t" else 0

    @property
    def out_channels(self) -> int:
        """How many of the module's out channels it holds."""
        return self.dims[min(self.out_axis, len(self.dims) - 1)] if self.dims else 0


def read_map(bundle: Bundle, role: str) -> dict[str, tuple[Weight, ...]]:
    """The entries of a graph by module path.

    Raises:
        InputError: ``adapter.mismatch`` where the bundle has no such map,
            ``bundle.manifest_invalid`` where it is malformed or points outside its files.
        IntegrityError: ``bundle.changed``, ``bundle.unsafe_path``.
    """
    path = f"{_folder(bundle, role)}{MAP}"
    if path not in bundle.manifest.files:
        raise InputError(
            "adapter.mismatch",
            f"bundle {bundle.manifest.name}: lacks {path}, so no style can be merged into it",
            hint="export the bundle again with adapters",
        )
    bundle.path(role)  # its files are still those that were verified
    data = read_small(bundle.root / path, MAX_MAP + 1)
    document = parse_json(data, what=path, limit=MAX_MAP)
    if not isinstance(document, dict):
        fail(path, "got no object, expected entries by module path")
    found = {name: record(_Entries, {"entries": v}, name[:80]) for name, v in document.items()}
    return {name: entries.entries for name, entries in found.items()}


def read_stored(bundle: Bundle, role: str, stored: Stored) -> NDArray[Any]:
    """An initializer from its external data file.

    Raises:
        InputError: ``bundle.manifest_invalid`` when it does not lie inside a listed file.
        ResourceError: ``bundle.unreadable``.
    """
    path = f"{_folder(bundle, role)}{stored.file}"
    entry = bundle.manifest.files.get(path)
    if entry is None or stored.offset + stored.bytes > entry.bytes:
        fail(MAP, f"{stored.name[:80]}: got bytes outside {path}, expected them inside")
    try:
        with (bundle.root / path).open("rb") as file:
            file.seek(stored.offset)
            data = file.read(stored.bytes)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(data) != stored.bytes:
        fail(MAP, f"{stored.name[:80]}: got {len(data)} bytes of {path}, expected {stored.bytes}")
    return np.frombuffer(data, _DTYPES[stored.dtype]).reshape(stored.dims)


@dataclass(frozen=True)
class _Entries:
    entries: tuple[Weight, ...]


def _folder(bundle: Bundle, role: str) -> str:
    head, slash, _ = bundle.graph(role).path.rpartition("/")
    return head + slash
