"""The dataset that comes out: WebDataset shards, a parquet manifest, data-juicer JSONL, a card.

    shards/shard-000000.tar   {key}.mp4 {key}.json {key}.txt, key = clip id, sorted by it
    manifest.parquet          one row a clip: shard, sizes, caption, source span, scores as JSON
    shards.json               name, SHA-256, bytes and clips of every shard
    clips.jsonl               data-juicer: text with <__dj__video>, the source file in `videos`
    failures.jsonl            clips that could not be packed, with the code and the reason
    README.md                 the dataset card

Clip ids are hashes, so their order is a fixed shuffle. Shards of whole files depend on the clips,
captions and options alone; spans are encoded, see clip_bytes.py. A stopped pack goes on with the
shard that it was at; manifest.parquet comes last and says that all is there.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli.parser import Parser, number_in, positive_number
from hummingbird_runtime.cli.worker import run_cancellable
from hummingbird_runtime.errors import ExecutionError, InputError, TimeLimitError, UsageError
from hummingbird_runtime.output import check_parent, existing_output, output_error, resolve_output
from hummingbird_train.curation.arrow import path_text, plain_text, pyarrow
from hummingbird_train.curation.clip import DJ_CHUNK_END, DJ_VIDEO, Clip
from hummingbird_train.curation.clip_bytes import Encoding, clip_bytes
from hummingbird_train.curation.dataset_card import CardFacts, dataset_card
from hummingbird_train.curation.ledger import Ledger
from hummingbird_train.curation.row import Score
from hummingbird_train.curation.run_folder import RunFolder
from hummingbird_train.curation.selection import Selection, read_selection
from hummingbird_train.curation.shard import ShardFacts, ShardWriter, file_sha256, member_bytes

MANIFEST, SHARDS, JUICER, FAILURES, CARD = (
    "manifest.parquet", "shards.json", "clips.jsonl", "failures.jsonl", "README.md",
)  # fmt: skip
Scores = Mapping[str, Mapping[str, Score]]
_PLAN, _ROWS = "pack.json", ".rows"


@dataclass(frozen=True)
class PackConfig:
    """How a dataset is written."""

    shard_bytes: int = 1 << 30
    """a shard is closed before it passes this, with one clip at least"""
    encoding: Encoding = field(default_factory=Encoding)
    """of spans that are cut out of longer files"""
    licence: str = "not stated"
    """of the clips, for the card"""
    source: str = "not stated"
    """where they come from, for the card"""


@dataclass
class PackSummary:
    """What packing gave."""

    clips: int = 0
    failed: int = 0
    shards: list[ShardFacts] = field(default_factory=list)


def pack(
    run: RunFolder,
    folder: Path,
    config: PackConfig = PackConfig(),
    *,
    overwrite: bool = False,
    cancel: CancelToken | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> PackSummary:
    """Write the kept clips of a run.

    Args:
        run: a run that was scored and cut, perhaps recaptioned.
        folder: for the dataset; a folder begun with the same clips, captions and options goes on.
        config: how.
        overwrite: throw away what another pack wrote there.
        cancel: stops between clips.
        watch: called after every clip with (done, total).

    Raises:
        InputError: ``curation.no_cut``, ``pack.no_clips``.
        UsageError: ``output.exists``, ``pack.other_plan``.
        ResourceError: ``output.disk_full`` and the like; finished shards stay.
        ExecutionError: ``pack.all_failed``.
    """
    token = cancel or CancelToken()
    selection = read_selection(run)
    clips = sorted((clip for clip in run.clips() if selection.kept(clip)), key=lambda c: c.id)
    if not clips:
        raise InputError(
            "pack.no_clips",
            f"run {run.path}: got a cut that keeps no clip, expected one at least",
            hint="loosen the rules and run `hummingbird curate cut RUN` again",
        )
    with Ledger.open(run.path) as ledger:
        scores = ledger.scores(run.stage_versions())
    plan = {"clips": _digest(clips, selection), "shard_bytes": config.shard_bytes,
            "encoding": asdict(config.encoding)}  # fmt: skip
    _begin(folder, plan, overwrite)
    writer = _Pack(folder, config, selection, scores, token)
    for done in writer.run(clips):
        watch(done, len(clips))
    summary = writer.summary
    if not summary.clips:
        raise ExecutionError(
            "pack.all_failed",
            f"packing: got a failure for each of {len(clips)} clips, expected shards",
            hint=f"see {folder / FAILURES}",
        )
    _finish(run, folder, config, selection, scores, summary)
    return summary


class _Pack:
    """Goes through the clips shard by shard; a finished shard has its rows beside it."""

    def __init__(
        self, folder: Path, config: PackConfig, selection: Selection, scores: Scores,
        token: CancelToken,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._config = config
        self._selection = selection
        self._scores = scores
        self._token = token
        self.summary = PackSummary()

    def run(self, clips: Sequence[Clip]) -> Iterator[int]:
        """Write or take over every shard; yields how many clips are done."""
        done = 0
        for number in range(len(clips)):
            name = f"shard-{number:06d}.tar"
            taken = self._finished(name)
            if taken is None:
                for done in self._write(name, clips, done):  # noqa: B020
                    yield done
                taken = self._finished(name)
            assert taken is not None
            facts, count = taken
            self.summary.clips += facts.clips
            self.summary.failed += count["failed"]
            if facts.clips:
                self.summary.shards.append(facts)
            done = count["end"]
            yield done
            if done >= len(clips):
                return

    def _finished(self, name: str) -> tuple[ShardFacts, dict[str, int]] | None:
        """A shard that is whole: its rows are there and its bytes hash to what they say."""
        path, rows = self._folder / "shards" / name, self._rows(name)
        try:
            head = json.loads(rows.read_text("utf-8").partition("\n")[0])
            facts = ShardFacts(**head["shard"])
            whole = not facts.clips or (
                path.stat().st_size == facts.bytes and file_sha256(path) == facts.sha256
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (facts, head["count"]) if whole else None

    def _write(self, name: str, clips: Sequence[Clip], first: int) -> Iterator[int]:
        rows: list[dict[str, Any]] = []
        failures: list[dict[str, str]] = []
        end = first
        with atomic_file(self._folder / "shards" / name, overwrite=True) as partial:
            with ShardWriter(partial) as shard:
                for clip in clips[first:]:
                    self._token.raise_if_cancelled()
                    try:
                        suffix, data = clip_bytes(clip, self._config.encoding)
                    except (InputError, TimeLimitError) as error:
                        failures.append(
                            {"clip_id": clip.id, "uri": path_text(clip.uri), "code": error.code,
                             "error": str(error)[:500]}
                        )  # fmt: skip
                        end += 1
                        continue
                    caption = plain_text(self._selection.caption(clip))
                    row = self._row(clip, caption, suffix, data)
                    parts = {
                        suffix: data,
                        ".json": (json.dumps(row, sort_keys=True) + "\n").encode(),
                        ".txt": (caption + "\n").encode(),
                    }
                    size = sum(member_bytes(len(part)) for part in parts.values())
                    if shard.clips and shard.bytes + size > self._config.shard_bytes:
                        break
                    shard.add(clip.id, parts)
                    rows.append(row)
                    end += 1
                    yield end
            facts = shard.facts(name)
        count = {"end": end, "failed": len(failures)}
        head = {"shard": asdict(facts), "count": count}
        with atomic_file(self._rows(name), overwrite=True) as partial:
            lines = [head, {"failures": failures}, *rows]
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        if not facts.clips:
            (self._folder / "shards" / name).unlink(missing_ok=True)

    def _row(self, clip: Clip, caption: str, suffix: str, data: bytes) -> dict[str, Any]:
        recaption = self._selection.captions.get(clip.id)
        return {
            "clip_id": clip.id,
            "uri": path_text(clip.uri),
            "start": clip.start,
            "end": clip.end,
            "caption": caption,
            "original_caption": plain_text(clip.caption),
            "recaptioner": recaption.recaptioner if recaption and recaption.accepted else "",
            "suffix": suffix,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "scores": dict(self._scores.get(clip.id, {})),
            "meta": {key: plain_text(value) for key, value in clip.meta.items()},
        }

    def _rows(self, name: str) -> Path:
        return self._folder / _ROWS / (name + ".jsonl")


def shard_rows(folder: Path, shard: ShardFacts) -> Iterator[dict[str, Any]]:
    """The rows of a shard that `pack` is not done with."""
    lines = (folder / _ROWS / (shard.name + ".jsonl")).read_text("utf-8").splitlines()
    yield from (json.loads(line) for line in lines[2:])


def _begin(folder: Path, plan: Mapping[str, Any], overwrite: bool) -> None:
    check_parent(folder)
    try:
        folder.mkdir(exist_ok=True)
        names = {path.name for path in folder.iterdir() if not path.name.startswith(".humming")}
        if MANIFEST in names and not overwrite:
            raise existing_output(folder)
        if names and _PLAN not in names:
            raise UsageError(
                "pack.not_ours",
                f"folder {folder}: got files that no pack wrote, expected a new folder or a pack",
                hint="name a new folder",
            )
        if _PLAN in names:
            same = _read_plan(folder / _PLAN) == plan
            if not same and not overwrite:
                raise UsageError(
                    "pack.other_plan",
                    f"folder {folder}: got shards of other clips, captions or options, expected "
                    "those of this pack",
                    hint="name a new folder, or use --force to begin again",
                )
            if not same or MANIFEST in names:
                for old in (*folder.glob("shards/*"), *folder.glob(f"{_ROWS}/*")):
                    old.unlink()
                (folder / MANIFEST).unlink(missing_ok=True)
        for name in ("shards", _ROWS):
            (folder / name).mkdir(exist_ok=True)
            for stale in (folder / name).glob(".hummingbird-*.partial*"):
                stale.unlink()
    except OSError as error:
        raise output_error(error, folder) from error
    _write_text(folder / _PLAN, json.dumps(plan, indent=1) + "\n")


def _read_plan(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        return None


def _finish(
    run: RunFolder,
    folder: Path,
    config: PackConfig,
    selection: Selection,
    scores: Scores,
    summary: PackSummary,
) -> None:
    """Write what stands beside the shards, the manifest last."""
    failures: list[dict[str, str]] = []
    for path in sorted((folder / _ROWS).glob("*.jsonl")):
        failures += json.loads(path.read_text("utf-8").splitlines()[1])["failures"]
    _write_text(folder / FAILURES, "".join(json.dumps(row) + "\n" for row in failures))
    table = {"shards": [asdict(shard) for shard in summary.shards]}
    _write_text(folder / SHARDS, json.dumps(table, indent=1) + "\n")
    facts = CardFacts(run, selection, scores, summary.shards, summary.failed, config.licence,
                      config.source)  # fmt: skip
    _write_text(folder / CARD, dataset_card(facts))
    with atomic_file(folder / JUICER, overwrite=True) as partial, partial.open("wb") as stream:
        for shard in summary.shards:
            stream.writelines(_juicer_line(row) for row in shard_rows(folder, shard))
    _write_manifest(folder, summary.shards)
    for path in (folder / _ROWS).iterdir():
        path.unlink()
    (folder / _ROWS).rmdir()


def _juicer_line(row: Mapping[str, Any]) -> bytes:
    sample = {
        "text": f"{DJ_VIDEO} {row['caption']} {DJ_CHUNK_END}",
        "videos": [row["uri"]],
        "start": row["start"],
        "end": row["end"],
        "__dj__stats__": row["scores"],
        "clip_id": row["clip_id"],
    }
    return (json.dumps(sample, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _write_manifest(folder: Path, shards: Sequence[ShardFacts]) -> None:
    pa, pq, _ = pyarrow()
    kinds = {
        "clip_id": pa.string(), "shard": pa.string(), "uri": pa.string(), "start": pa.float64(),
        "end": pa.float64(), "caption": pa.string(), "original_caption": pa.string(),
        "recaptioner": pa.string(), "suffix": pa.string(), "bytes": pa.int64(),
        "sha256": pa.string(), "scores": pa.string(), "meta": pa.string(),
    }  # fmt: skip
    schema = pa.schema(list(kinds.items()))
    with (
        atomic_file(folder / MANIFEST, overwrite=True) as partial,
        pq.ParquetWriter(partial, schema, compression="zstd") as writer,
    ):
        for shard in shards:
            rows = [
                row | {"shard": shard.name, "scores": json.dumps(row["scores"], sort_keys=True),
                       "meta": json.dumps(row["meta"], sort_keys=True)}
                for row in shard_rows(folder, shard)
            ]  # fmt: skip
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _write_text(path: Path, text: str) -> None:
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def _digest(clips: Sequence[Clip], selection: Selection) -> str:
    """What the shards' bytes come from: the clips and their captions."""
    hasher = hashlib.sha256()
    for clip in clips:
        text = plain_text(selection.caption(clip))
        hasher.update(json.dumps([clip.id, text]).encode())
    return hasher.hexdigest()


