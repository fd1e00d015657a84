"""Checkpoints on disks that fail: what goes wrong with the file never costs the clip."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from fake_graphs import PROMPT, pipeline

from hummingbird_runtime import checkpoint
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.events import Done, Step, Warning
from hummingbird_runtime.resume import read_saved_run
from hummingbird_runtime.video import Video

STEPS = 4


def test_a_full_disk_costs_the_checkpoint_and_not_the_clip(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, whole = tmp_path / "run.npz", pipeline(tiny_bundle_path)(PROMPT).frames
    real, calls = checkpoint.pack_run, []

    def full(run, latent) -> bytes:
        calls.append(run.steps_done)
        if run.steps_done > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(run, latent)

    monkeypatch.setattr(checkpoint, "pack_run", full)
    steps_saved = []
    with pipeline(tiny_bundle_path) as pipe:
        for event in pipe.stream(PROMPT, checkpoint=file):
            if isinstance(event, Step):
                steps_saved.append(read_saved_run(file).steps_done)
            elif isinstance(event, Warning):
                assert event.code == "checkpoint.not_written"
                assert "no space left" in event.text
            elif isinstance(event, Done):
                video = event.video
    assert calls == [1, 2, 3, 4]  # a later step is tried again
    assert steps_saved == [1, 1, 1, 1]  # the older file stays whole
    assert [w.code for w in video.warnings] == ["checkpoint.not_written"]  # told once
    np.testing.assert_array_equal(video.frames, whole)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_a_file_that_becomes_a_folder_costs_neither_clip_nor_folder(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    """What can go wrong with the file between two steps, and at its deletion, in one."""
    file, whole = tmp_path / "run.npz", pipeline(tiny_bundle_path)(PROMPT).frames

    def replaced(step: Step) -> None:
        if step.i == 0:
            file.unlink()
            file.mkdir()

    video = pipeline(tiny_bundle_path)(PROMPT, checkpoint=file, callback_on_step_end=replaced)
    assert [w.code for w in video.warnings] == ["checkpoint.not_written"]
    np.testing.assert_array_equal(video.frames, whole)
    assert [path.name for path in tmp_path.iterdir()] == ["run.npz"]
    assert file.is_dir()


def test_a_clip_that_cannot_be_saved_keeps_its_checkpoint(
    tiny_bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_, **__) -> None:
        raise ResourceError("output.disk_full", "full")

    monkeypatch.setattr(Video, "save", full)
    file = tmp_path / "run.npz"
    words = ["generate", PROMPT, "--bundle", str(tiny_bundle_path), "-q"]
    assert main([*words, "-o", str(tmp_path / "a.npz"), "--resume", str(file)]) == 5
    assert read_saved_run(file).steps_done == STEPS
