"""The clips that VBench judges: which prompts, how many samples, which file names, which seeds.

VBench finds a clip by its name, ``{prompt}-{i}.mp4``: 5 of each prompt, 25 of those for temporal
flickering, whose static clips it picks itself. Drawing is resumable: a clip counts as done when its
file and its line in the side file (beside the folder, never in it) are both there.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from hummingbird_bench.vbench.aggregate import DIMENSIONS
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.output import check_parent, output_error

FLICKER = "temporal_flickering"
NAME_BYTES = 255


@dataclass(frozen=True)
class SuitePrompt:
    """One sentence and the dimensions it serves; none for a prompt of the user's own."""

    text: str
    """verbatim; it becomes the file name"""
    dimensions: tuple[str, ...] = ()
    """names with underscores"""


@dataclass(frozen=True)
class SuiteConfig:
    """How many clips of which prompts."""

    samples: int = 5
    """of every prompt; VBench reads five"""
    flicker_samples: int = 25
    """of a prompt for temporal flickering"""
    dimensions: tuple[str, ...] = ()
    """only prompts that serve one of these; empty takes all"""
    seed: int = 0
    """mixed into the seed of every clip"""


@dataclass(frozen=True)
class SuiteClip:
    """One clip to draw."""

    prompt: str
    """the sentence"""
    index: int
    """sample number from 0"""
    seed: int
    """of its noise, 64 bits, from (suite seed, prompt, index) alone"""

    @property
    def name(self) -> str:
        """The file name that VBench looks for."""
        return f"{self.prompt}-{self.index}.mp4"


class Clip(Protocol):
    """What a pipeline gives back: a ``Video``."""

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
        """Write it whole or not at all."""


Draw = Callable[[str, int], Clip]
"""(prompt, seed) -> clip; a closure over a pipeline and its options."""


def standard_prompts() -> tuple[SuitePrompt, ...]:
    """The 946 entries of VBench 0.1.5 in its order; two sentences stand in two groups each."""
    found: list[SuitePrompt] = []
    group: tuple[str, ...] = ()
    text = files("hummingbird_bench.vbench").joinpath("prompts.txt").read_text("utf-8")
    for line in text.splitlines():
        if line.startswith("["):
            group = tuple(line.strip("[]").split("+"))
        elif line and not line.startswith("#"):
            found.append(SuitePrompt(line, group))
    return tuple(found)


