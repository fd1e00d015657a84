"""Every system call by which Python code makes a file in a folder, watched one by one.

The n-th can then be made to fail, or the process killed right before it. Removing files is not
watched. What a C library writes by itself (an encoder, safetensors) is not seen either; limits on
the file size or the disk reach that.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

Act = Callable[[int, str], None]
"""Called with the number of the call, from 1, and its name, before the call is made."""


@contextlib.contextmanager
def watched(folder: Path, act: Act) -> Iterator[list[str]]:
    """Call ``act`` before every opening, write, sync and rename in ``folder``; yields the names."""
    names: list[str] = []

    def step(name: str) -> None:
        names.append(name)
        act(len(names), name)

    class Raw(io.FileIO):
        def write(self, data):
            step("write")
            return super().write(data)

        def truncate(self, size=None):
            step("truncate")
            return super().truncate(size)

        def close(self):
            if not self.closed:
                super().close()
                step("close")

        def fileno(self):  # or Pillow would write to it from C
            raise io.UnsupportedOperation

    def inside(path: object) -> bool:
        return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(folder)

    real_open = io.open

    def open_file(path, mode="r", *arguments, **options):
        if not inside(path) or "b" not in mode or mode == "rb":
            return real_open(path, mode, *arguments, **options)
        step("open")
        raw = Raw(path, mode.replace("b", ""))
        return io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)

    def before(name: str):
        real = getattr(os, name)

        def call(*arguments, **options):
            if name == "fsync" or (inside(arguments[0]) and "dir_fd" not in options):
                reads = name == "open" and arguments[1] & (os.O_WRONLY | os.O_RDWR) == 0
                step("open to read" if reads else name)
            return real(*arguments, **options)

        return mock.patch.object(os, name, call)

    with contextlib.ExitStack() as stack:
        for owner in (io, builtins):
            stack.enter_context(mock.patch.object(owner, "open", open_file))
        for name in ("open", "fsync", "replace", "rename", "mkdir"):
            stack.enter_context(before(name))
        yield names
