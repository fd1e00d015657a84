"""``hummingbird bench vbench DIR``: the real VBench in its own environment, one dimension a run.

The vbench package pins old NumPy and transformers, so it runs as a child process of the interpreter
given by ``--python``, by argument list (its own command line goes through a shell, breaks on spaces
and reports success whatever happens). Finished dimensions are not run twice. ``--offline`` needs
none of that: the weight-free dimension, and proxies by their own names.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_bench.vbench.aggregate import DIMENSIONS, aggregate, normalise
from hummingbird_bench.vbench.offline import judge_offline, offline_table
from hummingbird_bench.vbench.report import score_table, weights_table
from hummingbird_bench.vbench.suite import FLICKER
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli.parser import Parser, names, positive_number
from hummingbird_runtime.errors import (
    ExecutionError,
    HummingbirdError,
    InputError,
    TimeLimitError,
    UsageError,
)
from hummingbird_runtime.output import check_parent, output_error, resolve_output

CUSTOM_DIMENSIONS = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
_RESULTS = "*_eval_results.json"
_LOG_TAIL = 400


@dataclass(frozen=True)
class VBenchRun:
    """How to call the real package."""

    python: Path
    """interpreter of the environment that has it"""
    videos: Path
    """folder of clips"""
    output: Path
    """folder for one sub-folder a dimension"""
    mode: str = "vbench_standard"
    """``vbench_standard`` for the suite's names, ``custom_input`` for any clips"""
    full_info: Path | None = None
    """another VBench_full_info.json than the package's"""
    static_filter: bool = True
    """let VBench pick the static clips before temporal flickering, as its protocol says"""
    timeout: float | None = None
    """seconds of one dimension"""


def measure(run: VBenchRun, dimension: str) -> float:
    """Score one dimension; a result that is there already is read instead.

    Returns:
        The raw mean, 0..1.

    Raises:
        UsageError: ``vbench.python`` when the interpreter cannot be started.
        ExecutionError: ``vbench.failed`` with the end of its log, ``vbench.no_result``.
        TimeLimitError: ``vbench.timeout``.
        InputError: ``vbench.result``, ``vbench.score``.
        ResourceError: ``output.*``.
    """
    folder = run.output / dimension
    found = sorted(folder.glob(_RESULTS))
    if not found:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise output_error(error, folder) from error
        videos = run.videos
        if dimension == FLICKER and run.static_filter and run.mode == "vbench_standard":
            videos = _filter_static(run, folder)
        _call(run, folder, dimension, _evaluate_arguments(run, folder, videos, dimension))
        found = sorted(folder.glob(_RESULTS))
    if not found:
        raise ExecutionError(
            "vbench.no_result",
            f"{dimension}: got no {_RESULTS} in {folder}, expected one",
            hint=f"see {folder / 'log.txt'}",
        )
    return read_result(found[-1], dimension)