def read_prompts(path: Path) -> tuple[SuitePrompt, ...]:
    """Read prompts of the user's own.

    Args:
        path: VBench's JSON (a list of objects with ``prompt_en`` and ``dimension``), or any other
            suffix: UTF-8 text, one prompt a line.

    Raises:
        InputError: ``vbench.prompts`` naming the entry.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            found = tuple(SuitePrompt(line.strip()) for line in text.splitlines() if line.strip())
        else:
            found = tuple(
                SuitePrompt(str(entry["prompt_en"]), tuple(map(str, entry["dimension"])))
                for entry in json.loads(text)
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "vbench.prompts",
            f"prompts {path}: got {type(error).__name__} ({error}), expected one prompt a line, or "
            "a JSON list of objects with prompt_en and dimension",
            hint="VBench_full_info.json of the vbench package has this form",
        ) from error
    if not found:
        raise InputError(
            "vbench.prompts", f"prompts {path}: got none, expected at least one",
            hint="write one a line",
        )  # fmt: skip
    return found


def plan_suite(
    prompts: Sequence[SuitePrompt],
    config: SuiteConfig = SuiteConfig(),
) -> list[SuiteClip]:
    """List every clip, one of each name, in the order of the prompts.

    Raises:
        UsageError: ``vbench.dimension`` for an unknown one, or one without prompts.
        InputError: ``vbench.file_name`` for a prompt that cannot be a file name.
    """
    unknown = [name for name in config.dimensions if name not in DIMENSIONS]
    if unknown:
        raise UsageError(
            "vbench.dimension",
            f"got dimension {unknown[0]!r}, expected one of {', '.join(DIMENSIONS)}",
            hint="write it with underscores",
        )
    counts: dict[str, int] = {}
    for prompt in prompts:
        if config.dimensions and not set(config.dimensions) & set(prompt.dimensions):
            continue
        flicker = FLICKER in prompt.dimensions and FLICKER in (config.dimensions or (FLICKER,))
        number = config.flicker_samples if flicker else config.samples
        counts[prompt.text] = max(counts.get(prompt.text, 0), number)
    if not counts:
        raise UsageError(
            "vbench.dimension",
            f"got no prompt for {', '.join(config.dimensions)}, expected at least one",
            hint="leave --dimensions out, or take prompts that name their dimensions",
        )
    clips = [
        SuiteClip(text, i, _seed(config.seed, text, i))
        for text, number in counts.items()
        for i in range(number)
    ]
    for clip in clips:
        _check_name(clip.name)
    return clips


def side_file(folder: Path) -> Path:
    """Where the seeds of a folder's clips stand: beside it, as VBench's folder holds clips only."""
    return folder.with_name(folder.name + ".seeds.jsonl")


def sample_suite(
    draw: Draw, folder: Path, clips: Sequence[SuiteClip], facts: Mapping[str, Any]
) -> Iterator[tuple[SuiteClip, bool]]:
    """Draw what is missing; yields every clip with whether it was drawn now.

    Args:
        draw: makes one clip.
        folder: for the clips only; made when absent, its parent must exist.
        clips: from :func:`plan_suite`.
        facts: what the clips depend on (bundle id, steps, sizes, suite seed); a folder begun with
            others is refused.

    Raises:
        UsageError: ``vbench.other_run`` when the folder was begun with other facts,
            ``vbench.foreign_file`` when it holds something that is no clip.
        ResourceError: ``output.*``.
    """
    check_parent(folder)
    try:
        folder.mkdir(exist_ok=True)
        for stale in folder.glob(".hummingbird-*.partial*"):
            stale.unlink()
        foreign = [p.name for p in sorted(folder.iterdir()) if p.suffix != ".mp4"]
    except OSError as error:
        raise output_error(error, folder) from error
    if foreign:
        raise UsageError(
            "vbench.foreign_file",
            f"folder {folder}: got {foreign[0]!r}, expected .mp4 files only",
            hint="VBench takes the suffix of any file of the folder; choose an empty one",
        )
    log = side_file(folder)
    done = _read_side_file(log, facts)
    try:
        with log.open("a", encoding="utf-8") as stream:
            if not log.stat().st_size:
                _append(stream, dict(facts))
            for clip in clips:
                path = folder / clip.name
                fresh = clip.name not in done or not path.is_file()
                if fresh:
                    draw(clip.prompt, clip.seed).save(path, overwrite=True)
                    if clip.name not in done:
                        _append(stream, {"name": clip.name, **asdict(clip)})
                yield clip, fresh
    except OSError as error:
        raise output_error(error, log) from error


def _append(stream: Any, row: Mapping[str, Any]) -> None:
    stream.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")
    stream.flush()
    os.fsync(stream.fileno())


def _read_side_file(log: Path, facts: Mapping[str, Any]) -> set[str]:
    """Names of finished clips; a line torn by a kill is cut off."""
    try:
        text = log.read_bytes() if log.exists() else b""
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(log, len(whole))
    except OSError as error:
        raise output_error(error, log) from error
    if not whole:
        return set()
    try:
        first, *rows = [json.loads(line) for line in whole.decode().splitlines()]
        done = {str(row["name"]) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            "vbench.seeds_file",
            f"side file {log}: got {type(error).__name__} ({error}), expected JSON lines",
            hint="move it and the clips away, and sample again",
        ) from error
    if first != json.loads(json.dumps(dict(facts))):
        changed = sorted(k for k in {*first, *facts} if first.get(k) != facts.get(k))
        raise UsageError(
            "vbench.other_run",
            f"folder {log.name.removesuffix('.seeds.jsonl')}: got other {', '.join(changed)} than "
            "its clips were drawn with, expected the same",
            hint="name a new folder, or give the options it was begun with",
        )
    return done


def _seed(seed: int, prompt: str, index: int) -> int:
    text = f"{seed}\0{index}\0{prompt}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def _check_name(name: str) -> None:
    size = len(name.encode("utf-8"))
    if size > NAME_BYTES or "/" in name or "\0" in name or (os.name == "nt" and "\\" in name):
        raise InputError(
            "vbench.file_name",
            f"prompt {name[:60]!r}: got {size} bytes, expected a file name of at most "
            f"{NAME_BYTES} bytes without slashes",
            hint="VBench finds clips by prompt; shorten or reword this one",
        )
