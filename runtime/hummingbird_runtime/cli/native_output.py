"""Standard output is for documents: what native libraries print there is sent to stderr."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

_STDOUT, _STDERR = 1, 2


@contextlib.contextmanager
def native_output_on_stderr() -> Iterator[None]:
    """Inside, file descriptor 1 is stderr; drivers of some execution providers print there."""
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # one of them is closed: nothing to keep apart
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows
            ctypes.CDLL(None).fflush(None)  # what C libraries still hold in their buffers
        os.dup2(kept, _STDOUT)
        os.close(kept)
