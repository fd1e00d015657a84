"""The optimum pipeline draws what the runtime draws: same bundle, same seed, same latents."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from hummingbird_runtime import ExecutionError, InputError, IntegrityError, UsageError
from hummingbird_runtime.bundle import Bundle, builtin_bundle
from hummingbird_runtime.integrity import file_entries, seal
from hummingbird_runtime.pipeline import TextToVideoPipeline

pytestmark = pytest.mark.interop

PROMPTS = (
    "a small red circle moving to the left on a black background",
    "a large blue square growing on a white background",
)
SEEDS = (0, (1 << 64) - 1)
SMALL = {"num_frames": 4, "height": 32, "width": 32}
# Both run the same graphs through the same build of ONNX Runtime; only the solver's arithmetic
# (torch here, NumPy there) may round differently: about 1e-7 of latents of order 1 to 4.
TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddim, embedded", {}),
        ("lcm, embedded", {}),
        ("ddim, two passes", {"guidance_scale": 3.0, "negative_prompt": "a green ring"}),
        ("lcm, two passes", {"guidance_scale": 3.0}),
    ],
)
def test_latents_equal_those_of_the_runtime(
    optimum: ModuleType, bundles: Callable[[str], Path], name: str, options: dict
):
    folder = bundles(name)
    theirs = optimum.ORTTextToVideoPipeline.from_pretrained(folder)
    seen = []
    with TextToVideoPipeline.from_pretrained(folder) as ours:
        for prompt in PROMPTS:
            for seed in SEEDS:
                call = {**SMALL, **options, "num_inference_steps": 4, "seed": seed}
                a = theirs(prompt, output_type="latent", **call).frames.numpy()
                b = ours(prompt, output_type="latent", **call)
                np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
                seen.append(b)
    for i, one in enumerate(seen):  # a pipeline deaf to prompts or seeds would pass the above
        for other in seen[:i]:
            assert np.abs(one - other).max() > 1e-3


def test_frames_equal_those_of_the_runtime(optimum: ModuleType):
    call = {**SMALL, "num_inference_steps": 2, "seed": 3}
    with TextToVideoPipeline.from_pretrained() as ours:
        b = ours(PROMPTS[0], output_type="np", upscale=False, **call)
    a = optimum.ORTTextToVideoPipeline.from_pretrained()(PROMPTS[0], **call).frames
    assert a.shape == (1, 4, 32, 32, 3)
    assert a.dtype == np.float32
    np.testing.assert_allclose(a[0], b, atol=TOLERANCE)


@pytest.mark.parametrize(
    "changed", [{"fps_condition": 24}, {"guidance_scale": 5.0}, {"num_frames": 5}]
)
def test_every_condition_reaches_the_network(optimum: ModuleType, changed: dict):
    """Equality with the runtime at the defaults does not show that an option is passed on."""
    base = {**SMALL, "num_inference_steps": 1, "seed": 1, "output_type": "latent"}
    call = {**base, **changed}
    a = optimum.ORTTextToVideoPipeline.from_pretrained()(PROMPTS[0], **call).frames.numpy()
    with TextToVideoPipeline.from_pretrained() as ours:
        b = ours(PROMPTS[0], **call)
        default = ours(PROMPTS[0], **base)
    np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
    assert a.shape != default.shape or np.abs(a - default).max() > 1e-4


def test_own_noise_and_embeddings_stand_in_for_seed_and_prompt(optimum: ModuleType):
    pipe = optimum.ORTTextToVideoPipeline.from_pretrained()
    rng = np.random.default_rng(5)
    call = {
        **SMALL,
        "num_inference_steps": 1,
        "latents": rng.standard_normal((1, 4, 4, 4, 4), np.float32),
        "prompt_embeds": rng.standard_normal((1, 24, 96), np.float32),
        "output_type": "latent",
    }
    with TextToVideoPipeline.from_pretrained() as ours:
        b = ours(None, **call)
    np.testing.assert_allclose(pipe(**call).frames.numpy(), b, rtol=TOLERANCE, atol=TOLERANCE)


def test_diffusers_own_scheduler_can_be_put_in(optimum: ModuleType, bundles: Callable[[str], Path]):
    from diffusers import DDIMScheduler

    folder = bundles("ddim, embedded")
    pipe = optimum.ORTTextToVideoPipeline.from_pretrained(folder)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    call = {**SMALL, "num_inference_steps": 4, "seed": 11, "output_type": "latent"}
    a = pipe(PROMPTS[1], **call).frames.numpy()
    with TextToVideoPipeline.from_pretrained(folder) as ours:
        b = ours(PROMPTS[1], **call)
    # diffusers multiplies 1000 alphas in float32, the runtime in float64
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_hook_sees_every_step_and_may_change_the_latent(optimum: ModuleType):
    pipe = optimum.ORTTextToVideoPipeline.from_pretrained()
    seen = []

    def hook(owner, i, t, values):
        seen.append((owner is pipe, i, int(t)))
        return {"latents": values["latents"] * 0}

    call = {**SMALL, "num_inference_steps": 2, "output_type": "latent"}
    result = pipe(PROMPTS[0], callback_on_step_end=hook, **call)
    assert seen == [(True, 0, 999), (True, 1, 499)]
    assert not result.frames.any()


def test_binding_of_inputs_and_outputs_is_off(optimum: ModuleType):
    assert optimum.ORTTextToVideoPipeline.from_pretrained().use_io_binding is False


def test_calls_are_checked_as_in_the_runtime(optimum: ModuleType):
    pipe = optimum.ORTTextToVideoPipeline.from_pretrained()
    for code, error, call in [
        ("request.size", InputError, {"height": 33}),
        ("request.steps", InputError, {"num_inference_steps": 0}),
        ("request.negative_prompt", UsageError, {"negative_prompt": "x"}),
        ("request.output_type", UsageError, {"output_type": "video"}),
    ]:
        with pytest.raises(error) as caught:
            pipe(PROMPTS[0], **call)
        assert caught.value.code == code
    with pytest.raises(ExecutionError) as caught:  # what a hook breaks is refused, not decoded
        pipe(
            PROMPTS[0],
            **SMALL,
            num_inference_steps=1,
            callback_on_step_end=lambda *_: {"latents": pipe.scheduler.timesteps * np.nan},
        )
    assert caught.value.code == "numeric.non_finite"


def test_a_damaged_bundle_is_refused_before_any_session(optimum: ModuleType, tmp_path: Path):
    folder = shutil.copytree(builtin_bundle(), tmp_path / "bundle")
    path = folder / "unet" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught:
        optimum.ORTTextToVideoPipeline.from_pretrained(folder)
    assert caught.value.code == "bundle.hash_mismatch"


def test_a_bundle_without_configurations_is_named(optimum: ModuleType, tmp_path: Path):
    folder = shutil.copytree(builtin_bundle(), tmp_path / "bundle")
    manifest = Bundle.open(folder).manifest
    (folder / "unet" / "config.json").unlink()
    (folder / "manifest.json").unlink()
    (folder / "manifest.sha256").unlink()
    seal(folder, replace(manifest, files=file_entries(folder)))
    with pytest.raises(InputError, match=r"unet/config\.json") as caught:
        optimum.ORTTextToVideoPipeline.from_pretrained(folder)
    assert caught.value.code == "interop.no_config"
