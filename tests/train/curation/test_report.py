"""The report: whole in one file, every figure right, hostile text harmless."""

from __future__ import annotations

import base64
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pytest
from curation_run import few_clips, make_run

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.curation.contact_sheet import strip_uri
from hummingbird_train.curation.histogram import histogram, text_bars
from hummingbird_train.curation.margins import margins
from hummingbird_train.curation.recaption import recaption
from hummingbird_train.curation.recaptioners.rules import RulesRecaptioner
from hummingbird_train.curation.report import build_report, main
from hummingbird_train.curation.report_charts import histogram_svg
from hummingbird_train.curation.run_folder import RunFolder

pytest.importorskip("pyarrow")
pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
VOID = {"meta", "img", "rect", "line", "br"}


class _Page(html.parser.HTMLParser):
    """Checks nesting; collects tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("report")
    captions = [f"a box number {i} moves" for i in range(9)] + [EVIL]
    clips = few_clips(folder / "clips", captions)
    scores = {
        clip.id: {"sharp": {"var": float(i)}, "probe": {"duration": 60.0, "codec": "h264"}}
        for i, clip in enumerate(clips)
    }
    del scores[clips[4].id]["sharp"]  # a stage that failed
    run = make_run(folder / "run", clips, scores, {"sharp.var": {"min": 3.0}})
    recaption(run, RulesRecaptioner())
    return run


@pytest.fixture(scope="module")
def text(run: RunFolder) -> str:
    return build_report(run, clips_each=2)


def test_the_page_is_well_formed_and_needs_nothing_else(text: str) -> None:
    page = _Page(text)
    assert text.startswith("<!doctype html>")
    names = [tag for tag, _ in page.tags]
    assert "script" not in names
    assert "link" not in names
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/webp;base64,", "#"))
    assert "url(" not in text
    assert "@import" not in text


def test_hostile_captions_stay_text(text: str) -> None:
    page = _Page(text)
    assert "<script>alert(1)" in page.text
    assert not [a for tag, a in page.tags if tag == "img" and a.get("src") == "x"]


def test_a_reader_who_sees_no_pictures_gets_the_figures(text: str) -> None:
    page = _Page(text)
    assert dict(page.tags)["html"] == {"lang": "en"}
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes.get("aria-label") or attributes.get("aria-hidden") == "true"
        if tag == "th":
            assert attributes["scope"] in ("row", "col")
    anchors = {a["id"] for _, a in page.tags if "id" in a}
    links = {str(a["href"])[1:] for tag, a in page.tags if tag == "a"}
    assert links <= anchors
    assert {"funnel", "scores", "clips", "captions", "throughput", "failures"} <= anchors
    assert "prefers-color-scheme:dark" in text


def test_the_figures_are_those_of_the_run(text: str) -> None:
    words = " ".join(_Page(text).text.split())
    assert "10clips listed" in words
    assert "6kept (60.0%)" in words
    assert "6.0 minof video kept" in words
    assert "1clips with a failed stage" in words
    assert re.search(r"sharp\.var < 3\s*3\s*3", words)
    assert re.search(r"sharp\.var missing\s*1\s*1", words)
    assert "clip.corrupt" in words
    assert "torn <b>" in words
    assert "sharp9109.0" in words  # 9 measured, 1 failed, 0 skipped, 90 ms over 10 clips


def test_histograms_carry_their_threshold_and_what_is_kept(text: str) -> None:
    labels = [a["aria-label"] for tag, a in _Page(text).tags if tag == "svg" and "aria-label" in a]
    sharp = next(str(label) for label in labels if str(label).startswith("sharp.var"))
    assert sharp == "sharp.var: 9 clips from 0 to 9, 6 kept, min 3"


def test_sheets_show_best_and_borderline_and_no_clip_twice(text: str) -> None:
    page = _Page(text)
    pictures = [str(a["src"]) for tag, a in page.tags if tag == "img"]
    assert len(pictures) == 2 + 2 + 2 + 1 + 1
    assert len(set(pictures)) == len(pictures)
    order = [page.text.index(t) for t in ("Best kept", "Borderline kept", "Borderline dropped",
                                          "Worst dropped", "Dropped by a flag")]  # fmt: skip
    assert order == sorted(order)
    best = page.text[order[0] : order[1]]
    assert "sharp.var = 9" in best
    assert "sharp.var = 8" in best
    assert "sharp.var = 3" in page.text[order[1] : order[2]]
    assert "sharp.var = 2" in page.text[order[2] : order[3]]
    assert "sharp.var = 0" in page.text[order[3] : order[4]]


def test_a_strip_is_four_frames_of_the_clip_in_order(tmp_path: Path) -> None:
    clip = few_clips(tmp_path / "clips", ["a box"])[0]
    data = base64.b64decode(strip_uri(clip, height=32).partition(",")[2])
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("L"), np.float64)
    assert picture.shape == (32, 4 * 32 + 3 * 2)
    starts = []
    for i in range(4):
        frame = picture[:, 34 * i : 34 * i + 32]
        starts.append(float((frame > 225).sum(0) @ np.arange(32)) / max((frame > 225).sum(), 1))
    assert starts == sorted(starts)  # the box moves right
    Path(clip.uri).write_bytes(b"torn")
    assert strip_uri(clip) == ""


def test_margins_are_the_nearest_threshold_in_interquartile_ranges() -> None:
    scores = {str(i): {"a.x": float(i), "b.y": 0.5 + i, "c.z": "text"} for i in range(5)}
    rules = [{"score": "a.x", "min": 1.0, "max": None}, {"score": "b.y", "max": 3.0},
             {"score": "c.z", "min": 1.0}]  # fmt: skip
    near = margins(scores, rules[:1])
    assert [near[str(i)].distance for i in range(5)] == [-0.5, 0.0, 0.5, 1.0, 1.5]
    both = margins(scores, rules)
    assert [both[str(i)].score for i in range(5)] == ["a.x", "a.x", "b.y", "b.y", "b.y"]
    assert both["4"].distance == -0.75  # (3 - 4.5) / 2


def test_a_flag_ranks_no_clip() -> None:
    scores = {str(i): {"shots.cuts": i % 2, "a.x": float(i)} for i in range(6)}
    assert margins(scores, [{"score": "shots.cuts", "max": 0.0}]) == {}
    rules = [{"score": "shots.cuts", "max": 0.0}, {"score": "a.x", "min": 0.0}]
    assert {margin.score for margin in margins(scores, rules).values()} == {"a.x"}


def test_a_far_tail_is_counted_and_not_drawn() -> None:
    values = [*np.linspace(0, 1, 998).tolist(), 1e6, -1e6]
    shown = histogram("a.x", values, [True] * 500 + [False] * 500)
    assert (shown.below, shown.above) == (1, 1)
    assert shown.edges[-1] < 2
    assert int(shown.every.sum()) == 998
    assert int(shown.kept.sum()) == 500
    constant = histogram("a.x", [7.0, 7.0], [True, False])
    assert int(constant.every.sum()) == 2
    assert "aria-label" in histogram_svg(constant, {"min": 100.0, "max": None})
    assert len(text_bars(shown)) == 8


def test_the_verb_writes_into_the_run_or_where_it_is_told(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(run.path), "--clips", "0"]) == 0
    assert capsys.readouterr().out.strip() == str(run.path / "report.html")
    assert "Best kept" not in (run.path / "report.html").read_text("utf-8")
    main([str(run.path), "--clips", "0"])  # the run's own page is replaced
    target = tmp_path / "page.html"
    assert main([str(run.path), "-o", str(target), "--clips", "0"]) == 0
    with pytest.raises(UsageError, match="exists"):
        main([str(run.path), "-o", str(target), "--clips", "0"])


def test_a_run_without_a_cut_is_refused(tmp_path: Path) -> None:
    clips = few_clips(tmp_path / "clips", ["a box"])
    uncut = make_run(tmp_path / "run", clips, {clips[0].id: {"s": {"k": 1.0}}}, None)
    with pytest.raises(InputError, match="curate cut"):
        build_report(uncut)
