"""``hummingbird bench devices FILE...``: one index of what many devices measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench.devices import DEVICE_INDEX, measurements_of, merge
from hummingbird_bench.report import REPORT
from hummingbird_bench.sealed_document import canonical, check_sealed, read_json, write
from hummingbird_bench.verify_verb import render
from hummingbird_runtime.cli.parser import Parser


def main(argv: Sequence[str]) -> int:
    """Run ``hummingbird bench devices``; see its --help."""
    parser = Parser(
        prog="hummingbird bench devices",
        description="Merge what many devices measured into one index, as JSON, Markdown and HTML.",
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE",
        help="device measurement of the app or the web page, or a report")  # fmt: skip
    add("-o", "--output", type=Path, default=Path("devices.json"), metavar="FILE",
        help="the index (default %(default)s); pages beside it")  # fmt: skip
    add("--force", action="store_true", help="replace an existing index")
    parsed = parser.parse(argv)
    documents: list[tuple[str, str, Any]] = []
    for path in parsed.files:
        value = read_json(path)
        if isinstance(value, dict) and value.get("schema") == REPORT.schema:
            found = measurements_of(check_sealed(value, {REPORT.schema: REPORT}, str(path)))
        else:
            found = [value]
        for one in found:
            sha256 = hashlib.sha256(canonical(one, path.name)).hexdigest()
            documents.append((path.name, sha256, one))
    write(DEVICE_INDEX, merge(documents), parsed.output, overwrite=parsed.force)
    print(parsed.output, *render(parsed.output), sep="\n")
    return 0
