"""Captions rewritten for training: one call a distinct caption, cached, retried, guarded.

``hummingbird curate recaption RUN`` writes captions.parquet into the run. The original stays; a
rewrite counts only when the guard accepts it. Answers are kept in captions.sqlite as they come,
so a run that was stopped, or lost its endpoint, goes on without asking twice.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_runtime.cli.worker import run_cancellable
from hummingbird_runtime.errors import (
    ExecutionError,
    HummingbirdError,
    InputError,
    ResourceError,
    UsageError,
)
from hummingbird_train.curation.arrow import plain_text, pyarrow
from hummingbird_train.curation.caption_guard import GuardConfig, check_caption
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.recaptioners.cache import FILE, CaptionCache
from hummingbird_train.curation.recaptioners.retries import (
    RateLimit,
    RetryPolicy,
    Transient,
    with_retries,
)
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.selection import (
    CAPTION_COLUMNS,
    CAPTIONS_FILE,
    Recaption,
    read_selection,
)

KINDS = ("rules", "openai", "local")


class Recaptioner(Protocol):
    """A way to rewrite captions; called from several threads when ``workers`` is above 1."""

    name: str
    """short, for the table"""
    identity: str
    """everything that its answers depend on; the cache's key"""

    def rewrite(self, caption: str) -> str:
        """One line of text, empty when it has nothing to say.

        Raises:
            Transient: worth another try.
            InputError, ExecutionError: this caption will not pass; others may.
            ResourceError: none will.
        """

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class RecaptionConfig:
    """How the captions of a run are asked for."""

    workers: int = 1
    """calls under way at once"""
    per_minute: float | None = None
    """calls; None is no limit"""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """of one call"""
    guard: GuardConfig = field(default_factory=GuardConfig)
    """what a rewrite must keep and must not add"""
    give_up_after: int = 8
    """captions in a row whose every attempt failed, before the run stops"""
    every_clip: bool = False
    """also those that the cut drops"""


@dataclass
class RecaptionSummary:
    """What a run of the recaptioner did."""

    clips: int = 0
    accepted: int = 0
    asked: int = 0
    """calls that were answered"""
    cached: int = 0
    """distinct captions whose answer was known"""
    failed: int = 0
    """distinct captions without an answer"""
    reasons: Counter[str] = field(default_factory=Counter)
    """why rewrites were turned down, without the words that differ"""


@dataclass
class _Ask:
    """Calls a recaptioner: one caption in, a rewrite or a failure out."""

    recaptioner: Recaptioner
    config: RecaptionConfig
    rate: RateLimit
    sleep: Callable[[float], None]

    def __call__(self, caption: str) -> str | Exception:
        def call() -> str:
            self.rate.wait()
            return plain_text(self.recaptioner.rewrite(caption))

        try:
            return with_retries(call, self.config.retry, sleep=self.sleep)
        except (Transient, InputError, ExecutionError) as failure:
            return failure


