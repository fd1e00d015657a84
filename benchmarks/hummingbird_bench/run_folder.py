"""The folder of a measurement: what is measured, every finished run as a line, logs of the arms.

``samples.jsonl`` is only ever appended to, each line synced to the disk, so that a killed
measurement goes on where it stopped: a last line without its end is dropped, all others count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench.sample import Sample
from hummingbird_bench.workload import Workload
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError, ResourceError, UsageError
from hummingbird_runtime.strict_json import parse_json

SAMPLES = "samples.jsonl"
PLAN = "measurement.json"
IDENTITIES = "identities.json"
_LIMIT = 64 << 20


class RunFolder:
    """One measurement on disk.

    Args:
        path: the folder; made where its parent exists.
        plan: what is measured, as JSON values; must equal that of an earlier start.

    Raises:
        UsageError: ``bench.other_measurement`` when the folder holds another one, ``output.*``.
        InputError: ``bench.sample`` for a damaged line that is not the last.
        ResourceError: ``bench.unreadable``, ``output.*``.
    """

    def __init__(self, path: Path, plan: Mapping[str, Any]) -> None:
        self.path = path
        self.samples: list[Sample] = []
        self.identities: dict[str, dict[str, Any]] = {}
        try:
            path.mkdir(exist_ok=True)
            (path / "logs").mkdir(exist_ok=True)
        except OSError as error:
            raise ResourceError(
                "bench.unreadable", f"{path}: {error.strerror}", hint="give a folder you may write"
            ) from error
        text = json.dumps(plan, indent=1, sort_keys=True) + "\n"
        kept = path / PLAN
        if kept.exists():
            if kept.read_text("utf-8") != text:
                raise UsageError(
                    "bench.other_measurement",
                    f"{path}: got the runs of another measurement, expected this one",
                    hint="give another folder, or the workloads and options of before",
                )
            self.identities = _object(path / IDENTITIES)
            self.samples = self._read()
        else:
            with atomic_file(kept) as partial:
                partial.write_text(text, encoding="utf-8")

    @property
    def logs(self) -> Path:
        """Where requests and logs of the arms lie."""
        return self.path / "logs"

    def append(self, sample: Sample) -> None:
        """Keep one finished run, on the disk before this returns.

        Raises:
            ResourceError: ``bench.unreadable``.
        """
        line = json.dumps(sample.to_json(), allow_nan=False) + "\n"
        try:
            with (self.path / SAMPLES).open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResourceError(
                "bench.unreadable",
                f"{self.path / SAMPLES}: {error.strerror}",
                hint="make room, then start the same measurement again: it goes on",
            ) from error
        self.samples.append(sample)

    def identify(self, arm: str, identity: Mapping[str, Any]) -> None:
        """Keep what an arm told of itself.

        Raises:
            InputError: ``bench.changed_arm`` when it told something else before.
        """
        told = json.loads(json.dumps(identity))
        if arm in self.identities:
            before = self.identities[arm]
            odd = sorted(k for k in {*before, *told} if before.get(k) != told.get(k))
            if odd:
                raise InputError(
                    "bench.changed_arm",
                    f"arm {arm}: got another {', '.join(odd)} than in its earlier runs",
                    hint="measure into a new folder",
                )
            return
        self.identities[arm] = told
        with atomic_file(self.path / IDENTITIES, overwrite=True) as partial:
            partial.write_text(json.dumps(self.identities, indent=1), encoding="utf-8")

    def _read(self) -> list[Sample]:
        """Every whole line; a torn end is cut off the file."""
        path = self.path / SAMPLES
        if not path.exists():
            return []
        data = path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            with path.open("r+b") as file:
                file.truncate(whole)
                os.fsync(file.fileno())
        found = []
        for number, line in enumerate(data[:whole].splitlines(), 1):
            where = f"{path}, line {number}"
            try:
                value = parse_json(line, what=where, limit=_LIMIT)
            except InputError as error:
                raise InputError("bench.sample", error.message, hint="measure again") from error
            found.append(Sample.from_json(value, where))
        return found


def measurement_plan(workloads: Sequence[Workload], options: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two starts the same measurement, as JSON values."""
    return {"workloads": [work.to_json() for work in workloads], **options}


def _object(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value = parse_json(path.read_bytes(), what=str(path), limit=_LIMIT)
    return value if isinstance(value, dict) else {}
