"""``hummingbird demo`` without a window: refusals in one line, and the measurement."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec

import pytest

from hummingbird_demo import cli
from hummingbird_demo.licences import LICENCES
from hummingbird_runtime import HummingbirdError, ResourceError, UsageError


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--size", "10x10"], "demo.window_size"),
        (["--size", "wide"], "demo.window_size"),
        (["--language", "fr"], "usage.arguments"),
        (["--bundel", "x"], "usage.arguments"),
        (["--measure", "missing/folder/x.json"], "output.folder_missing"),
    ],
)
def test_wrong_arguments_are_typed_refusals(arguments, code):
    with pytest.raises(HummingbirdError) as caught:
        cli.main(arguments)
    assert caught.value.code == code


def test_without_kivy_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(ResourceError) as caught:
        cli.main([])
    assert caught.value.code == "extra.missing"
    assert "hummingbird-edge[demo]" in str(caught.value)


def test_measuring_needs_no_kivy_and_writes_the_document(tmp_path, tiny_bundle_path, capsys):
    before = set(sys.modules)
    target = tmp_path / "device.json"
    assert cli.main(["--measure", str(target), "--bundle", str(tiny_bundle_path)]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    document = json.loads(target.read_text(encoding="utf-8"))
    assert [sample["phase"] for sample in document["samples"]] == [
        "cold", "first", "steady", "steady", "steady",
    ]  # fmt: skip
    assert not {name for name in set(sys.modules) - before if name.split(".")[0] == "kivy"}


def test_a_bundle_that_is_none_is_refused_before_a_file_is_written(tmp_path):
    target = tmp_path / "device.json"
    with pytest.raises(HummingbirdError) as caught:
        cli.main(["--measure", str(target), "--bundle", str(tmp_path)])
    assert caught.value.code.startswith("bundle.")
    assert not target.exists()


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for flag in ("--bundle", "--data", "--size", "--language", "--measure", "--threads"):
        assert flag in text


def test_every_component_of_the_app_has_a_notice_and_fonts_their_text():
    names = {licence.name for licence in LICENCES}
    assert {"ONNX Runtime", "NumPy", "Kivy", "Roboto", "Noto Sans SC"} <= names
    for licence in LICENCES:
        assert licence.terms
        assert len(licence.text()) > 20
    installed = next(licence for licence in LICENCES if licence.package == "numpy")
    assert find_spec("numpy") is not None
    assert "Redistribution" in installed.text()


def test_a_window_size_is_two_numbers():
    assert cli._window_size("412x915") == (412, 915)
    with pytest.raises(UsageError):
        cli._window_size("412x915x3")
