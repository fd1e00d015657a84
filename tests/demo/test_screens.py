"""The app in a real window without a display: touches in, view-model and pixels out.

Each test starts one child process. Screenshots stay in the test's folder.
"""

from __future__ import annotations

import zipfile

import pytest
import tiny_bundle
from app_process import run_app

pytest.importorskip("kivy", reason="the extra demo is not installed")
image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.display


def test_touches_choose_draw_cancel_and_save(tmp_path):
    """With the built-in bundle: clips of the tiny one are done before a finger can cancel."""
    seen = run_app("touches", tmp_path, language="en")
    assert seen["phase_without_prompt"] == "idle"
    assert seen["prompt"] == "a small red circle moving to the left on a black background"
    assert seen["after_cancel"] == "Cancelled"
    assert seen["frames"] == 13  # the fewest that are offered
    assert "zebra" in seen["toast"]
    assert len(seen["saved"]) == 1
    assert seen["saved"][0].startswith("a-zebra-")
    _, _, width, height = seen["picture"]
    assert width == height == 312  # what the picture's place leaves in a window of 360 x 800
    assert seen["shown"] == [512, 512]  # every pixel of the enlarged 256 twice, then fitted


def test_the_layout_turns_with_the_window_and_the_back_key_leads_out(tmp_path, tiny_bundle_path):
    seen = run_app("rotate", tmp_path, bundle=tiny_bundle_path)
    assert seen["upright"] == [True, True]  # picture above the prompt, tabs at the foot
    assert seen["lying"] == [True, True]  # picture beside the prompt, tabs at the side
    assert seen["paused"] is True
    assert seen["inside"]
    assert [seen[f"back_from_{step}"] for step in ("clip", "gallery", "create")] == [
        True, True, False,
    ]  # fmt: skip
    assert seen["open_page"] == "create"
    with image.open(tmp_path / "lying.png") as lying:
        assert lying.size == (800, 360)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_a_model_is_imported_used_and_deleted_by_touch(tmp_path, tiny_bundle_path, form):
    source = tiny_bundle.write(tmp_path / "given" / "tiny")
    if form == "zip":
        zipped = tmp_path / "given" / "tiny.zip"
        with zipfile.ZipFile(zipped, "w") as archive:
            for path in source.rglob("*"):
                archive.write(path, path.relative_to(source))
        source = zipped
    seen = run_app("importing", tmp_path, bundle=tiny_bundle_path, source=source)
    assert len(seen["models"]) == 2
    assert seen["left"] == ["built-in"]


def test_a_broken_zip_is_told_on_the_screen_and_nothing_is_imported(tmp_path, tiny_bundle_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "bad.zip").write_bytes(b"no zip")
    source = tmp_path / "given" / "bad.zip"
    seen = run_app("importing", tmp_path, bundle=tiny_bundle_path, source=source, language="en")
    assert seen["models"] == ["built-in"]
    assert any("zip:" in text for text in seen["shown"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "theme", "language"),
    [
        ("360x800", "light", "en"), ("412x915", "dark", "de"),
        ("800x360", "light", "ru"), ("1280x800", "dark", "zh"),
    ],
)  # fmt: skip
def test_every_page_draws_at_every_size_in_both_themes(tmp_path, tiny_bundle_path, size, theme,
                                                       language):  # fmt: skip
    run_app(
        "tour",
        tmp_path,
        size,
        smooth="yes",
        bundle=tiny_bundle_path,
        theme=theme,
        language=language,
    )
    width, _, height = size.partition("x")
    shots = sorted(tmp_path.glob("*.png"))
    assert len(shots) == 11
    for path in shots:
        with image.open(path) as shot:
            assert shot.size == (int(width), int(height))
            assert len(set(shot.convert("L").resize((80, 80)).tobytes())) > 16, path.name
            corner = sum(shot.getpixel((int(width) - 3, 3))) / 3
            if "question" not in path.name and "options" not in path.name:
                assert (corner < 64) == (theme == "dark"), path.name