def recaption(
    run: RunFolder,
    recaptioner: Recaptioner,
    config: RecaptionConfig = RecaptionConfig(),
    *,
    cancel: CancelToken | None = None,
    watch: Callable[[int, RecaptionSummary], None] = lambda done, summary: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RecaptionSummary:
    """Rewrite the captions of a run and write captions.parquet.

    Args:
        run: a scored run; unless ``every_clip``, one that was cut.
        recaptioner: the way.
        config: pace, patience and guard.
        cancel: stops between captions.
        watch: called after every group of captions.
        clock: for the rate limit, seconds.
        sleep: waits between attempts and for the rate limit.

    Raises:
        InputError: ``curation.no_run``, ``curation.no_cut``, ``recaption.cache``.
        ResourceError: ``recaption.unreachable`` after too many failures in a row,
            ``recaption.refused``, ``output.*``.
        Cancelled: by the token.
    """
    token = cancel or CancelToken()

    def pause(seconds: float) -> None:
        while seconds > 0:
            token.raise_if_cancelled()
            sleep(min(seconds, 0.2))
            seconds -= 0.2

    pa, pq, _ = pyarrow()
    schema = _schema(pa)
    summary, in_a_row = RecaptionSummary(), 0
    ask = _Ask(recaptioner, config, RateLimit(config.per_minute, clock=clock, sleep=pause), pause)
    with (
        CaptionCache(run.path / FILE) as cache,
        ThreadPoolExecutor(config.workers) as pool,
        atomic_file(run.path / CAPTIONS_FILE, overwrite=True) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        clips = _wanted(run, config)
        while group := list(islice(clips, 16 * config.workers)):
            token.raise_if_cancelled()
            captions = list(dict.fromkeys(plain_text(clip.caption) for clip in group))
            known: dict[str, str | Exception] = {**cache.find(recaptioner.identity, captions)}
            summary.cached += len(known)
            missing = [caption for caption in captions if caption.strip() and caption not in known]
            for start in range(0, len(missing), config.workers):
                some = missing[start : start + config.workers]
                answers = dict(zip(some, pool.map(ask, some), strict=True))
                good = {k: v for k, v in answers.items() if isinstance(v, str)}
                cache.add(recaptioner.identity, good)
                known |= answers
                summary.asked += len(good)
                summary.failed += len(answers) - len(good)
                for answer in answers.values():
                    in_a_row = in_a_row + 1 if isinstance(answer, Transient) else 0
                    if in_a_row >= config.give_up_after:
                        raise _unreachable(recaptioner, in_a_row, answer)
                token.raise_if_cancelled()
            rows = [_row(clip, known, recaptioner.name, config.guard) for clip in group]
            columns = [list(column) for column in zip(*map(astuple, rows), strict=True)]
            writer.write_table(pa.table(columns, schema=schema))
            summary.clips += len(rows)
            summary.accepted += sum(row.accepted for row in rows)
            summary.reasons.update(_kind(row.reason) for row in rows if not row.accepted)
            watch(summary.clips, summary)
    return summary


def _wanted(run: RunFolder, config: RecaptionConfig) -> Iterator[Clip]:
    if config.every_clip:
        yield from run.clips()
        return
    selection = read_selection(run)
    yield from (clip for clip in run.clips() if selection.kept(clip))


def _row(clip: Clip, known: dict[str, str | Exception], name: str, guard: GuardConfig) -> Recaption:
    original = plain_text(clip.caption)
    answer = known.get(original, "")
    if not original.strip():
        return Recaption(clip.id, original, "", original, name, False, "no caption")
    if isinstance(answer, Exception):
        why = answer.code if isinstance(answer, HummingbirdError) else str(answer)
        return Recaption(clip.id, original, "", original, name, False, f"failed: {why}")
    verdict = check_caption(original, answer, guard)
    chosen = answer if verdict.accepted else original
    return Recaption(clip.id, original, answer, chosen, name, verdict.accepted, verdict.reason)


def _kind(reason: str) -> str:
    """A reason's first words: what it has in common with others."""
    return " ".join(reason.split()[:2]).rstrip(":,")


def _unreachable(recaptioner: Recaptioner, count: int, answer: object) -> ResourceError:
    return ResourceError(
        "recaption.unreachable",
        f"{recaptioner.name}: got no answer to {count} captions in a row, the last: {answer}",
        hint="see whether the endpoint is up; the same command goes on where it stopped",
    )


def _schema(pa: Any) -> Any:
    kinds = [pa.bool_() if name == "accepted" else pa.string() for name in CAPTION_COLUMNS]
    return pa.schema(list(zip(CAPTION_COLUMNS, kinds, strict=True)))


def main(argv: Sequence[str]) -> int:
    """Run ``hummingbird curate recaption``; see its --help."""
    parsed = _parser().parse(argv)
    run = RunFolder(parsed.run)
    with_network = parsed.recaptioner == "openai"
    config = RecaptionConfig(
        workers=parsed.workers or (4 if with_network else 1),
        per_minute=parsed.per_minute,
        retry=RetryPolicy(attempts=parsed.attempts),
        every_clip=parsed.every_clip,
    )
    next(iter(_wanted(run, config)), None)  # a folder that is no run fails before a model is opened
    recaptioner = make_recaptioner(parsed)
    began = time.monotonic()

    def watch(done: int, summary: RecaptionSummary) -> None:
        if not parsed.quiet and sys.stderr.isatty():
            pace = done / max(time.monotonic() - began, 1e-9)
            text = f"{done} clips  {pace:.1f}/s  {summary.accepted} accepted"
            print(f"\r{text}  {summary.failed} failed ", end="", file=sys.stderr, flush=True)

    try:
        summary = run_cancellable(
            lambda token: recaption(run, recaptioner, config, cancel=token, watch=watch)
        )
    finally:
        recaptioner.close()
    print(_text(summary, recaptioner.name))
    return 0


def make_recaptioner(parsed: Any) -> Recaptioner:
    """The recaptioner that the command line names.

    Raises:
        UsageError: ``usage.arguments``, ``recaption.endpoint``.
        ResourceError: ``extra.missing``.
        InputError: ``recaption.model``.
    """
    if parsed.recaptioner == "rules":
        from hummingbird_train.curation.recaptioners.rules import RulesRecaptioner

        return RulesRecaptioner()
    if parsed.recaptioner == "local":
        from hummingbird_train.curation.recaptioners.local_llm import LocalConfig, LocalRecaptioner

        model = None if parsed.model is None else Path(parsed.model)
        return LocalRecaptioner(LocalConfig(model=model, threads=parsed.threads))
    from hummingbird_train.curation.recaptioners.openai_compatible import (
        EndpointConfig,
        OpenAICompatible,
    )

    if parsed.model is None or parsed.base_url is None:
        raise UsageError(
            "usage.arguments",
            "recaption: got no --base-url or no --model, expected both for the openai recaptioner",
            hint="for example --base-url http://localhost:8000/v1 --model NAME",
        )
    return OpenAICompatible(
        EndpointConfig(
            parsed.base_url, parsed.model, parsed.key_variable, parsed.timeout
        )
    )  # fmt: skip


def _text(summary: RecaptionSummary, name: str) -> str:
    lines = [
        f"{name}: {summary.accepted} of {summary.clips} captions rewritten",
        f"{summary.asked} asked, {summary.cached} known already, {summary.failed} without answer",
    ]
    lines += [
        f"  {count:6} kept as they were: {why}" for why, count in summary.reasons.most_common()
    ]
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird curate recaption",
        description="Rewrite the captions of the clips that a cut keeps; originals stay.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of `curate score`, after `curate cut`")
    add("--recaptioner", choices=KINDS, default="rules",
        help="rules: offline; openai: a compatible endpoint; local: a small model")  # fmt: skip
    add("--base-url", metavar="URL", help="of the endpoint, ending in /v1")
    add("--model", metavar="NAME", help="the endpoint's model; for local a .gguf file")
    add("--key-variable", default="OPENAI_API_KEY", metavar="NAME",
        help="environment variable with the key (default %(default)s)")  # fmt: skip
    add("--timeout", type=positive_number, default=60.0, metavar="S", help="of one call")
    add("--attempts", type=number_in(1, 100), default=5, metavar="N", help="calls for one caption")
    add("--per-minute", type=positive_number, metavar="N", help="at most so many calls")
    add("--workers", type=number_in(1, 256), metavar="N", help="calls at once (openai: 4)")
    add("--threads", type=number_in(1, 256), default=1, metavar="N", help="of the local model")
    add("--every-clip", action="store_true", help="also clips that the cut drops")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser
