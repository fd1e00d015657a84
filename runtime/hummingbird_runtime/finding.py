"""One finding of the doctor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "note", "problem"]
    """A problem keeps the runtime from working; a note is only missing."""
    found: str
    fix: str = ""
