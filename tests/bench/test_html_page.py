"""The page is one file that needs nothing else, reads well, and says what must be said."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import bench_report
import pytest
from bench_report import OURS
from chromium import chromium, find_chromium

from hummingbird_bench.html_page import html_page
from hummingbird_bench.markdown import markdown_page
from hummingbird_bench.report import REPORT
from hummingbird_bench.report_page import report_page
from hummingbird_bench.sealed_document import check_sealed, seal

VOID = {"meta", "link", "br", "img", "rect", "line", "circle"}


class Reader(HTMLParser):
    """Elements with their attributes, and whether every tag was closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def pages(raw: dict[str, Any]) -> tuple[str, str, Reader]:
    """HTML, Markdown, and the HTML read."""
    page = report_page(check_sealed(seal(REPORT, raw), {REPORT.schema: REPORT}, "it"))
    html = html_page(page)
    reader = Reader()
    reader.feed(html)
    reader.close()
    return html, markdown_page(page), reader


@pytest.fixture(scope="module")
def shown() -> tuple[str, str, Reader]:
    return pages(bench_report.raw_report(pairs=4))


def test_nothing_is_fetched_and_nothing_runs(shown: tuple[str, str, Reader]):
    html, _, reader = shown
    tags = {tag for tag, _ in reader.elements}
    assert not tags & {"script", "link", "iframe", "img", "object", "embed", "base", "use", "image"}
    names = {name for _, attributes in reader.elements for name in attributes}
    assert not names & {"src", "srcset", "onload", "onclick", "style", "xlink:href", "action"}
    links = [a["href"] for tag, a in reader.elements if tag == "a"]
    assert links
    assert all(link and link.startswith("#") for link in links)
    assert not re.search(r"https?:|//|@import|url\(", html.partition("</style>")[0])


def test_tags_are_balanced_and_anchors_lead_somewhere(shown: tuple[str, str, Reader]):
    _, _, reader = shown
    assert reader.open == []
    ids = [a["id"] for _, a in reader.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in reader.elements:
        if (link := attributes.get("href")) is not None:
            assert link.removeprefix("#") in ids
        if (label := attributes.get("aria-labelledby")) is not None:
            assert label in ids


def test_a_table_stands_with_every_drawing(shown: tuple[str, str, Reader]):
    html, markdown, _ = shown
    figures = re.findall(r"<figure.*?</figure>", html, re.DOTALL)
    assert len(figures) >= 9
    for figure in figures:
        assert figure.count("<table>") == 1
        assert "<caption>" in figure
    numbers = re.findall(r"<b>Figure (\d+)\.", html)
    assert numbers == [str(i + 1) for i in range(len(numbers))]
    assert re.findall(r"\*\*Figure (\d+)\.", markdown) == numbers


def test_drawings_have_names_or_are_hidden_from_readers(shown: tuple[str, str, Reader]):
    _, _, reader = shown
    drawings = [a for tag, a in reader.elements if tag == "svg"]
    assert drawings
    for attributes in drawings:
        assert attributes.get("aria-hidden") == "true" or attributes.get("aria-label")
    regions = [a for _, a in reader.elements if a.get("role") == "region"]
    assert regions
    assert all(a.get("aria-label") and a.get("tabindex") == "0" for a in regions)


def test_the_page_has_both_themes_and_a_viewport(shown: tuple[str, str, Reader]):
    html, _, _ = shown
    assert "prefers-color-scheme: dark" in html
    assert 'content="width=device-width,initial-scale=1"' in html
    assert '<html lang="en">' in html


def test_an_invalid_arm_is_shown_and_its_ratio_is_not(shown: tuple[str, str, Reader]):
    html, markdown, _ = shown
    assert '<span class="tag bad">INVALID</span>' in html
    row = next(
        line for line in markdown.splitlines() if line.startswith("| OpenVINO, int8 against")
    )
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:3] == ["–", "–"]
    assert "INVALID" in cells[3]


def test_extrapolated_and_random_are_said_at_the_head(shown: tuple[str, str, Reader]):
    _, markdown, _ = shown
    head = next(line for line in markdown.splitlines() if line.startswith("- **") and OURS in line)
    assert "extrapolated" in head
    assert "architecture only, quality not shown" in head
    assert re.search(r"\*\*\d+\.\d×\*\* 95 % \\\[", head)


def test_every_figure_of_the_tables_is_on_both_pages(shown: tuple[str, str, Reader]):
    _, markdown, reader = shown
    told = " ".join(" ".join(reader.text).split())
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    cells = {c.strip().replace("\\", "") for row in rows for c in re.split(r"(?<!\\)\|", row)}
    wanted = {c for c in cells if c and not set(c) <= set("-:") and ";" not in c}
    assert len(wanted) > 100
    assert {c for c in wanted if c not in told} == set()


def test_too_much_noise_claims_nothing_in_the_tiles(shown: tuple[str, str, Reader]):
    raw = bench_report.raw_report(pairs=4)
    document = seal(REPORT, raw)
    sealed = check_sealed(document, {REPORT.schema: REPORT}, "it")
    for comparison in sealed.derived["comparisons"]:
        if comparison["ratio"]:
            comparison["ratio"]["verdict"] = "too noisy: needs 40 pairs"
    page = report_page(sealed)
    assert {tile.figure for tile in page.tiles} == {"–"}
    assert all("too noisy" in tile.tags for tile in page.tiles)
    assert "too noisy: needs 40 pairs" in html_page(page)


def test_names_cannot_write_into_the_page():
    evil = '<script>alert("1")</script>|`*_[x](y)#'
    raw = bench_report.raw_report(pairs=1)
    raw["title"] = evil
    raw["notes"] = [evil]
    raw["environment"] = {evil: {"deep": evil}}
    html, markdown, reader = pages(raw)
    assert "script" not in {tag for tag, _ in reader.elements}
    assert evil in " ".join(reader.text)
    assert "<script>" not in markdown.replace("\\<", "")
    assert html.count("<title>") == 1


@pytest.mark.web
@pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine")
def test_the_page_fits_a_phone_fetches_nothing_and_logs_nothing(tmp_path: Path):
    path = tmp_path / "report.html"
    path.write_text(pages(bench_report.raw_report(pairs=2))[0], encoding="utf-8")
    with chromium(tmp_path / "profile") as browser:
        for width in (360, 1280):
            tab = browser.tab(width=width, height=800, mobile=width < 500)
            tab.open(path.as_uri())
            # tables scroll in their own boxes; the page itself must not
            assert tab.run("document.documentElement.scrollWidth") == width
            assert tab.problems == []
            assert tab.requests == [path.as_uri()]
