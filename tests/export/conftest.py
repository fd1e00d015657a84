"""Bundles that the export tests share: exporting one takes seconds, so it is done once."""

from __future__ import annotations

from pathlib import Path

import micro_models
import pytest
import quick_export

from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_train.world.tokenizer_files import write_tokenizer


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="session")
def guided_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Guidance embedded, weights stored as float16."""
    return micro_models.export(
        tmp_path_factory.mktemp("guided") / "bundle",
        micro_models.networks(guided=True),
        tokenizer_folder,
        SchedulerConfig(),
        precision="fp16-storage",
    )


@pytest.fixture(scope="session")
def plain_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """Two-pass guidance, float32."""
    return micro_models.export(
        tmp_path_factory.mktemp("plain") / "bundle",
        micro_models.networks(guided=False),
        tokenizer_folder,
        SchedulerConfig(),
    )


@pytest.fixture(scope="session")
def quick_bundle(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """``quick_export.networks()`` in the portable form, float32."""
    return quick_export.export(tmp_path_factory.mktemp("quick") / "bundle", tokenizer_folder)
