"""The one exception tree. Every error carries a stable code, a hint, and the CLI's exit code.

HummingbirdError
├── UsageError        2   the call itself is wrong (flag, path, suffix, API misuse)
├── InputError        3   bad input data (prompt, size, bundle, checkpoint, media)
├── IntegrityError    4   refused as unsafe, or its hash does not match
├── ResourceError     5   memory, disk, permission, a missing provider or extra
├── ExecutionError    6   numerical or runtime failure
├── TimeLimitError    7   the time limit ran out
└── Cancelled       130   the caller cancelled
"""

from __future__ import annotations

from typing import ClassVar


class HummingbirdError(Exception):
    """Base of every error raised on purpose.

    Args:
        code: stable dotted identifier, e.g. ``bundle.hash_mismatch``; listed in docs/errors.md.
        message: one line: what was wrong, what was got, what was expected.
        hint: one line: how to fix it; may be empty.
    """

    exit_code: ClassVar[int] = 6

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(HummingbirdError):
    """The call itself is wrong: a flag, a path, a suffix, an argument of the API."""

    exit_code = 2


class InputError(HummingbirdError):
    """The data is wrong: prompt, size, bundle, checkpoint or media."""

    exit_code = 3


class IntegrityError(HummingbirdError):
    """Refused as unsafe, or a hash does not match."""

    exit_code = 4


class ResourceError(HummingbirdError):
    """Memory, disk, permission, a missing provider or a missing extra."""

    exit_code = 5


class ExecutionError(HummingbirdError):
    """A graph failed or gave numbers that are not finite."""

    exit_code = 6


class TimeLimitError(HummingbirdError):
    """The time limit of the call ran out."""

    exit_code = 7


class Cancelled(HummingbirdError):
    """The caller cancelled. Nothing was written."""

    exit_code = 130

    def __init__(self, message: str = "cancelled by the caller") -> None:
        super().__init__("runtime.cancelled", message)
