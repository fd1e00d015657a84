"""Torch archives through the child process of sandbox/: an index of tensors, nothing executed.

State dicts and whole modules are read alike; a module needs the caller's consent, because its file
names classes. The rules are stricter than those of ``torch.load(weights_only=True)``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hummingbird_export
from hummingbird_export.convert.sandbox import child
from hummingbird_export.convert.sandbox.index import Row
from hummingbird_export.convert.sandbox.names import refusable_stub
from hummingbird_runtime.errors import InputError, IntegrityError, UsageError

TIME_LIMIT_S = 120.0

_COMMAND = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from hummingbird_export.convert.sandbox.child import main; main()"
)


@dataclass(frozen=True)
class Index:
    """Where the tensors of an archive lie."""

    container: str
    """What the pickle is: a state dict, a module of some class, a list."""
    rows: tuple[Row, ...]
    """See ``sandbox.index.Row``."""


def read_index(path: Path, *, modules: bool = False, stubs: Sequence[str] = ()) -> Index:
    """Index a torch archive in a child process with limits.

    Args:
        path: a zip file that torch.save wrote.
        modules: also read whole pickled modules, as data.
        stubs: further packages whose classes such a module may name.

    Raises:
        IntegrityError: ``checkpoint.unsafe_pickle`` for a file that names what no checkpoint needs
            or exceeds the limits, ``checkpoint.pickled_module`` for a module without ``modules``.
        InputError: ``checkpoint.corrupt``.
        UsageError: ``convert.stub`` for a package that may not be read as data.
    """
    for package in stubs:
        if refusable_stub(package):
            raise UsageError(
                "convert.stub",
                f"package {package!r}, got one of Python, torch or NumPy or no package name, "
                "expected the package of a model's own classes",
                hint="leave it out; what this file names there is refused for good reason",
            )
    answer = _ask(path, modules, stubs)
    if "refused" in answer:
        raise _refusal(path, answer, modules)
    if "malformed" in answer:
        raise InputError(
            "checkpoint.corrupt",
            f"checkpoint {path}: got {answer['malformed']}, expected a file that torch.save wrote",
            hint="get the file again and compare its SHA-256",
        )
    return Index(answer["container"], tuple(answer["tensors"]))


def _ask(path: Path, modules: bool, stubs: Sequence[str]) -> dict[str, Any]:
    source = str(Path(hummingbird_export.__file__).resolve().parents[1])
    wanted = "modules" if modules else "tensors"
    command = [sys.executable, "-I", "-S", "-c", _COMMAND, source, str(path), wanted, *stubs]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"refused": f"no result within {TIME_LIMIT_S:g} s"}
    if done.returncode == child.TRESPASS:
        event = done.stderr.decode("utf-8", "replace")
        return {"refused": f"an attempt to reach outside the reader ({event[:60]})"}
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").splitlines() or ["no message"]
        return {"refused": f"the reader ended with code {done.returncode}: {lines[-1][:200]}"}
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _refusal(path: Path, answer: dict[str, Any], modules: bool) -> IntegrityError:
    forbidden, classes = answer.get("forbidden", []), answer.get("classes", [])
    if not forbidden and classes and not modules:
        return IntegrityError(
            "checkpoint.pickled_module",
            f"checkpoint {path}: got a pickle that names classes ({_some(classes)}), expected "
            "tensors only",
            hint="--allow-pickled-module reads such a file as data; nothing in it is run",
        )
    got = f"the names {_some(forbidden)}" if forbidden else answer["refused"]
    return IntegrityError(
        "checkpoint.unsafe_pickle",
        f"checkpoint {path}: got {got}, expected tensors and the classes of a published model; "
        "nothing was run",
        hint="get the file from its publisher; if a name is a class of a model's own package, "
        "add --stub PACKAGE"
        if forbidden and modules
        else "get the file from its publisher, or as safetensors",
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
