"""The child process: reads one archive under limits and prints the index of its tensors as JSON.

The machine cannot run anything; the limits and the audit hook are for faults in Python itself.
The last line of stdout is an object with ``tensors``, ``refused`` or ``malformed``.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
from typing import Any

from hummingbird_export.convert.sandbox.archive import read_archive
from hummingbird_export.convert.sandbox.index import find_tensors, rows
from hummingbird_export.convert.sandbox.machine import Machine
from hummingbird_export.convert.sandbox.values import Malformed, Refused

MEMORY = 2 << 30
"""Bytes of address space."""
CPU_SECONDS = 60
TRESPASS = 86
"""Exit code when something tried to open, import or start anything."""
MAX_LISTED = 40

_HARMLESS = {"builtins.id"}
_CODECS = ("ascii", "latin-1", "utf-8", "raw-unicode-escape", "cp437")


def lock_down() -> None:
    """Limit memory, time and files, then end the process at any further opening or import."""
    for name in _CODECS:
        codecs.lookup(name)
    try:
        import resource
    except ImportError:  # Windows: the parent's time limit and the hook remain
        pass
    else:
        limits = {
            resource.RLIMIT_AS: MEMORY,
            resource.RLIMIT_CPU: CPU_SECONDS,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_CORE: 0,
        }
        for kind, limit in limits.items():
            try:
                resource.setrlimit(kind, (limit, limit))
            except (ValueError, OSError):  # a lower limit holds already, or macOS has none
                continue
    sys.addaudithook(_end)


def _end(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _HARMLESS:
        return
    os.write(2, event.encode("ascii", "replace"))
    os._exit(TRESPASS)


def report(path: str, *, modules: bool, stubs: list[str]) -> dict[str, Any]:
    """Read an archive after ``lock_down``.

    Args:
        path: the archive.
        modules: whether pickled modules are wanted, not only tensors.
        stubs: further packages whose classes are read as data.

    Returns:
        ``{"container", "tensors", "classes"}``, or ``{"refused" or "malformed", "forbidden",
        "classes"}``.
    """
    machine = Machine(stubs)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            lock_down()
            archive = read_archive(file, size)
            root = machine.run(archive.pickle)
            if machine.forbidden:
                raise Refused("names that no checkpoint needs")
            if machine.classes and not modules:
                raise Refused("classes")
            container, tensors = find_tensors(root)
            result: dict[str, Any] = {"container": container, "tensors": rows(tensors, archive)}
    except Refused as refusal:
        result = {"refused": str(refusal)}
    except Malformed as fault:
        result = {"refused" if machine.forbidden else "malformed": str(fault)}
    except MemoryError:
        result = {"refused": f"more than {MEMORY} bytes of memory needed"}
    except Exception as error:  # damage that zipfile and pickletools have no word for
        kind = "refused" if machine.forbidden else "malformed"
        result = {kind: f"a damaged archive: {type(error).__name__}: {error}"}
    for key in result.keys() & {"refused", "malformed"}:
        result[key] = _escaped(result[key], 400)
    named = {"forbidden": list(machine.forbidden), "classes": list(machine.classes)}
    return result | {
        key: [_escaped(name, 120) for name in names[:MAX_LISTED]] for key, names in named.items()
    }


def _escaped(text: str, length: int) -> str:
    """ASCII without control characters, so that look-alike letters and line feeds show."""
    return ascii(text[:length])[1:-1]


def main() -> None:
    """Arguments: path, ``modules`` or ``tensors``, further packages."""
    path, wanted, *stubs = sys.argv[1:]
    answer = json.dumps(report(path, modules=wanted == "modules", stubs=stubs))
    sys.stdout.write(answer)
    sys.stdout.flush()
    os._exit(0)
