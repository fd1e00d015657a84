"""Model configurations: frozen dataclasses to JSON objects and back, strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, get_args, get_type_hints

from hummingbird_runtime.errors import InputError


class ModelConfig:
    """Base of the frozen dataclasses that describe a network."""

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
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if isinstance(value, list) and all(type(item) is int for item in value):
        value = tuple(value)
    options = get_args(hint)
    if options and not isinstance(options[0], type):  # Literal["a", "b"]
        fits = value in options
    elif isinstance(value, tuple):
        fits = Ellipsis in options
    else:
        fits = type(value) in (options or (hint,))  # `type(...) in`: True is not an int here
    if not fits:
        raise invalid(owner, f"{name} = {value!r}", f"a value of type {hint}")
    return value
