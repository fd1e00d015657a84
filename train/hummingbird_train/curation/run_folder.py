"""The folder of a curation run: the list of clips, the stages that count, the ledger, the cut.

    clips.parquet   clip_id, uri, start, end, caption, meta (JSON), in the source's order
    stages.json     the source, and name, version, hash and parameters of every stage
    curation.toml   the configuration of the last `score`
    ledger/         see ledger.py
    cut.parquet     clip_id, keep, reason; cut.json: the rules and the funnel

Every file is replaced whole. The list of clips is what a later verb goes by: the ledger may know
clips that the source no longer has.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_runtime.output import check_parent, output_error, resolve_output
from hummingbird_train.curation.arrow import path_text, plain_text, pyarrow, text_path
from hummingbird_train.curation.clip import Clip
from hummingbird_train.curation.ledger import FOLDER, STAGES_FILE
from hummingbird_train.curation.ledger_index import StageKey
from hummingbird_train.curation.stage import Stage

_BATCH = 4096
_OWN = {FOLDER, STAGES_FILE, "clips.parquet", "curation.toml", "cut.parquet", "cut.json"}


class RunFolder:
    """Paths and files of a run. Constructed cheaply; nothing is read before it is asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = resolve_output(path)
        self.clips_file = self.path / "clips.parquet"
        self.stages_file = self.path / STAGES_FILE
        self.config_file = self.path / "curation.toml"
        self.cut_file = self.path / "cut.parquet"
        self.cut_summary = self.path / "cut.json"

    def create(self, source: Path) -> None:
        """Make the folder, or check that it is a run of the same source.

        Raises:
            UsageError: ``curation.not_a_run``, ``curation.other_source``.
            ResourceError: ``output.*``.
        """
        check_parent(self.path)
        try:
            self.path.mkdir(exist_ok=True)
            names = {entry.name for entry in self.path.iterdir() if entry.name[0] != "."}
        except OSError as error:
            raise output_error(error, self.path) from error
        if names and not names & _OWN:
            raise UsageError(
                "curation.not_a_run",
                f"folder {self.path}: got files that no run wrote, expected a new folder or a run",
                hint="name a new folder",
            )
        if self.stages_file.exists() and self.source() != str(source.resolve()):
            raise UsageError(
                "curation.other_source",
                f"run {self.path}: got source {source}, expected {self.source()}",
                hint="score another source into a folder of its own",
            )

    def write_clips(self, clips: Iterable[Clip]) -> tuple[int, int]:
        """Replace the list of clips; returns how many there are, and how many came twice."""
        pa, pq, _ = pyarrow()
        seen: set[bytes] = set()
        twice = 0
        columns: list[tuple[str, str, float, float | None, str, str]] = []
        with (
            atomic_file(self.clips_file, overwrite=True) as partial,
            pq.ParquetWriter(partial, _clip_schema(), compression="zstd") as writer,
        ):

            def flush() -> None:
                arrays = [list(column) for column in zip(*columns, strict=True)]
                writer.write_table(pa.table(arrays, schema=_clip_schema()))
                columns.clear()

            for clip in clips:
                name = bytes.fromhex(clip.id)
                if name in seen:
                    twice += 1
                    continue
                seen.add(name)
                meta = json.dumps(dict(clip.meta), sort_keys=True)
                caption = plain_text(clip.caption)
                uri = path_text(clip.uri)
                columns.append((clip.id, uri, clip.start, clip.end, caption, meta))
                if len(columns) == _BATCH:
                    flush()
            if columns:
                flush()
        return len(seen), twice

    def clips(self) -> Iterator[Clip]:
        """Every clip, in the source's order.

        Raises:
            InputError: ``curation.no_run`` when the folder is no scored run.
        """
        pa, pq, _ = pyarrow()
        if not self.clips_file.is_file():
            raise InputError(
                "curation.no_run",
                f"run {self.path}: got no clips.parquet, expected a folder that was scored",
                hint="run `hummingbird curate score SOURCE -o RUN` first",
            )
        try:
            with pq.ParquetFile(self.clips_file) as file:
                for batch in file.iter_batches(_BATCH, use_threads=False):
                    for row in batch.to_pylist():
                        yield Clip(
                            row["clip_id"], text_path(row["uri"]), row["start"], row["end"],
                            row["caption"], json.loads(row["meta"]),
                        )  # fmt: skip
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise InputError(
                "curation.no_run",
                f"run {self.path}: got a clips.parquet that cannot be read ({error})",
                hint="run `hummingbird curate score` again; nothing is measured twice",
            ) from error

    def write_stages(
        self, source: Path, stages: Sequence[Stage], keys: dict[str, StageKey], config: str
    ) -> None:
        """Replace the record of the stages that count, and the copy of the configuration."""
        table = {
            "source": str(source.resolve()),
            "stages": [
                {
                    "name": stage.name,
                    "version": stage.version,
                    "hash": keys[stage.name][2],
                    "parameters": dict(stage.parameters()),
                }
                for stage in stages
            ],
        }
        self.write_text(self.config_file, config)
        self.write_text(self.stages_file, json.dumps(table, indent=1) + "\n")

    def write_text(self, path: Path, text: str) -> None:
        """Replace one text file of the run."""
        with atomic_file(path, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8", errors="surrogateescape")

    def source(self) -> str:
        """The resolved path of the source that was scored."""
        return str(self._stages_table()["source"])

    def stage_versions(self) -> dict[str, tuple[int, str]]:
        """(version, hash of the parameters) of the stages that count, by name."""
        return {s["name"]: (s["version"], s["hash"]) for s in self._stages_table()["stages"]}

    def _stages_table(self) -> dict[str, Any]:
        try:
            text = self.stages_file.read_text(encoding="utf-8", errors="surrogateescape")
            table: dict[str, Any] = json.loads(text)
        except (OSError, ValueError) as error:
            raise InputError(
                "curation.no_run",
                f"run {self.path}: got no readable {STAGES_FILE}, expected a scored folder",
                hint="run `hummingbird curate score SOURCE -o RUN` first",
            ) from error
        return table


def _clip_schema() -> Any:
    pa, _, _ = pyarrow()
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("uri", pa.string()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("caption", pa.string()),
            ("meta", pa.string()),
        ]
    )
