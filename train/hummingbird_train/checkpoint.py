"""Training state on disk: a folder a step, complete or not there, that resumes bit for bit.

checkpoints/step_000500/  weights, average, optimizer (safetensors), state.json, and DONE

A folder is written under a temporary name, synced and renamed; DONE, with every file's SHA-256,
follows. A folder without DONE is nothing, and goes at the next start; an old one loses DONE before
its files. No file is a pickle. Tensors are whole, sharded training included, so that a run may go
on with other ranks.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hummingbird_runtime.atomic import atomic_file, atomic_folder
from hummingbird_runtime.errors import InputError
from hummingbird_runtime.output import output_error
from hummingbird_train.models.weights import write_tensors

DONE = "DONE"
FACTS = "state.json"
_NAME = re.compile(r"step_(\d{6,})")

Groups = Mapping[str, Mapping[str, Tensor]]
"""Group (a file) -> name -> tensor."""


class Checkpoints:
    """The complete states of one run.

    Args:
        folder: of the run; states lie in its ``checkpoints``.
        keep: how many of the newest stay, at least 1.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder / "checkpoints", keep

    def steps(self) -> list[int]:
        """Steps with a complete state, rising."""
        found = [_NAME.fullmatch(path.parent.name) for path in self.folder.glob(f"*/{DONE}")]
        return sorted(int(match[1]) for match in found if match)

    def clean(self) -> None:
        """Remove what killed writers left: temporary outputs and folders without DONE."""
        if not self.folder.is_dir():
            return
        for path in self.folder.iterdir():
            partial = path.name.startswith(".hummingbird-")
            if partial or (_NAME.fullmatch(path.name) and not (path / DONE).exists()):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def save(self, step: int, groups: Groups, facts: Mapping[str, Any]) -> Path:
        """Write the state after ``step`` steps and drop the oldest; a complete one stays as it is.

        Raises:
            ResourceError: an ``output.*`` code for what the system refuses; older states stay.
        """
        path = self.folder / f"step_{step:06d}"
        if step not in self.steps():
            if not self.folder.is_dir():
                try:
                    self.folder.mkdir()
                except OSError as error:
                    raise output_error(error, self.folder) from error
            with atomic_folder(path, overwrite=True) as partial:
                for group, tensors in groups.items():
                    flat = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
                    write_tensors(partial / f"{group}.safetensors", flat, {"format": "pt"})
                text = json.dumps({"step": step, **facts}, indent=1, sort_keys=True)
                (partial / FACTS).write_text(text, encoding="utf-8")
                sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
            with atomic_file(path / DONE) as partial:
                partial.write_text(json.dumps(sums, indent=1), encoding="utf-8")
        for old in self.steps()[: -self.keep]:
            gone = self.folder / f"step_{old:06d}"
            try:
                (gone / DONE).unlink()
                shutil.rmtree(gone)
            except OSError as error:
                raise output_error(error, gone) from error
        return path

    def load(self, step: int) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Groups and facts of a complete state.

        Raises:
            InputError: ``checkpoint.corrupt`` when a file is not what DONE says.
        """
        path = self.folder / f"step_{step:06d}"
        try:
            sums = dict(json.loads((path / DONE).read_text(encoding="utf-8")))
            for name, expected in sums.items():
                if _sha256(path / name) != expected:
                    raise ValueError(f"{name} has another SHA-256 than when it was written")
            facts = dict(json.loads((path / FACTS).read_text(encoding="utf-8")))
            files = sorted(path.glob("*.safetensors"))
            return {file.stem: _tensors(file)[0] for file in files}, facts
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise _corrupt(
                path, error, "remove that folder to go on from the state before"
            ) from error


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON facts as one file that is either the old or the new one."""
    flat = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_tensors(path, flat, {"facts": json.dumps(dict(facts))})


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what ``save_state`` wrote.

    Raises:
        InputError: ``checkpoint.corrupt`` when the file cannot be read as such.
    """
    try:
        tensors, metadata = _tensors(path)
        return tensors, json.loads(metadata["facts"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise _corrupt(path, error, "remove it to start this stage again") from error


def _tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, file.metadata() or {}


def _corrupt(path: Path, error: Exception, hint: str) -> InputError:
    return InputError("checkpoint.corrupt", f"training state {path}: {error}", hint=hint)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
