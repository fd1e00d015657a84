"""The style's loss against closed forms, what it trains, and the levels and scale it trains at."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import micro_models
import numpy as np
import pytest
import torch
from torch import Tensor

from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.facts import ModelFacts
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.schedule import SchedulerConfig, alphas_cumprod
from hummingbird_train.base import world_schedule
from hummingbird_train.loop import RunConfig, train
from hummingbird_train.lora import LoraConfig, changes, load_adapter, merge_adapter, set_strength
from hummingbird_train.models.unet import VideoUNet
from hummingbird_train.recipe import Phase
from hummingbird_train.style import STYLE_FILE, StyleConfig, StyleObjective
from hummingbird_train.style_sampling import SampledClips, draw_latents

CLIP = Phase(name="style", steps=1, batch=3, learning_rate=1e-2, frames=4, stride=2)

FEW = LoraConfig(rank=2, targets=r"^(out\.2|input_blocks\.1\.0|init_attn)")


def contexts(captions: Sequence[str]) -> Tensor:
    """A context that tells captions apart."""
    rows = [np.random.default_rng(list(t.encode())).standard_normal((5, 8)) for t in captions]
    return torch.from_numpy(np.stack(rows).astype(np.float32))


def clips(seed: int, fps: int = 8) -> SampledClips:
    latents = np.random.default_rng(seed).standard_normal((3, 4, 8, 4, 4)).astype(np.float32)
    return SampledClips(latents, [f"clip {i}" for i in range(3)], fps=fps, scaling_factor=1.0)


@pytest.fixture(scope="module")
def parts() -> tuple[VideoUNet, ModelFacts]:
    unet, vae, _ = micro_models.networks()
    return unet, micro_models.facts(unet, vae)


def objective(parts: tuple[VideoUNet, ModelFacts], **options: Any) -> StyleObjective:
    unet, facts = parts
    options = {"lora": LoraConfig(rank=2), **options}
    options = {"scheduler": world_schedule(), "facts": facts, "config": StyleConfig(), **options}
    return StyleObjective(copy.deepcopy(unet), clips(0), contexts, **options)


class Recorder:
    """Stands before the U-Net and keeps what it was asked."""

    def __init__(self, made: StyleObjective) -> None:
        self.calls: list[dict[str, Any]] = []
        self.outputs: list[Tensor] = []
        made.unet.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, module: object, args: object, kwargs: dict[str, Any], output: Tensor) -> None:
        self.calls.append(kwargs)
        self.outputs.append(output.detach())


def test_the_loss_is_the_squared_error_of_v_at_the_levels_and_scale_of_sampling(
    parts: tuple[VideoUNet, ModelFacts],
) -> None:
    made = objective(parts)
    seen = Recorder(made)
    loss, numbers = made.loss(CLIP, False, np.random.default_rng(4))
    (call,), (output,) = seen.calls, seen.outputs
    x_0, index, captions = clips(0).sample(np.random.default_rng(4), 3, 4, 2)
    t = call["timestep"].numpy()
    assert set(t) <= {999, 749, 499, 249}  # four trailing steps
    signal = alphas_cumprod(world_schedule())[t] ** 0.5
    noise = (1 - signal**2) ** 0.5
    a, s = (torch.from_numpy(c).float().view(-1, 1, 1, 1, 1) for c in (signal, noise))
    eps = (call["sample"] - a * x_0) / s
    expected = (output - (a * eps - s * x_0)).square().mean()
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-6)
    assert numbers == {"clip": float(loss.detach())}
    assert torch.equal(call["encoder_hidden_states"], contexts(captions))
    assert torch.equal(call["frame_indices"], torch.from_numpy(index))
    assert call["fps"].tolist() == [4, 4, 4]  # 8 a second at stride 2
    w = torch.from_numpy(guidance_embedding(3.0, 8)).expand(3, -1)
    assert torch.equal(call["timestep_cond"], w)
    assert call["images"] is False


def test_levels_are_those_of_a_default_run_or_all(parts: tuple[VideoUNet, ModelFacts]) -> None:
    def drawn(**options: Any) -> set[int]:
        made = objective(parts, **options)
        seen = Recorder(made)
        phase = dataclasses.replace(CLIP, images_batch=40)
        made.loss(phase, True, np.random.default_rng(0))
        assert seen.calls[0]["images"] is True
        return set(seen.calls[0]["timestep"].tolist())

    assert drawn() == {999, 749, 499, 249}
    assert drawn(scheduler=SchedulerConfig()) == {999, 759, 519, 279}  # consistency timesteps
    everywhere = drawn(config=StyleConfig(levels="all"))
    assert len(everywhere) == 40  # one of each of 40 strata
    assert min(everywhere) < 50
    assert max(everywhere) > 950


def test_captions_are_left_out_only_for_models_with_an_unprompted_pass() -> None:
    phase = dataclasses.replace(CLIP, images_batch=40)
    for guided, kept in ((True, True), (False, False)):
        unet, vae, _ = micro_models.networks(guided=guided)
        made = objective(
            (unet, micro_models.facts(unet, vae)), config=StyleConfig(caption_dropout=0.5)
        )
        seen = Recorder(made)
        made.loss(phase, True, np.random.default_rng(0))
        empty = contexts([""])[0]
        found = seen.calls[0]["encoder_hidden_states"]
        left_out = sum(torch.equal(row, empty) for row in found)
        assert left_out == 0 if kept else 8 <= left_out <= 32
        assert (seen.calls[0]["timestep_cond"] is None) == (not guided)


def test_the_prior_is_the_distance_to_the_base(parts: tuple[VideoUNet, ModelFacts]) -> None:
    plain = objective(parts)
    kept = objective(parts, config=StyleConfig(prior_weight=0.7, prior_share=2.0), prior=clips(1))
    rng = np.random.default_rng
    (one, _), (two, numbers) = (o.loss(CLIP, False, rng(4)) for o in (plain, kept))
    assert numbers["prior"] == 0.0  # nothing is changed yet
    assert float(one.detach()) == float(two.detach())
    for made in (plain, kept):
        torch.manual_seed(2)
        for _, change in changes(made.unet):
            torch.nn.init.normal_(change.up, std=0.3)
    seen = Recorder(kept)
    (one, _), (two, numbers) = (o.loss(CLIP, False, rng(4)) for o in (plain, kept))
    style, base, changed = seen.outputs
    assert len(base) == 6
    assert len(style) == 3
    expected = (changed - base).square().mean()
    assert numbers["prior"] == pytest.approx(float(expected), rel=1e-5)
    assert numbers["prior"] > 0.01
    expected_sum = float(one.detach()) + 0.7 * numbers["prior"]
    assert float(two.detach()) == pytest.approx(expected_sum, rel=1e-5)
    set_strength(kept.unet, 0.0)
    torch.testing.assert_close(kept.unet(**seen.calls[1]), base)


@pytest.mark.parametrize(
    "options",
    [
        {"config": {"levels": "some"}},
        {"config": {"prior_share": 0.0}},
        {"config": {"caption_dropout": 1.0}},
        {"config": {"prior_weight": -1.0}},
        {"config": {"prior_weight": 1.0}},
    ],
)
def test_options_without_meaning_are_refused(
    options: dict[str, Any], parts: tuple[VideoUNet, ModelFacts]
) -> None:
    with pytest.raises(UsageError) as caught:
        objective(parts, config=StyleConfig(**options["config"]))
    assert caught.value.code == "style.options"


def test_training_resumes_exactly_and_leaves_the_base_alone(
    parts: tuple[VideoUNet, ModelFacts], tmp_path: Path
) -> None:
    phase = dataclasses.replace(CLIP, steps=3, warmup=1, images_every=2, images_batch=4)
    base = {n: t.clone() for n, t in parts[0].state_dict().items()}
    losses = []
    for name in ("whole", "pieces"):
        (tmp_path / name).mkdir()
    made = objective(parts, lora=FEW)
    inner = made.loss

    def watched(*arguments: Any) -> Any:
        loss, numbers = inner(*arguments)
        losses.append(float(loss.detach()))
        return loss, numbers

    made.loss = watched  # type: ignore[method-assign]
    assert train(made, (phase,), tmp_path / "whole", config=RunConfig(seed=1))
    assert len(losses) == 3
    while not train(
        objective(parts, lora=FEW),
        (phase,),
        tmp_path / "pieces",
        config=RunConfig(seed=1),
        minutes=0.0,
    ):
        pass
    whole, pieces = (load_adapter(tmp_path / n / STYLE_FILE) for n in ("whole", "pieces"))
    for target, pair in whole.items():
        assert torch.equal(pair.down, pieces[target].down), target
        assert torch.equal(pair.up, pieces[target].up), target
    assert any(pair.up.abs().max() > 0 for pair in whole.values())
    stored = {n.replace(".parametrizations.weight.original", ".weight"): t
              for n, t in made.unet.state_dict().items()}  # fmt: skip
    assert all(torch.equal(stored[n], t) for n, t in base.items())


@pytest.mark.slow
def test_training_lowers_the_loss(parts: tuple[VideoUNet, ModelFacts], tmp_path: Path) -> None:
    phase = dataclasses.replace(CLIP, steps=30, warmup=3, batch=6, frames=1)
    made = objective(parts)

    def mean_loss() -> float:
        rngs = (np.random.default_rng([9, i]) for i in range(6))
        with torch.no_grad():
            return float(np.mean([float(made.loss(phase, True, rng)[0]) for rng in rngs]))

    phase = dataclasses.replace(phase, images_batch=6)
    before = mean_loss()
    assert train(made, (phase,), tmp_path, config=RunConfig(seed=1))
    # nothing can be known of random latents: 1 is what is left at best
    assert mean_loss() - 1 < 0.85 * (before - 1)


def test_a_saved_style_draws_what_was_trained(
    parts: tuple[VideoUNet, ModelFacts], tmp_path: Path
) -> None:
    unet, facts = parts
    made = objective(parts, lora=FEW)
    torch.manual_seed(2)
    for _, change in changes(made.unet):
        torch.nn.init.normal_(change.up, std=0.3)
    made.save(tmp_path, {})
    ask = (contexts, world_schedule(), facts, ["clip 0"], [3])
    trained = draw_latents(made.unet, *ask)
    base = draw_latents(copy.deepcopy(unet), *ask)
    merged = copy.deepcopy(unet)
    merge_adapter(merged, tmp_path / STYLE_FILE)
    # four evaluations in float32, equal sums in another order
    np.testing.assert_allclose(draw_latents(merged, *ask), trained, rtol=1e-3, atol=1e-4)
    assert np.abs(trained - base).max() > 0.05
