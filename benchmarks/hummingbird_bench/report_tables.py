"""Tables of reports inside Markdown files that people write: the README's figures, the index.

A file holds a pair of marks per table; what stands between them is replaced and nothing else is.
Only reports that were just verified are shown. Called by ``hummingbird bench verify --table``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hummingbird_bench import amounts
from hummingbird_bench.devices import machine_words
from hummingbird_bench.markdown import markdown_table
from hummingbird_bench.page import Table
from hummingbird_bench.report import REPORT
from hummingbird_bench.report_page import claims, tags
from hummingbird_bench.sealed_document import Sealed
from hummingbird_runtime.atomic import atomic_file
from hummingbird_runtime.errors import InputError, ResourceError, UsageError

END = "<!-- end of table -->"

Documents = Sequence[tuple[Path, Sealed[Any]]]


def fill_tables(target: Path, documents: Documents) -> None:
    """Replace every marked table of a Markdown file by that of some verified documents.

    Args:
        target: holds at least one mark of ``TABLES``, each followed by ``END``.
        documents: files with what they hold.

    Raises:
        UsageError: ``report.not_found`` for no such file.
        InputError: ``report.no_mark`` for a file without a mark, or a mark without its end.
        ResourceError: ``report.unreadable``; ``output.*``.
    """
    try:
        text = target.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UsageError(
            "report.not_found",
            f"got {str(target)[:200]!r}, expected a Markdown file",
            hint="a file",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(
            "report.unreadable", f"{target}: {error}", hint="check the file"
        ) from error
    found = [mark for mark in TABLES if mark in text]
    if not found or any(END not in text.partition(mark)[2] for mark in found):
        raise InputError(
            "report.no_mark",
            f"{target}: got no table to fill, expected {' or '.join(TABLES)} and then {END}",
            hint="write the two marks, each on a line of its own, where the table is to stand",
        )
    for mark in found:
        head, _, rest = text.partition(mark)
        table = markdown_table(TABLES[mark](documents))
        text = f"{head}{mark}\n\n{table}\n\n{END}{rest.partition(END)[2]}"
    with atomic_file(target, overwrite=True) as partial:
        partial.write_text(text, encoding="utf-8")


def speedup_table(documents: Documents) -> Table:
    """The headline ratios of reports; where a report names none, every ratio but the A/A runs."""
    rows: list[tuple[str, ...]] = []
    for _, sealed in documents:
        if sealed.kind is REPORT:
            arms = {arm["name"]: arm for arm in sealed.derived["arms"]}
            between = [c for c in sealed.derived["comparisons"] if not c["same_work"]]
            rows += [_row(c, arms) for c in between if c["headline"] or not _named(between)]
    return Table(
        "Speed-up",
        (("ours", ""), ("against", ""), ("row", ""), ("a clip", "n"), ("theirs", "n"),
         ("faster", "n"), ("95 % interval", "n"), ("status", "")),
        tuple(rows),
    )  # fmt: skip


def index_table(documents: Documents) -> Table:
    """One row a document: what it is, where and when it was measured, its SHA-256."""
    return Table(
        "Documents",
        (("file", ""), ("what", ""), ("machine", ""), ("measured", ""), ("raw SHA-256", "")),
        tuple(
            (path.name, *_about(sealed), sealed.sha256[:16])
            for path, sealed in sorted(documents, key=lambda one: one[0].name)
        ),
    )


TABLES: Mapping[str, Callable[[Documents], Table]] = {
    "<!-- table: speed-up -->": speedup_table,
    "<!-- table: reports -->": index_table,
}
"""Mark -> the table that stands after it."""


def _named(comparisons: Sequence[Mapping[str, Any]]) -> bool:
    return any(c["headline"] for c in comparisons)


def _row(c: Mapping[str, Any], arms: Mapping[str, Any]) -> tuple[str, ...]:
    sure = claims(c)
    return (
        c["b"],
        c["a"],
        c["row"],
        _clip(arms[c["b"]]),
        _clip(arms[c["a"]]),
        amounts.ratio(c["ratio"]["estimate"]) if sure else "–",
        amounts.interval(c["ratio"]["low"], c["ratio"]["high"]) if sure else "–",
        ", ".join(tags(c)),
    )


def _about(sealed: Sealed[Any]) -> tuple[str, str, str]:
    raw = sealed.raw
    environment, made = getattr(raw, "environment", None), getattr(raw, "made", None)
    return (
        getattr(raw, "title", sealed.kind.schema),
        machine_words(environment)["name"] if environment else "several",
        made.started[:10] if made else "",
    )


def _clip(arm: Mapping[str, Any]) -> str:
    return amounts.seconds(arm["clip"]["median"]) if arm["clip"] else "–"
