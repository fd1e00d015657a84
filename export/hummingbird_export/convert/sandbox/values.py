"""What a pickle becomes here: plain Python containers and the four inert kinds below."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class Refused(Exception):
    """The file asks for something that no checkpoint needs; it may be an attack."""


class Malformed(Exception):
    """The file is damaged, or is no checkpoint."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name of the file, never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Instance:
    """What would have been an object of a class: its arguments and state, as data."""

    type: Global
    arguments: Any = ()
    states: list[Any] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storage:
    """Numbers of one type in an entry of the archive."""

    dtype: str
    key: str
    numel: int


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor as a view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """A dictionary key that is no plain scalar; compared by identity, so that hashing is cheap."""

    value: Any

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.value is self.value