def main(argv: Sequence[str]) -> int:
    """Run ``hummingbird curate pack``; see its --help."""
    parsed = _parser().parse(argv)
    folder = resolve_output(parsed.output)
    config = PackConfig(
        shard_bytes=int(parsed.shard_mb * 1e6),
        encoding=Encoding(crf=parsed.crf),
        licence=parsed.licence,
        source=parsed.source,
    )

    def watch(done: int, total: int) -> None:
        if not parsed.quiet and sys.stderr.isatty():
            print(f"\rpacked {done}/{total} ", end="", file=sys.stderr, flush=True)

    summary = run_cancellable(
        lambda token: pack(
            RunFolder(parsed.run), folder, config,
            overwrite=parsed.force, cancel=token, watch=watch,
        )
    )  # fmt: skip
    if summary.failed:
        print(f"{summary.failed} clips failed, see {folder / FAILURES}", file=sys.stderr)
    size = sum(shard.bytes for shard in summary.shards)
    print(f"{summary.clips} clips in {len(summary.shards)} shards, {size / 1e6:.1f} MB: {folder}")
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="hummingbird curate pack",
        description="Write the kept clips as WebDataset shards with manifest and card.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="folder of `curate score`, after `curate cut`")
    add("-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the dataset")
    add("--shard-mb", type=positive_number, default=1000.0, metavar="MB",
        help="size of a shard (default %(default)s)")  # fmt: skip
    add("--crf", type=number_in(0, 51), default=16, metavar="N",
        help="x264 quality of spans cut out of longer files (default %(default)s)")  # fmt: skip
    add("--licence", default="not stated", metavar="TEXT", help="of the clips, for the card")
    add("--source", default="not stated", metavar="TEXT", help="of the clips, for the card")
    add("--force", action="store_true", help="replace what another pack wrote there")
    add("-q", "--quiet", action="store_true", help="no progress on stderr")
    return parser
