"""docs/interop.md: each example stands alone, is short, and runs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
from markdown_page import Page

pytestmark = pytest.mark.interop

BLOCKS = [b for b in Page(Path(__file__).parents[2] / "docs" / "interop.md").blocks if b.mark]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.where)
def test_example_runs(
    optimum: ModuleType,
    openvino: ModuleType,
    block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    assert block.mark == "run: interop"
    assert len(block.text.splitlines()) <= 30
    monkeypatch.chdir(tmp_path)
    exec(compile(block.text, block.where, "exec"), {"__name__": "__main__"})


def test_the_page_has_an_example_of_each():
    text = "".join(block.text for block in BLOCKS)
    for name in ("ORTTextToVideoPipeline", "load_part", "openvino_model"):
        assert name in text
