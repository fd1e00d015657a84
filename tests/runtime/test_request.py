"""Every argument of a call: what is taken, what is warned about, what is refused and how."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import tiny_bundle
from hypothesis import given
from hypothesis import strategies as st

from hummingbird_runtime.arguments import MAX_PROMPT_BYTES
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import HummingbirdError, InputError, UsageError
from hummingbird_runtime.facts import Frames, Guidance, ModelFacts, Side
from hummingbird_runtime.limits import nearest_side
from hummingbird_runtime.request import Request, check_request
from hummingbird_runtime.schedule import SchedulerConfig

FACTS = tiny_bundle.facts()
CFG = tiny_bundle.facts(
    guidance=Guidance("cfg", default=7.0, trained=(1.0, 12.0), allowed=(1.0, 20.0)),
    timestep_cond_dim=None,
)
LATENTS = np.zeros((1, 4, 6, 4, 4), np.float32)
EMBEDS = np.zeros((1, 24, tiny_bundle.WIDTH), np.float32)


def check(
    prompt: Any = "a red ball", *, facts: ModelFacts = FACTS, graphs: Any = None, **options: Any
) -> tuple[Request, list[str]]:
    request, warnings = check_request(
        facts,
        SchedulerConfig(),
        prompt=prompt,
        graphs=tiny_bundle.graphs() if graphs is None else graphs,
        options=options,
    )
    return request, [warning.text for warning in warnings]


def test_none_everywhere_is_the_bundles_default() -> None:
    names = ["num_frames", "height", "width", "num_inference_steps", "guidance_scale", "seed"]
    names += ["negative_prompt", "fps_condition", "latents", "prompt_embeds", "decoder"]
    names += ["upscale", "callback_on_step_end", "cancel"]
    explicit, warnings = check(**dict.fromkeys(names))
    assert dataclasses.asdict(explicit) == dataclasses.asdict(check()[0])
    assert warnings == []
    assert dataclasses.asdict(explicit) == {
        "prompt": "a red ball",
        "negative_prompt": "",
        "num_frames": 6,
        "height": 32,
        "width": 32,
        "num_inference_steps": 4,
        "guidance_scale": 2.0,
        "seed": 0,
        "fps_condition": 8,
        "decoder": "vae_decoder",
        "upscale": False,
        "output_type": "video",
        "latents": None,
        "prompt_embeds": None,
    }


def test_numpy_numbers_become_plain_ones() -> None:
    request, _ = check(
        seed=np.uint64(2**64 - 1), num_frames=np.int8(6), guidance_scale=np.float32(2.5)
    )
    assert (request.seed, request.num_frames, request.guidance_scale) == (2**64 - 1, 6, 2.5)
    assert {type(request.seed), type(request.num_frames)} == {int}
    assert type(request.guidance_scale) is float


WHOLE = ["num_frames", "height", "width", "num_inference_steps", "seed", "fps_condition"]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("value", [True, np.bool_(True), 1.5, 16.0, "16", b"4", [4], np.ones(1)])
def test_whole_numbers_must_be_whole_numbers(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}, got .* expected a whole number") as caught:
        check(**{name: value})
    assert caught.value.code == "request.type"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"num_frames": 0}, "request.frames"),
        ({"num_frames": -1}, "request.frames"),
        ({"num_frames": 13}, "request.frames"),
        ({"num_frames": 10**9}, "request.frames"),
        ({"height": 0}, "request.size"),
        ({"width": -8}, "request.size"),
        ({"width": 33}, "request.size"),
        ({"height": 65536, "width": 65536}, "request.size"),
        ({"num_inference_steps": 0}, "request.steps"),
        ({"num_inference_steps": -1}, "request.steps"),
        ({"num_inference_steps": 51}, "request.steps"),
        ({"num_inference_steps": 1001}, "request.steps"),
        ({"seed": -1}, "request.seed"),
        ({"seed": 2**64}, "request.seed"),
        ({"fps_condition": 0}, "request.fps_condition"),
        ({"fps_condition": 10**6}, "request.fps_condition"),
        ({"guidance_scale": -1}, "request.guidance"),
        ({"guidance_scale": 1e9}, "request.guidance"),
        ({"guidance_scale": math.nan}, "request.not_finite"),
        ({"guidance_scale": math.inf}, "request.not_finite"),
        ({"guidance_scale": 10**400}, "request.not_finite"),
        ({"decoder": "tiny"}, "bundle.no_such_graph"),
        ({"decoder": "best"}, "request.decoder"),
        ({"latents": LATENTS[0]}, "request.latents"),
        ({"latents": LATENTS[:, :, :5]}, "request.latents"),
        ({"latents": np.full_like(LATENTS, np.nan)}, "request.latents"),
        ({"latents": np.full(LATENTS.shape, 1e300)}, "request.latents"),
    ],
)
def test_values_out_of_range_are_bad_input(options: dict, code: str) -> None:
    with pytest.raises(InputError, match=r"got .* expected") as caught:
        check(**options)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"guidance_scale": True}, "request.type"),
        ({"guidance_scale": "7.5"}, "request.type"),
        ({"guidance_scale": 1 + 2j}, "request.type"),
        ({"decoder": 1}, "request.type"),
        ({"latents": LATENTS.tolist()}, "request.type"),
        ({"latents": LATENTS.astype(np.int64)}, "request.type"),
        ({"callback_on_step_end": 3}, "request.type"),
        ({"cancel": object()}, "request.type"),
        ({"output_type": "pil"}, "request.output_type"),
        ({"output_type": None}, "request.output_type"),
        ({"negative_prompt": "blur"}, "request.negative_prompt"),
        ({"prompt_embeds": EMBEDS}, "request.prompt_embeds_and_prompt"),
        ({"num_steps": 4}, "request.unknown_option"),
    ],
)
def test_wrong_calls_are_usage_errors(options: dict, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        check(**options)
    assert caught.value.code == code
    assert caught.value.hint


def test_a_misspelt_option_names_its_neighbour() -> None:
    with pytest.raises(UsageError, match="did you mean num_inference_steps"):
        check(num_inferense_steps=4)


@pytest.mark.parametrize("prompt", [None, b"a ball", 7, ["a ball"], np.str_, float("nan")])
def test_a_prompt_is_a_str(prompt: object) -> None:
    with pytest.raises(UsageError) as caught:
        check(prompt)
    assert caught.value.code == "prompt.type"


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("a \ud800 ball", "prompt.encoding"),
        ("\udcff", "prompt.encoding"),
        ("a" * (MAX_PROMPT_BYTES + 1), "prompt.too_long"),
        ("\u00e9" * (MAX_PROMPT_BYTES // 2 + 1), "prompt.too_long"),
        ("a" * 2**20, "prompt.too_long"),
        ("\ud800" * 2**20, "prompt.too_long"),
    ],
)
def test_bad_prompts_are_bad_input(prompt: str, code: str) -> None:
    for facts, options in ((FACTS, {}), (CFG, {"negative_prompt": prompt})):
        with pytest.raises(InputError) as caught:
            check("a ball" if options else prompt, facts=facts, **options)
        assert caught.value.code == code
        assert len(str(caught.value)) < 300  # the prompt itself is not repeated


@pytest.mark.parametrize(
    "prompt",
    ["", "   ", "x" * 10_000, "a\x00b", "\u202e\u0645\u0631", "\U0001f468\u200d\U0001f469"],
)
def test_odd_prompts_are_taken_as_they_are(prompt: str) -> None:
    assert check(prompt)[0].prompt == prompt


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_frames": 7}, "num_frames 7: the model was trained on 6"),
        ({"height": 48}, "height 48: the model was trained on 32"),
        ({"width": 16}, "width 16: the model was trained on 32"),
        ({"num_inference_steps": 3}, "num_inference_steps 3: the model was trained on 4"),
        ({"num_inference_steps": 50}, "num_inference_steps 50: the model was trained on 4"),
        ({"fps_condition": 30}, "fps_condition 30: the model was trained on 8"),
        ({"guidance_scale": 9}, "guidance_scale 9.0: the model was trained on 1.0 to 4.0"),
    ],
)
def test_beyond_the_training_is_a_warning(options: dict, said: str) -> None:
    _, warnings = check(**options)
    assert len(warnings) == 1
    assert warnings[0].startswith(said)


def test_fewer_frames_than_trained_are_no_surprise() -> None:
    assert check(num_frames=1)[1] == []


@given(st.integers(-500, 5000), st.integers(1, 64), st.integers(1, 20), st.integers(0, 20))
def test_the_nearest_legal_size_is_legal_and_nearest(
    asked: int, step: int, first: int, more: int
) -> None:
    low, high = first * step, (first + more) * step
    side = Side(trained=low, default=low, multiple_of=step, allowed=(low, min(high, 4096)))
    nearest = nearest_side(asked, side)
    legal = range(low, min(high, 4096) + 1, step)
    assert nearest in legal
    assert abs(nearest - asked) == min(abs(size - asked) for size in legal)


def test_the_message_of_an_illegal_size_names_the_nearest() -> None:
    for asked, nearest in ((513, 64), (25, 32), (1, 16), (40, 32)):
        with pytest.raises(InputError, match=rf"nearest legal value is {nearest}$"):
            check(width=asked)


def test_latents_and_embeddings_become_float32() -> None:
    request, _ = check(
        None, latents=LATENTS.astype(np.float64), prompt_embeds=EMBEDS.astype(np.float16)
    )
    assert request.latents is not None
    assert request.prompt_embeds is not None
    assert request.latents.dtype == request.prompt_embeds.dtype == np.float32
    assert request.prompt == ""


@pytest.mark.parametrize("shape", [(1, 24, 9), (2, 24, 8), (24, 8), (1, 0, 8)])
def test_embeddings_must_fit_the_network(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError) as caught:
        check(None, prompt_embeds=np.zeros(shape, np.float32))
    assert caught.value.code == "request.prompt_embeds"


def test_embeddings_may_have_another_length() -> None:
    assert check(None, prompt_embeds=EMBEDS[:, :5])[0].prompt_embeds is not None


def test_negative_prompts_belong_to_cfg_models() -> None:
    assert check(facts=CFG, negative_prompt="blur")[0].negative_prompt == "blur"
    with pytest.raises(UsageError, match="expected a str"):
        check(facts=CFG, negative_prompt=5)


def test_a_model_without_guidance_takes_no_scale() -> None:
    none = Guidance("none", default=0.0, trained=(0.0, 0.0), allowed=(0.0, 0.0))
    facts = tiny_bundle.facts(guidance=none, timestep_cond_dim=None)
    assert check(facts=facts)[0].guidance_scale == 0.0
    with pytest.raises(InputError, match="takes no guidance") as caught:
        check(facts=facts, guidance_scale=2.0)
    assert caught.value.code == "request.guidance"


def test_a_second_decoder_can_be_chosen() -> None:
    graphs = tiny_bundle.graphs()
    graphs["vae_decoder_tiny"] = graphs["vae_decoder"]
    assert check(graphs=graphs, decoder="tiny")[0].decoder == "vae_decoder_tiny"
    assert check(graphs=graphs, decoder="full")[0].decoder == "vae_decoder"
    assert check(graphs=graphs)[0].decoder == "vae_decoder"


def test_a_bundle_with_the_tiny_decoder_alone_uses_it() -> None:
    graphs = tiny_bundle.graphs()
    graphs["vae_decoder_tiny"] = graphs.pop("vae_decoder")
    assert check(graphs=graphs)[0].decoder == "vae_decoder_tiny"
    with pytest.raises(InputError, match="what this bundle has: tiny") as caught:
        check(graphs=graphs, decoder="full")
    assert caught.value.code == "bundle.no_such_graph"


FIXED = tiny_bundle.facts(
    frames=Frames(trained=6, default=6, allowed=(6, 6)),
    height=Side(trained=32, default=32, multiple_of=16, allowed=(32, 32)),
    width=Side(trained=48, default=48, multiple_of=16, allowed=(48, 48)),
)


@pytest.mark.parametrize(
    ("options", "code", "size"),
    [
        ({"num_frames": 5}, "request.frames", 6),
        ({"num_frames": 7}, "request.frames", 6),
        ({"height": 16}, "request.size", 32),
        ({"height": 33}, "request.size", 32),
        ({"width": 64}, "request.size", 48),
    ],
)
def test_a_bundle_of_one_size_names_it(options: dict, code: str, size: int) -> None:
    assert check(facts=FIXED)[0].width == 48
    with pytest.raises(InputError, match=f"expected {size}, the only one of this bundle") as caught:
        check(facts=FIXED, **options)
    assert caught.value.code == code
    assert str(size) in caught.value.hint


def test_hooks_are_taken() -> None:
    check(cancel=CancelToken(), callback_on_step_end=print)


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=3),
    st.lists(st.integers(), max_size=2),
)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *WHOLE,
                "guidance_scale",
                "decoder",
                "latents",
                "negative_prompt",
                "output_type",
                "cancel",
            ]
        ),
        ANYTHING,
    ),
    ANYTHING,
)
def test_any_call_is_checked_or_refused_with_a_typed_error(options: dict, prompt: object) -> None:
    try:
        request, _ = check(prompt, **options)
    except HummingbirdError as error:
        outcome: object = error
    else:
        outcome = request
    typed = isinstance(outcome, Request) or outcome.code.startswith(
        ("request.", "prompt.", "bundle.no_such_graph")
    )
    assert typed, outcome
