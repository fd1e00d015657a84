"""The look as numbers: contrast, one grid of sizes, icons, fonts, and texts in every language."""

from __future__ import annotations

import re
import string
from pathlib import Path

import numpy as np
import pytest

from hummingbird_demo import catalogue as texts
from hummingbird_demo import theme
from hummingbird_demo.fonts import HAN, HAN_FILE, LATIN, font_of
from hummingbird_demo.icons import ICONS, MARK, rasterize, rasterize_mark

UI = Path(texts.__file__).parent / "ui"
PAIRS = [
    ("text", "background"), ("text", "surface"), ("text", "raised"), ("text", "stage"),
    ("muted", "background"), ("muted", "surface"), ("muted", "raised"), ("muted", "stage"),
    ("muted", "line"), ("text", "line"), ("on_accent", "accent"), ("on_soft", "soft"),
    ("accent", "background"), ("accent", "surface"), ("on_danger", "danger"),
    ("danger", "background"), ("danger", "surface"), ("danger", "stage"), ("background", "text"),
]  # fmt: skip


@pytest.mark.parametrize("palette", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("ink", "ground"), PAIRS)
def test_every_text_colour_has_the_contrast_that_wcag_asks_for(palette, ink, ground):
    limit = 4.5  # WCAG 2.2, success criterion 1.4.3, level AA
    if (ink, ground) == ("muted", "line"):
        limit = 4.0  # the word of a button that cannot be pressed; 1.4.3 exempts those
    assert theme.contrast(getattr(palette, ink), getattr(palette, ground)) >= limit


def test_contrast_agrees_with_the_known_ends():
    assert theme.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert theme.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # WebAIM's value


def test_three_type_sizes_and_no_others():
    assert len(theme.TYPE) == 3
    for path in [*UI.glob("*.py"), *UI.glob("*.kv")]:
        for size in re.findall(r"font_size\s*[:=]\s*(.+)", path.read_text(encoding="utf-8")):
            assert "TYPE[" in size, f"{path.name}: {size}"


def test_gaps_and_heights_lie_on_the_grid_or_half_of_it():
    odd = {
        f"{path.name}: {number}"
        for path in UI.glob("*.py")
        for number in re.findall(r"(?:spacing|padding|height)=\(?dp\((\d+)\)", path.read_text())
        if int(number) % (theme.GRID // 2)
    }
    assert not odd


@pytest.mark.parametrize("name", ICONS)
def test_an_icon_is_drawn_inside_its_square_with_smooth_edges(name):
    coverage = rasterize(name, 48)
    assert coverage.shape == (48, 48)
    assert coverage.max() == 255
    assert not coverage[[0, -1]].any()
    assert not coverage[:, [0, -1]].any()
    between = ((coverage > 0) & (coverage < 255)).sum()
    assert between > 20, "no partly covered pixels: the edges are jagged"


def test_a_stroke_covers_its_own_area():
    coverage = rasterize("pause", 240, width=2.0) / 255  # two bars of 14 x 2 units with round ends
    area = 2 * (14 * 2 + np.pi) * 10 * 10
    assert coverage.sum() == pytest.approx(area, rel=0.01)


def test_the_mark_is_coloured_and_leaves_room_around():
    mark = rasterize_mark(64)
    assert mark.shape == (64, 64, 4)
    assert mark[0, 0, 3] == 0
    assert mark[..., 3].max() == 255
    colours = {code for code, _ in MARK}
    assert len(colours) >= 4


def braces(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", texts.LANGUAGES)
def test_every_language_has_every_text_with_the_same_braces(language):
    english, other = texts.catalogue("en"), texts.catalogue(language)
    assert english.keys() == other.keys()
    for key, text in english.items():
        assert braces(text) == braces(other[key]), key
        assert other[key].strip() == other[key] != "", key


@pytest.mark.parametrize("language", [code for code in texts.LANGUAGES if code != "en"])
def test_texts_are_translated_not_copied(language):
    english, other = texts.catalogue("en"), texts.catalogue(language)
    same = {key for key, text in english.items() if other[key] == text}
    alike = {"app", "facts_line", "version", "system", "style", "decoder"}  # words of both
    assert same <= alike | {"megabytes", "seconds", "decimal_mark"}  # units and marks of both


def test_every_text_that_the_screens_ask_for_exists_and_none_is_left_over():
    code = "\n".join(
        path.read_text(encoding="utf-8") for path in [*UI.parent.glob("*.py"), *UI.glob("*.py")]
    )
    keys = texts.catalogue("en").keys()
    asked = set(re.findall(r'(?:text|say)\(\s*"(\w+)"', code)) | set(
        re.findall(r'(?:words|catalogue\(\))\["(\w+)"', code)
    )
    asked |= set(re.findall(r'Line\(\s*"(\w+)"', code))
    assert asked <= keys, asked - keys
    quoted = set(re.findall(r'"(\w+)"', code))
    built = {key for key in keys if key.startswith(("tab_", "decoder_"))}
    assert keys - quoted - built == set()


@pytest.mark.parametrize(
    ("choice", "system", "expected"),
    [
        ("system", "de_AT", "de"), ("system", "zh-Hans-CN", "zh"), ("system", "fr_FR", "en"),
        ("ru", "de_DE", "ru"), ("system", "", "en"), ("system", "C", "en"),
    ],
)  # fmt: skip
def test_the_language_of_a_setting(choice, system, expected):
    assert texts.resolve(choice, system) == expected


def test_the_font_is_chosen_by_the_text():
    assert {font_of(text) for text in ("", "Grüße", "Привет", "× … · “”")} == {LATIN}
    assert {font_of(text) for text in ("中文", "mixed 中", "。")} == {HAN}


def test_the_shipped_font_has_every_character_of_the_chinese_texts():
    image_font = pytest.importorskip("PIL.ImageFont")
    font = image_font.truetype(str(HAN_FILE), 16)
    blank = bytes(font.getmask("\U0010fffd"))  # what the font draws for a character it lacks
    characters = set("".join(texts.catalogue("zh").values())) - set(" \n{}")
    missing = {c for c in characters if bytes(font.getmask(c)) == blank}
    assert not missing


def test_the_licence_lies_beside_the_font():
    assert "SIL OPEN FONT LICENSE" in HAN_FILE.with_name("OFL.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("choice", "dark", "expected"),
    [("light", True, theme.LIGHT), ("dark", False, theme.DARK), ("system", True, theme.DARK),
     ("system", False, theme.LIGHT)],
)  # fmt: skip
def test_the_palette_of_a_setting(choice, dark, expected):
    assert theme.palette(choice, system_dark=dark) is expected
