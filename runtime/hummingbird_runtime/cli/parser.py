"""The argument parser of every verb: argparse whose refusals are typed errors, and value types."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Sequence
from typing import NoReturn

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.writers import FRAME_RATES

_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")
_REAL = re.compile(r"[+-]?[0-9.]+([eE][+-]?[0-9]+)?")  # float() alone also takes 1_0 and nan


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations; refusals are typed, unknown flags get a suggestion."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and exiting.

        Raises:
            UsageError: ``usage.arguments``.
        """
        raise UsageError("usage.arguments", message, hint=f"see `{self.prog} --help`")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse every word; an unknown flag names the nearest known one.

        Raises:
            UsageError: ``usage.arguments``.
        """
        known, unknown = self.parse_known_args(list(arguments))
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags, n=1)
            suggestion = f", did you mean {near[0]}?" if near else ""
            self.error(f"got unknown argument {unknown[0][:60]!r}{suggestion}")
        if [] in vars(known).values():  # how some Pythons read `--seed=--`
            self.error("got '--' as a value, expected the value of the flag")
        return known


def whole_number(text: str) -> int:
    """An int of at most 20 digits."""
    if not _WHOLE.fullmatch(text.strip()):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a whole number")
    return int(text)


def number_in(low: int, high: int) -> Callable[[str], int]:
    """The type of a whole number from ``low`` to ``high``."""

    def convert(text: str) -> int:
        value = whole_number(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"got {value}, expected {low} to {high}")
        return value

    return convert


def number(text: str) -> float:
    """A finite float in plain digits."""
    try:
        value = float(text) if _REAL.fullmatch(text.strip()) else math.nan
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected a finite number")
    return value


def positive_number(text: str) -> float:
    """A finite float above 0."""
    value = number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected more than 0")
    return value


def frame_rate(text: str) -> float:
    """Frames per second that every file format can say."""
    value, (low, high) = number(text), FRAME_RATES
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected {low:g} to {high:g}")
    return value


def names(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise argparse.ArgumentTypeError(f"got {text[:40]!r}, expected names like A,B")
    return parts


def style(text: str) -> tuple[str, float]:
    """A file or name, then perhaps a colon and a strength: ``ink.safetensors:0.8``."""
    name, colon, strength = text.rpartition(":")
    if not colon or not _REAL.fullmatch(strength):
        return text, 1.0
    return name, number(strength)
