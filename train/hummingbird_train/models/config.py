"""Model configurations: frozen dataclasses to JSON objects and back, strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from hummingbird_runtime.errors import InputError


class ModelConfig:
    """Base of the frozen dataclasses that describe a network."""

    def __post_init__(self) -> None:
        """Refuse counts below one; subclasses add what must fit together."""
        for name, value in self.to_json().items():
            counts = value if isinstance(value, list) else [value]
            if any(type(n) is int and n < 1 for n in counts):
                raise invalid(type(self).__name__, f"{name} = {value}", "at least 1")

    def to_json(self) -> dict[str, Any]:
        """Every field, tuples as lists; ``from_json`` gives an equal object back."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from a JSON object; a field that is left out takes its default.

        Raises:
            InputError: ``checkpoint.config`` for an unknown field, a value of the wrong type, or
                values that do not fit together.
        """
        hints = get_type_hints(cls)
        known = {f.name: hints[f.name] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise invalid(cls.__name__, f"unknown fields {unknown}", f"some of {sorted(known)}")
        return cls(**{n: _checked(cls.__name__, n, v, known[n]) for n, v in values.items()})


def invalid(owner: str, got: str, expected: str) -> InputError:
    """The error of a configuration that describes no network."""
    return InputError(
        "checkpoint.config",
        f"{owner}: got {got}, expected {expected}",
        hint="correct the configuration, or start from one of the presets",
    )


def _checked(owner: str, name: str, value: Any, hint: Any) -> Any:
    """``value`` as the annotated type, or InputError."""
    if hint is float and type(value) is int:
        return float(value)
    # `type(...)` rather than isinstance: True is no int here.
    if get_origin(hint) is tuple:
        if type(value) in (list, tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
    elif type(value) in (get_args(hint) or (hint,)):
        return value
    raise invalid(owner, f"{name} = {value!r}", f"a value of type {hint}")
