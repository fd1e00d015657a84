"""``hummingbird bench verify FILE...``: every derived figure again, and the hashes of the rest.

Also what every verb that wrote a document does last: its Markdown and HTML pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench.devices import DEVICE_INDEX, index_page
from hummingbird_bench.html_page import html_page
from hummingbird_bench.markdown import markdown_page
from hummingbird_bench.page import Page
from hummingbird_bench.report import REPORT
from hummingbird_bench.report_page import report_page
from hummingbird_bench.report_tables import fill_tables
from hummingbird_bench.scaling import SCALING, scaling_page
from hummingbird_bench.sealed_document import Kind, Sealed, open_sealed
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.cli.parser import Parser

PAGES: Mapping[str, tuple[Kind[Any], Callable[[Sealed[Any]], Page]]] = {
    REPORT.schema: (REPORT, report_page),
    DEVICE_INDEX.schema: (DEVICE_INDEX, index_page),
    SCALING.schema: (SCALING, scaling_page),
}
"""Documents that can be held against themselves, and how each is shown."""


def open_document(path: Path) -> Sealed[Any]:
    """Read any document of ``PAGES``, see ``open_sealed``."""
    return open_sealed(path, {schema: kind for schema, (kind, _) in PAGES.items()})


def render(path: Path) -> tuple[Path, Path]:
    """Write the Markdown and the HTML page of a document beside it; older ones are replaced.

    Returns:
        The two files.

    Raises:
        HummingbirdError: as ``open_sealed``, and ``output.*``.
    """
    sealed = open_document(path)
    page = PAGES[sealed.kind.schema][1](sealed)
    targets = path.with_suffix(".md"), path.with_suffix(".html")
    for target, text in zip(targets, (markdown_page(page), html_page(page)), strict=True):
        with atomic_file(target, overwrite=True) as partial:
            partial.write_text(text, encoding="utf-8")
    return targets


def main(argv: Sequence[str]) -> int:
    """Run the verb; see its --help. The first file that does not hold ends it with its error."""
    parser = Parser(
        prog="hummingbird bench verify",
        description="Compute every figure of a report again from its raw samples, and check the "
        "hashes. Guards against accidents and sloppy editing, not against forgery.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="report as JSON")
    parser.add_argument("--render", action="store_true", help="write its .md and .html again")
    parser.add_argument(
        "--table",
        type=Path,
        metavar="FILE",
        help="Markdown file whose marked tables (speed-up, reports) are filled from these files",
    )
    parsed = parser.parse(argv)
    documents = []
    for path in parsed.files:
        sealed = open_document(path)
        documents.append((path, sealed))
        print(f"{path}: holds, {sealed.kind.schema}, raw SHA-256 {sealed.sha256}")
        if parsed.render:
            for page in render(path):
                print(page)
    if parsed.table:
        fill_tables(parsed.table, documents)
        print(parsed.table)
    return 0