def read_result(path: Path, dimension: str) -> float:
    """The mean of one ``*_eval_results.json``: ``{dimension: [mean, per clip]}``.

    Raises:
        InputError: ``vbench.result`` for another form, ``vbench.score`` for NaN.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))[dimension]
        score = float(value[0] if isinstance(value, list) else value)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError(
            "vbench.result",
            f"result {path}: got {type(error).__name__} ({error}), expected "
            f'{{"{dimension}": [mean, [...]]}}',
            hint="delete the file and run the dimension again",
        ) from error
    normalise(dimension, score)
    return score


def main(arguments: Sequence[str]) -> int:
    """Run the verb; see ``hummingbird bench vbench --help``."""
    parsed = _parser().parse(arguments)
    if parsed.weights_list:
        print(weights_table())
        return 0
    if parsed.folder is None or (parsed.python is None and not parsed.offline):
        raise UsageError(
            "usage.arguments",
            "hummingbird bench vbench: got no folder, or no --python, expected both",
            hint="--python VENV runs the real package, --offline needs nothing",
        )
    videos = parsed.folder.resolve()
    if not videos.is_dir() or not any(videos.glob("*.mp4")):
        raise InputError(
            "vbench.no_clips",
            f"folder {videos}: got no .mp4 in it, expected clips",
            hint="draw some with `hummingbird sample --suite vbench -o DIR`",
        )
    if parsed.offline:
        rows, failures = judge_offline(videos)
        print(json.dumps(rows, indent=1) if parsed.json else offline_table(rows))
        return _report_failures(failures)
    output = resolve_output(parsed.output or videos.with_name(videos.name + ".vbench"))
    check_parent(output)
    run = VBenchRun(
        interpreter(parsed.python), videos, output, parsed.mode, parsed.full_json,
        not parsed.no_static_filter, parsed.timeout,
    )  # fmt: skip
    scores, failures = _measure_all(run, _dimensions(parsed), parsed.quiet)
    document = _document(scores)
    with atomic_file(output / "scores.json", overwrite=True) as partial:
        partial.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(document) if parsed.json else score_table(scores))
    return _report_failures(failures)


def interpreter(path: Path) -> Path:
    """The interpreter meant by a path to it, or to a virtual environment.

    Raises:
        UsageError: ``vbench.python``.
    """
    for candidate in (path, path / "bin" / "python", path / "Scripts" / "python.exe"):
        if candidate.is_file():
            return candidate.absolute()  # not resolved: a venv's link is what makes it a venv
    raise UsageError(
        "vbench.python",
        f"--python {path}: got no interpreter there, expected one, or a virtual environment",
        hint="python3.10 -m venv VENV; VENV/bin/pip install vbench",
    )


def _dimensions(parsed: Any) -> tuple[str, ...]:
    allowed = CUSTOM_DIMENSIONS if parsed.mode == "custom_input" else tuple(DIMENSIONS)
    chosen: tuple[str, ...] = parsed.dimensions or allowed
    for name in chosen:
        if name not in allowed:
            raise UsageError(
                "vbench.dimension",
                f"got dimension {name!r} in mode {parsed.mode}, expected one of "
                f"{', '.join(allowed)}",
                hint="write it with underscores; custom_input judges six dimensions only",
            )
    return chosen


def _measure_all(
    run: VBenchRun, dimensions: Sequence[str], quiet: bool
) -> tuple[dict[str, float], dict[str, HummingbirdError]]:
    scores: dict[str, float] = {}
    failures: dict[str, HummingbirdError] = {}
    for number, name in enumerate(dimensions, 1):
        if not quiet:
            print(f"[{number}/{len(dimensions)}] {name}", file=sys.stderr, flush=True)
        try:
            scores[name] = measure(run, name)
        except (ExecutionError, InputError, TimeLimitError) as error:
            failures[name] = error  # one dimension's missing weights must not cost the others
    return scores, failures


def _report_failures(failures: Mapping[str, HummingbirdError]) -> int:
    if not failures:
        return 0
    for name, error in failures.items():
        print(f"failed[{error.code}] {name}: {error}", file=sys.stderr)
    first = next(iter(failures.values()))
    raise ExecutionError(
        "vbench.incomplete",
        f"got {len(failures)} failures ({', '.join(list(failures)[:5])}), expected none",
        hint=first.hint or "see the lines above",
    )


def _document(scores: Mapping[str, float]) -> dict[str, Any]:
    result = aggregate(scores)
    return {
        "scores": dict(scores),
        "quality": result.quality,
        "semantic": result.semantic,
        "total": result.total,
    }


def _evaluate_arguments(run: VBenchRun, folder: Path, videos: Path, dimension: str) -> list[str]:
    arguments = [
        "-m", "vbench.launch.evaluate",
        "--videos_path", str(videos),
        "--dimension", dimension,
        "--output_path", str(folder),
        "--mode", run.mode,
    ]  # fmt: skip
    if run.full_info is not None:
        arguments += ["--full_json_dir", str(run.full_info.resolve())]
    return arguments


def _filter_static(run: VBenchRun, folder: Path) -> Path:
    """Let VBench pick the static clips (RAFT, a CUDA device); returns their folder."""
    work = folder / "static"
    chosen = work / "filtered_videos"
    if not (work / "filtered_static_video.json").is_file():
        shutil.rmtree(chosen, ignore_errors=True)
        code = "import sys; from vbench.cli.vbench import main; sys.argv[0] = 'vbench'; main()"
        arguments = ["-c", code, "static_filter", "--videos_path", str(run.videos)]
        _call(run, folder, FLICKER, [*arguments, "--result_path", str(work)])
    if not any(chosen.glob("*.mp4")):
        raise ExecutionError(
            "vbench.no_static_clips",
            f"{FLICKER}: got no static clip in {chosen}, expected some",
            hint="sample its prompts 25 times each, or use --no-static-filter and say so",
        )
    return chosen


def _call(run: VBenchRun, folder: Path, dimension: str, arguments: Sequence[str]) -> None:
    log = folder / "log.txt"
    try:
        with log.open("ab") as stream:
            done = subprocess.run(
                [str(run.python), *arguments],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                timeout=run.timeout,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise TimeLimitError(
            "vbench.timeout",
            f"{dimension}: got no end within {run.timeout:g} s",
            hint="give a longer --timeout",
        ) from error
    except OSError as error:
        raise UsageError(
            "vbench.python",
            f"--python {run.python}: {error}, expected an interpreter that starts",
            hint="give the python of the environment that has vbench",
        ) from error
    if done.returncode:
        tail = log.read_bytes()[-_LOG_TAIL:].decode("utf-8", "replace")
        raise ExecutionError(
            "vbench.failed",
            f"{dimension}: exit code {done.returncode}; its log ends: {' '.join(tail.split())}",
            hint=f"see {log}; --weights-list says which files it wants",
        )


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird bench vbench",
        description="Judge clips with the real VBench in its own environment, or offline.",
    )
    add = parser.add_argument
    add("folder", nargs="?", type=Path, metavar="DIR", help="clips, named as VBench wants them")
    add("--python", type=Path, metavar="VENV",
        help="environment with the vbench package, or its interpreter")  # fmt: skip
    add("-o", "--output", type=Path, metavar="OUT", help="results (default: DIR.vbench)")
    add("--dimensions", type=names, metavar="A,B", help="default: all of the mode")
    add("--mode", choices=("vbench_standard", "custom_input"), default="vbench_standard",
        help="custom_input judges clips of any name on six dimensions")  # fmt: skip
    add("--full-json", type=Path, metavar="FILE", help="another VBench_full_info.json")
    add("--no-static-filter", action="store_true", help="flickering on all clips, not the static")
    add("--timeout", type=positive_number, metavar="S", help="of one dimension")
    add("--offline", action="store_true", help="only what needs no weights")
    add("--weights-list", action="store_true", help="print what VBench downloads, and stop")
    add("--json", action="store_true", help="print one JSON document instead of the table")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser
