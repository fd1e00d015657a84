"""Checkpoints of a run: equal frames after every cut, files that are refused, full disks."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors_file
import styled_bundle
import tiny_bundle
from fake_graphs import PROMPT, FakeBackend, pipeline

from hummingbird_runtime import TextToVideoPipeline
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import (
    ExecutionError,
    HummingbirdError,
    InputError,
    IntegrityError,
    UsageError,
)
from hummingbird_runtime.events import Done, Frames, Started, Step
from hummingbird_runtime.resume import read_saved_run

STEPS = 4
SAMPLERS = {
    "lcm": {"sampler": "lcm"},
    "ddim with noise": {"sampler": "ddim", "timestep_spacing": "trailing", "eta": 1.0},
}


@pytest.fixture(params=SAMPLERS)
def bundle(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    scheduler = json.dumps(SAMPLERS[request.param]).encode()
    content = {**tiny_bundle.files(), "scheduler/scheduler_config.json": scheduler}
    return tiny_bundle.write(tmp_path / "bundle", content)


def cut(pipe: TextToVideoPipeline, path: Path, steps: int, **options) -> None:
    """Run until ``steps`` steps are done, then go away."""
    events = pipe.stream(PROMPT, checkpoint=path, **options)
    for event in events:
        if isinstance(event, Step) and event.i + 1 == steps:
            events.close()
            return


def saved(bundle: Path, path: Path, steps: int = 2, **options) -> bytes:
    with pipeline(bundle) as pipe:
        cut(pipe, path, steps, **options)
    return path.read_bytes()


@pytest.mark.parametrize("steps", range(1, STEPS + 1))
@pytest.mark.parametrize("output", ["video", "np", "latent"])
def test_a_cut_run_goes_on_to_the_same_bytes(
    bundle: Path, tmp_path: Path, steps: int, output: str
) -> None:
    file = tmp_path / "run.npz"
    options = {"seed": 5, "output_type": output, "num_inference_steps": STEPS}
    whole = pipeline(bundle)(PROMPT, **options)
    with pipeline(bundle) as pipe:
        cut(pipe, file, steps, **options)
    with pipeline(bundle) as pipe:
        events = list(pipe.stream(PROMPT, checkpoint=file, **options))
    assert [e.i for e in events if isinstance(e, Step)] == list(range(steps, STEPS))
    (started,) = (e for e in events if isinstance(e, Started))
    assert started.steps_done == steps
    result = events[-1].video
    if output == "video":
        whole, result = whole.frames, result.frames
    assert result.tobytes() == whole.tobytes()
    assert not file.exists()


def test_finished_steps_open_neither_text_encoder_nor_unet(tmp_path: Path) -> None:
    bundle = tiny_bundle.write(tmp_path / "bundle")
    saved(bundle, tmp_path / "run.npz", STEPS)
    backend = FakeBackend()
    with TextToVideoPipeline.from_pretrained(bundle, backend=backend, low_memory=True) as pipe:
        pipe(PROMPT, checkpoint=tmp_path / "run.npz")
    assert {line.split()[1] for line in backend.log} == {"vae_decoder"}


def test_every_step_replaces_the_file_before_it_is_told(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.npz"
    with pipeline(tiny_bundle_path) as pipe:
        for event in pipe.stream(PROMPT, seed=2**64 - 1, checkpoint=file):
            if isinstance(event, Step):
                run = read_saved_run(file)
                assert (run.steps_done, run.steps) == (event.i + 1, STEPS)
                assert (run.prompt, run.seed) == (PROMPT, 2**64 - 1)
                assert run.bundle_id == tiny_bundle.BUNDLE_ID
                assert run.request["num_frames"] == 6
                assert run.latent.shape == (1, 4, 6, 4, 4)
                assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["run.npz"]
    np.testing.assert_array_equal(run.latent, event_latent(tiny_bundle_path))
    assert not file.exists()


def event_latent(bundle: Path) -> np.ndarray:
    return pipeline(bundle)(PROMPT, seed=2**64 - 1, output_type="latent")


def test_the_file_stays_until_the_consumer_has_taken_the_clip(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "run.npz"
    with pipeline(tiny_bundle_path) as pipe:
        events = pipe.stream(PROMPT, checkpoint=file)
        while not isinstance(next(events), Done):
            pass
        assert read_saved_run(file).steps_done == STEPS
        events.close()  # as when saving the clip failed
        assert file.exists()
        assert len(pipe(PROMPT, checkpoint=file).frames) == 6
        assert not file.exists()


def test_a_run_goes_on_after_a_failure_and_after_a_cancel(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    file, whole = tmp_path / "run.npz", pipeline(tiny_bundle_path)(PROMPT).frames

    def broken(feeds):
        raise ExecutionError("runtime.run_failed", "broken")

    with pytest.raises(ExecutionError), pipeline(tiny_bundle_path, vae_decoder=broken) as pipe:
        pipe(PROMPT, checkpoint=file)
    assert read_saved_run(file).steps_done == STEPS
    np.testing.assert_array_equal(pipeline(tiny_bundle_path)(PROMPT, checkpoint=file).frames, whole)


def test_the_chunk_of_the_first_run_is_kept(tiny_bundle_path: Path, tmp_path: Path) -> None:
    """Frames decoded in other batches may differ in their last bits."""
    file = tmp_path / "run.npz"
    with pipeline(tiny_bundle_path) as pipe:
        pipe._planner._chunks = lambda request: iter([2])
        cut(pipe, file, 1)
    assert read_saved_run(file).decode_chunk == 2
    events = list(pipeline(tiny_bundle_path).stream(PROMPT, checkpoint=file))
    assert [len(e.array) for e in events if isinstance(e, Frames)] == [2, 2, 2]


OTHER = {
    "seed": {"seed": 8},
    "num_inference_steps": {"num_inference_steps": 5},
    "num_frames": {"num_frames": 5},
    "height": {"height": 48},
    "guidance_scale": {"guidance_scale": 3.0},
    "fps_condition": {"fps_condition": 9},
    "output_type": {"output_type": "np"},
    "latents": {"latents": np.zeros((1, 4, 6, 4, 4), np.float32)},
}


@pytest.mark.parametrize("field", OTHER)
def test_another_call_is_refused_and_the_file_kept(
    tiny_bundle_path: Path, tmp_path: Path, field: str
) -> None:
    before = saved(tiny_bundle_path, tmp_path / "run.npz")
    with pipeline(tiny_bundle_path) as pipe, pytest.raises(InputError, match=field) as caught:
        pipe.stream(PROMPT, checkpoint=tmp_path / "run.npz", **OTHER[field])
    assert caught.value.code == "checkpoint.mismatch"
    assert (tmp_path / "run.npz").read_bytes() == before


def test_other_latents_prompts_bundles_and_styles_are_refused(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    file, ones = tmp_path / "run.npz", np.ones((1, 4, 6, 4, 4), np.float32)
    saved(tiny_bundle_path, file, latents=ones)
    changed = ones.copy()
    changed[0, 0, 0, 0, 0] = np.nextafter(np.float32(1), np.float32(2))
    other = tiny_bundle.write(tmp_path / "other", bundle_id="00000000-0000-4000-8000-000000000002")
    with pipeline(tiny_bundle_path) as pipe:
        refused = [
            lambda: pipe.stream("a blue ball", latents=ones, checkpoint=file),
            lambda: pipe.stream(PROMPT, latents=changed, checkpoint=file),
            lambda: pipeline(other).stream(PROMPT, latents=ones, checkpoint=file),
        ]
        for call, what in zip(refused, ("prompt", "latents", "bundle"), strict=True):
            with pytest.raises(InputError, match=f"got {what}") as caught:
                call()
            assert caught.value.code == "checkpoint.mismatch"
        pipe.stream(PROMPT, latents=ones, checkpoint=file)


def test_another_style_or_strength_is_refused(tmp_path: Path) -> None:
    bundle, file = styled_bundle.write(tmp_path / "styled", "fp32"), tmp_path / "run.npz"
    style = safetensors_file.write(
        tmp_path / "ink.safetensors", styled_bundle.factors(size=0.1), styled_bundle.FORMAT
    )

    def opened(**options) -> TextToVideoPipeline:
        return TextToVideoPipeline.from_pretrained(bundle, threads=1, **options)

    with opened(style=style, style_strength=0.5) as pipe:
        cut(pipe, file, 1)
        whole = pipe(PROMPT).frames
    for other in ({}, {"style": style}, {"style": style, "style_strength": 0.25}):
        with opened(**other) as pipe, pytest.raises(InputError, match="got style") as caught:
            pipe.stream(PROMPT, checkpoint=file)
        assert caught.value.code == "checkpoint.mismatch"
    with opened(style=style, style_strength=0.5) as pipe:
        np.testing.assert_array_equal(pipe(PROMPT, checkpoint=file).frames, whole)


def refusal(path: Path) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        read_saved_run(path)
    return caught.value


def test_every_changed_byte_is_noticed_or_without_effect(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    whole = saved(tiny_bundle_path, tmp_path / "run.npz")
    reference = read_saved_run(tmp_path / "run.npz")
    file, noticed = tmp_path / "changed.npz", 0
    for place in range(0, len(whole), 5):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        file.write_bytes(data)
        try:
            run = read_saved_run(file)
        except (IntegrityError, InputError):  # any other error fails the test
            noticed += 1
            continue
        np.testing.assert_array_equal(run.latent, reference.latent)  # it was a date or the like
        assert run.request == reference.request
    assert noticed > len(whole) // 5 * 0.8


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
def test_a_torn_file_is_damaged(tiny_bundle_path: Path, tmp_path: Path, share: float) -> None:
    whole = saved(tiny_bundle_path, tmp_path / "run.npz")
    (tmp_path / "torn.npz").write_bytes(whole[: int(share * len(whole))])
    assert refusal(tmp_path / "torn.npz").code == "checkpoint.damaged"


def rewritten(data: bytes, change: Callable[[dict], None], **zip_options) -> bytes:
    """The archive with another JSON, under a digest that fits."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = dict(stored)
    record = json.loads(arrays["run"].tobytes())
    change(record)
    text = json.dumps(record, sort_keys=True).encode()
    from hummingbird_runtime.resume import _digest

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **zip_options) as archive:
        for name, array in (
            ("run", np.frombuffer(text, np.uint8)),
            ("latent", arrays["latent"]),
            ("sha256", _digest(text, arrays["latent"])),
        ):
            member = io.BytesIO()
            np.lib.format.write_array(member, array)
            archive.writestr(f"{name}.npy", member.getvalue())
    return out.getvalue()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda r: r.update(version=0), "checkpoint.version"),
        (lambda r: r.update(version=2), "checkpoint.version"),
        (lambda r: r.update(format="other"), "checkpoint.damaged"),
        (lambda r: r.update(steps_done=0), "checkpoint.damaged"),
        (lambda r: r.update(steps_done=5), "checkpoint.damaged"),
        (lambda r: r.update(decode_chunk=0), "checkpoint.damaged"),
        (lambda r: r.update(more=1), "checkpoint.damaged"),
        (lambda r: r.pop("style"), "checkpoint.damaged"),
        (lambda r: r["request"].pop("prompt"), "checkpoint.damaged"),
        (lambda r: r["request"].update(seed="7"), "checkpoint.damaged"),
        (lambda r: r["request"].update(num_inference_steps=True), "checkpoint.damaged"),
    ],
)
def test_a_file_with_another_record_is_refused(
    tiny_bundle_path: Path, tmp_path: Path, change: Callable[[dict], None], code: str
) -> None:
    file = tmp_path / "run.npz"
    data = saved(tiny_bundle_path, file)
    file.write_bytes(rewritten(data, lambda record: None))
    assert read_saved_run(file).steps_done == 2  # so the rewriting itself is not what is refused
    file.write_bytes(rewritten(data, change))
    assert refusal(file).code == code
    with pytest.raises(HummingbirdError) as caught:
        pipeline(tiny_bundle_path).stream(PROMPT, checkpoint=file)
    assert caught.value.code == code


def test_foreign_files_are_refused_and_kept(tiny_bundle_path: Path, tmp_path: Path) -> None:
    clip, text, objects, packed = (tmp_path / f"{name}.npz" for name in "abcd")
    pipeline(tiny_bundle_path)(PROMPT).save(clip)
    text.write_text("my notes")
    np.savez(objects, run=np.array([{}], object), latent=np.zeros(3), sha256=np.zeros(32, np.uint8))
    data = saved(tiny_bundle_path, tmp_path / "run.npz")
    packed.write_bytes(rewritten(data, lambda r: None, compression=zipfile.ZIP_DEFLATED))
    for file in (clip, text, objects, packed):
        before = file.read_bytes()
        with pytest.raises(IntegrityError) as caught:
            pipeline(tiny_bundle_path)(PROMPT, checkpoint=file)
        assert caught.value.code == "checkpoint.damaged"
        assert file.read_bytes() == before


def test_a_header_that_claims_a_huge_array_is_damaged(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 42,)}
    )
    with zipfile.ZipFile(tmp_path / "run.npz", "w") as archive:
        archive.writestr("run.npy", header.getvalue() + b"1234")
    assert refusal(tmp_path / "run.npz").code == "checkpoint.damaged"


def test_paths_that_cannot_be_are_refused_before_any_work(
    tiny_bundle_path: Path, tmp_path: Path
) -> None:
    assert refusal(tmp_path / "absent.npz").code == "checkpoint.unreadable"
    with pipeline(tiny_bundle_path) as pipe:
        for path, code in (
            (tmp_path, "output.is_folder"),
            (tmp_path / "no" / "run.npz", "output.folder_missing"),
            (7, "request.type"),
        ):
            with pytest.raises(HummingbirdError) as caught:
                pipe.stream(PROMPT, checkpoint=path)
            assert caught.value.code == code
        with pytest.raises(UsageError) as caught:
            pipe([PROMPT, PROMPT], checkpoint=tmp_path / "run.npz")
        assert caught.value.code == "request.checkpoint"


def test_the_command_goes_on_where_it_was_cut(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.npz"
    words = ["generate", PROMPT, "--bundle", str(tiny_bundle_path), "--seed", "3", "-q"]
    assert main([*words, "-o", str(tmp_path / "whole.npz")]) == 0
    with TextToVideoPipeline.from_pretrained(tiny_bundle_path) as pipe:
        cut(pipe, file, 3, seed=3)
    capsys.readouterr()
    more = ["-o", str(tmp_path / "resumed.npz"), "--resume", str(file), "--json"]
    assert main([*words, *more]) == 0
    assert json.loads(capsys.readouterr().out)["resumed_steps"] == 3
    assert (tmp_path / "resumed.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not file.exists()
