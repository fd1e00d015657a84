"""What one arm of a benchmark is asked to do, as data: a frozen dataclass, read from TOML.

A file has a table ``[arm.NAME]`` for each arm, and a table ``[every]`` of values that all of them
share. Nothing is measured here; what an arm really computes is in ``identity``.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from hummingbird_runtime.errors import HummingbirdError, InputError, ResourceError, UsageError
from hummingbird_runtime.strict_json import record

KINDS = ("runtime", "torch", "torch-compile", "torch-as-published", "openvino", "external")
MODELS = ("vc2", "09b", "07b", "tiny", "vc2-tiny", "07b-tiny")
BUILT_IN = "tiny"
"""Model of the bundle that comes with the runtime."""

SAMPLERS = ("lcm", "ddim")
DECODERS = ("full", "tiny")
PACKAGED = Path(__file__).parent / "workloads"
"""Workloads that come with the package."""

_AT_LEAST_ONE = ("steps", "passes_per_step", "frames", "height", "width", "threads")
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Workload:
    """One arm: what is computed, by what, and how.

    Raises:
        InputError: ``bench.workload`` for a value out of its range.
    """

    name: str
    """how reports call the arm; unique in a run"""
    kind: str
    """one of ``KINDS``: the program that runs it"""
    bundle: str | None
    """folder of a bundle, relative to the TOML file; None is the built-in one, or no bundle"""
    model: str
    """one of ``MODELS``: layout of the networks, or of their random weights"""
    steps: int
    """steps of the solver"""
    guidance: float | None
    """guidance scale; None is the model's default"""
    passes_per_step: int
    """evaluations of the U-Net a step: 1 with embedded or no guidance, 2 with classifier-free"""
    sampler: str
    """one of ``SAMPLERS``"""
    eta: float
    """share of fresh noise in a DDIM step, 0 to 1"""
    frames: int
    """frames of the clip"""
    height: int
    """pixels"""
    width: int
    """pixels"""
    precision: str
    """number format of the U-Net's weights: fp32, fp16 or int8"""
    provider: str
    """execution provider of ONNX Runtime, or another engine's name of its device"""
    threads: int
    """threads of one run"""
    decoder: str
    """one of ``DECODERS``"""
    prompt: str
    """the sentence"""
    seed: int
    """of the noise, 0 to 2^53"""
    command: tuple[str, ...] = ()
    """program and arguments of an external arm; see ``docs/benchmarks.md`` for what it may hold"""
    unet_passes: int | None = None
    """passes of the U-Net that are measured instead of a whole clip; None is the whole clip"""
    weights_seed: int = 0
    """of random weights"""
    decode_frames: int | None = None
    """frames that a measurement of single passes decodes; None is all of them"""
    encode: str = ""
    """suffix of the file that the clip is written to, such as .mp4; empty: frames in memory"""

    def __post_init__(self) -> None:
        for name, allowed in (
            ("kind", KINDS),
            ("model", MODELS),
            ("sampler", SAMPLERS),
            ("decoder", DECODERS),
        ):
            if getattr(self, name) not in allowed:
                raise _refused(self.name, name, getattr(self, name), f"one of {', '.join(allowed)}")
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise _refused(self.name, name, getattr(self, name), "at least 1")
        for name in ("unet_passes", "decode_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise _refused(self.name, name, value, "at least 1, or nothing")
        if not 0.0 <= self.eta <= 1.0:
            raise _refused(self.name, "eta", self.eta, "0 to 1")
        if self.seed < 0:
            raise _refused(self.name, "seed", self.seed, "0 or more")
        if not self.name.strip() or not self.prompt.strip():
            raise _refused(self.name, "name and prompt", self.prompt, "words in both")
        if (self.kind == "external") != bool(self.command):
            raise _refused(
                self.name, "command", list(self.command), "one for kind external, none for others"
            )

    def to_json(self) -> dict[str, Any]:
        """As JSON values: what a child process reads."""
        values = dataclasses.asdict(self)
        return {**values, "command": list(self.command)}

    def published(self) -> dict[str, Any]:
        """As reports tell it: of the bundle its folder's name, not where it lies."""
        return {**self.to_json(), "bundle": self.bundle and PurePath(self.bundle).name}

    @classmethod
    def from_json(cls, value: object, where: str = "workload") -> Workload:
        """The inverse of ``to_json``; keys with a default may be absent, none may be unknown.

        Raises:
            InputError: ``bench.workload``.
        """
        try:
            return record(cls, value, where)
        except InputError as error:
            if error.code == "bench.workload":
                raise
            raise InputError("bench.workload", error.message, hint=error.hint) from error


def read_workloads(
    path: Path, changes: Mapping[str, Any] = MappingProxyType({})
) -> tuple[Workload, ...]:
    """Every arm of a TOML file, in its order.

    Args:
        path: the file; a bundle named in it lies relative to the file.
        changes: values for every arm in place of those of the file.

    Raises:
        UsageError: ``bench.workload_not_found``.
        ResourceError: ``bench.unreadable``.
        InputError: ``bench.workload`` for a file that breaks the format, or a value out of range.
    """
    found = []
    table = _read_toml(path)
    every, arms = table.pop("every", {}), table.pop("arm", {})
    if table or not isinstance(every, Mapping) or not isinstance(arms, Mapping) or not arms:
        raise InputError(
            "bench.workload",
            f"{path.name}: got {', '.join(table) or 'no table [arm.NAME]'}, expected tables "
            "[arm.NAME] and perhaps [every]",
            hint="see the workloads that come with hummingbird_bench",
        )
    for name, own in arms.items():
        values = {**every, **own, "name": name} if isinstance(own, Mapping) else own
        if isinstance(values, dict):
            values = {"bundle": None, "guidance": None, **values}
            if isinstance(values["bundle"], str):
                values["bundle"] = str((path.parent / values["bundle"]).resolve())
            values |= changes
        work = Workload.from_json(values, f"{path.name}: arm {name}")
        if work.kind in ("runtime", "openvino") and not work.bundle and work.model != BUILT_IN:
            raise _refused(name, "bundle", "none", f"the folder of a bundle of {work.model}")
        found.append(work)
    return tuple(found)


def find_workload(name: str) -> Path:
    """A file by its path, or a packaged one by its name without the suffix.

    Raises:
        UsageError: ``bench.workload_not_found``, which lists the packaged ones.
    """
    path, packaged = Path(name), PACKAGED / f"{name}.toml"
    if path.is_file():
        return path
    if "/" not in name and packaged.is_file():
        return packaged
    known = ", ".join(sorted(file.stem for file in PACKAGED.glob("*.toml")))
    raise UsageError(
        "bench.workload_not_found",
        f"workload, got {name[:200]!r}, expected a TOML file or one of {known}",
        hint="give the path of a file that exists",
    )


def read_workload_json(path: Path) -> Workload:
    """The workload that a child process was started with.

    Raises:
        InputError: ``bench.workload``.
        ResourceError: ``bench.unreadable``.
    """
    try:
        return Workload.from_json(json.loads(path.read_text("utf-8")), path.name)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise InputError("bench.workload", f"{path}: no JSON: {error}", hint="") from error


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(
            "bench.workload_not_found",
            f"workload, got {str(path)[:200]!r}, expected a TOML file",
            hint="give the path of a file that exists",
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if len(data) > _LONGEST:
            raise ValueError(f"{len(data)} bytes, expected at most {_LONGEST}")
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(
            "bench.workload", f"{path.name}: no TOML: {error}", hint="correct the file"
        ) from error


def _unreadable(path: Path, error: OSError) -> HummingbirdError:
    return ResourceError(
        "bench.unreadable", f"{path}: {error.strerror}", hint="check its permissions"
    )


def _refused(arm: str, what: str, got: object, expected: str) -> InputError:
    return InputError(
        "bench.workload",
        f"arm {arm[:80]!r}: {what}, got {str(got)[:80]!r}, expected {expected}",
        hint="correct the workload",
    )
