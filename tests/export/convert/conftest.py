"""Shared by the conversion tests: CLIP's tokenizer is made once, copied afterwards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from hummingbird_export.convert import conversion
from hummingbird_export.random_models import write_clip_tokenizer


@pytest.fixture(scope="session")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_tokenizer(tmp_path_factory.mktemp("clip") / "tokenizer")


@pytest.fixture(autouse=True)
def quick_tokenizer(clip_tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(folder: Path) -> Path:
        return Path(shutil.copytree(clip_tokenizer, folder))

    monkeypatch.setattr(conversion, "write_clip_tokenizer", copy)
