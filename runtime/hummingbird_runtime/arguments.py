"""Checks of single arguments of a call: whole numbers, real numbers, prompts, arrays.

Each takes what a caller may have passed, NumPy scalars included, and gives back a plain Python
value or raises a typed error. A bool is never a number. What a bundle allows is in ``request``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.errors import InputError, UsageError

# far above any text a model reads, far below what could stall the tokenizer
MAX_PROMPT_BYTES = 1 << 16


def whole_number(name: str, value: object) -> int:
    """An int or NumPy integer as an int.

    Raises:
        UsageError: ``request.type`` for anything else, bools and floats included.
    """
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise wrong_type(name, value, "a whole number")


def real_number(name: str, value: object) -> float:
    """A finite int, float or NumPy number as a float.

    Raises:
        UsageError: ``request.type`` for anything else.
        InputError: ``request.not_finite`` for NaN and infinities.
    """
    numbers = int | float | np.integer | np.floating
    if not isinstance(value, numbers) or isinstance(value, bool):
        raise wrong_type(name, value, "a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(
            "request.not_finite",
            f"{name}, got {number}, expected a finite number",
            hint="correct it",
        )
    return number


def prompt_text(name: str, value: object) -> str:
    """A prompt that can be tokenized; empty text is allowed and asks for anything.

    Raises:
        UsageError: ``prompt.type`` for anything but a str.
        InputError: ``prompt.encoding`` for a lone surrogate, ``prompt.too_long`` above the cap.
    """
    if not isinstance(value, str):
        raise UsageError(
            "prompt.type",
            f"{name}, got {type(value).__name__}, expected a str",
            hint="decode bytes first; pass several prompts as a list of str",
        )
    # one character is at most 4 bytes: refuse before encoding a huge text
    size = len(value) if len(value) > MAX_PROMPT_BYTES else _encoded_size(name, value)
    if size > MAX_PROMPT_BYTES:
        raise InputError(
            "prompt.too_long",
            f"{name}, got {size} bytes of text or more, expected at most {MAX_PROMPT_BYTES}",
            hint="describe the clip in one or two sentences",
        )
    return value


def float_array(name: str, value: object, shape: Sequence[int | str]) -> NDArray[np.float32]:
    """A finite floating array of a given shape as float32.

    Args:
        name: the argument.
        value: float16, float32 or float64 array.
        shape: expected sizes; a str stands for a size that is free.

    Raises:
        UsageError: ``request.type`` for anything but a floating NumPy array.
        InputError: ``request.<name>`` for another shape, NaN or values beyond float32.
    """
    if not isinstance(value, np.ndarray) or value.dtype not in (np.float16, np.float32, np.float64):
        raise wrong_type(name, value, "a float16, float32 or float64 NumPy array")
    fits = value.ndim == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, value.shape, strict=True)
    )
    if not fits or not value.size:
        expected = ", ".join(str(size) for size in shape)
        raise InputError(
            f"request.{name}",
            f"{name}, got shape {list(value.shape)}, expected [{expected}]",
            hint="make the array fit the other arguments of the call",
        )
    with np.errstate(over="ignore", invalid="ignore"):
        array: NDArray[np.float32] = value.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError(
            f"request.{name}",
            f"{name}, got NaN, infinities or values beyond float32, expected finite values",
            hint="check where the array was made",
        )
    return array


def wrong_type(name: str, value: Any, expected: str) -> UsageError:
    """The error for an argument of another type."""
    got = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    return UsageError(
        "request.type", f"{name}, got {got}, expected {expected}", hint=f"pass {expected}"
    )


def _encoded_size(name: str, text: str) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InputError(
            "prompt.encoding",
            f"{name}, got a lone surrogate {text[error.start]!a}, expected text in UTF-8",
            hint="decode the text with its real encoding first",
        ) from error
