"""What the verbs that draw a clip ask for: their shared flags, and the job made of them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hummingbird_runtime.cli.parser import Parser, names, number_in, positive_number, style

if TYPE_CHECKING:
    from hummingbird_runtime.request import Options


@dataclass(frozen=True)
class ClipJob:
    """What to draw and where to."""

    prompt: str | None
    """None is the bundle's example prompt number seed."""
    output: str
    options: Options
    """Keyword arguments of the pipeline."""
    bundle: str | None = None
    providers: tuple[str, ...] | None = None
    threads: int | None = None
    memory_limit: int | None = None
    """MB that the process may hold; None asks the system."""
    style: tuple[str, float] | None = None
    """Adapter file or name, and its strength."""
    fps: float | None = None
    """Playback rate of the file; None is the bundle's."""
    timeout: float | None = None
    force: bool = False
    strict_prompt: bool = False
    quiet: bool = False
    as_json: bool = False


def add_run_options(parser: Parser) -> None:
    """The flags that every drawing verb shares."""
    add = parser.add_argument
    add("--bundle", metavar="DIR", help="bundle folder (default: the built-in one)")
    add("--style", type=style, metavar="STYLE[:S]", help="adapter file or name, and its strength")
    add("--decoder", choices=("full", "tiny"), help="tiny is faster where the bundle has one")
    add("--upscale", action=argparse.BooleanOptionalAction,
        help="frames four times larger (default: where the bundle can)")  # fmt: skip
    add("--providers", type=names, metavar="A,B",
        help="ONNX Runtime execution providers, in order, or auto (default: the CPU)")  # fmt: skip
    add("--threads", type=number_in(1, 1024), metavar="N", help="threads of one graph run")
    add("--memory-limit", type=number_in(1, 1 << 24), metavar="MB",
        help="refuse what needs more memory (default: what the system has)")  # fmt: skip
    add("--timeout", type=positive_number, metavar="S", help="give up after S seconds (exit 7)")
    add("--force", action="store_true", help="replace an existing output file")
    add("--json", action="store_true", help="print one JSON document instead of the path")
    add("-q", "--quiet", action="store_true", help="no progress and no warnings on stderr")


def shared_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of a :class:`ClipJob` that ``add_run_options`` parsed."""
    values = vars(arguments)
    ours = ("bundle", "providers", "threads", "style", "memory_limit", "timeout", "force", "quiet")
    return {name: values[name] for name in ours} | {"as_json": values["json"]}
