"""The same-work certificate: every fact is a control or explained by a declared treatment."""

from __future__ import annotations

import dataclasses

import pytest

from hummingbird_bench.certificate import CONTROLS, TREATMENTS, certify, compare
from hummingbird_bench.identity import Identity
from hummingbird_runtime.errors import InputError, UsageError

OURS = Identity(
    height=320,
    width=512,
    frames=26,
    prompt_sha256="p",
    noise_sha256="n",
    threads=2,
    device="cpu",
    model="Hummingbird 0.7B",
    sampler="lcm",
    eta=0.0,
    steps=4,
    passes=4,
    guidance=7.5,
    engine="onnxruntime",
    provider="CPUExecutionProvider",
    graphs={"text": "a", "unet": "b", "decoder": "c"},
    precision={"text": "fp32", "unet": "fp32", "decoder": "fp32"},
    decoder="full",
    weights="random",
    decoder_weights="random",
    flops={"text": 1, "texts": 1, "unet_pass": 10, "passes": 4, "decoded_frame": 2, "frames": 26,
           "total": 93},
)  # fmt: skip

OPPONENT = dataclasses.replace(
    OURS,
    model="VideoCrafter2",
    sampler="ddim",
    eta=1.0,
    steps=50,
    passes=100,
    guidance=12.0,
    engine="torch",
    provider="torch cpu",
    graphs={"text": "d", "unet": "e", "decoder": "f"},
    flops={"text": 1, "texts": 2, "unet_pass": 16, "passes": 100, "decoded_frame": 2, "frames": 26,
           "total": 1654},
)  # fmt: skip


def test_equal_arms_differ_in_nothing():
    found = certify(OURS, OURS, ())
    assert found.valid
    assert found.differs == ()
    assert found.work_ratio == 1.0


def test_the_headline_is_explained_by_its_treatments():
    found = certify(OPPONENT, OURS, ("steps", "model", "engine"))
    assert {d.axis for d in found.differs} == {"steps", "model", "engine"}
    assert {d.field for d in found.differs} >= {"passes", "flops.unet_pass", "graphs.unet"}
    assert found.work_ratio == pytest.approx(1654 / 93)


@pytest.mark.parametrize("missing", ["steps", "model", "engine"])
def test_each_treatment_of_the_headline_is_needed(missing):
    treatment = {"steps", "model", "engine"} - {missing}
    with pytest.raises(InputError) as caught:
        certify(OPPONENT, OURS, treatment)
    assert caught.value.code == "bench.unlike_work"


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_is_refused_under_any_treatment(control):
    value = getattr(OURS, control)
    other = dataclasses.replace(OURS, **{control: value + value})
    found = compare(OURS, other, tuple(TREATMENTS))
    assert [d.field for d in found.refused] == [control]
    assert not found.valid
    with pytest.raises(InputError, match=control):
        certify(OURS, other, tuple(TREATMENTS))


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(Identity) if f.name != "flops"]
)
def test_no_fact_can_differ_in_an_a_a_run(field):
    value = getattr(OURS, field)
    changed = {**value, "unet": "other"} if isinstance(value, dict) else "other"
    found = compare(OURS, dataclasses.replace(OURS, **{field: changed}), ())
    assert found.refused


def test_silent_int8_is_found():
    quantized = dataclasses.replace(OURS, precision={**OURS.precision, "unet": "int8"})
    assert [d.field for d in compare(OURS, quantized, ("steps",)).refused] == ["precision.unet"]
    assert certify(OURS, quantized, ("precision",)).valid


def test_less_work_under_the_same_names_is_found():
    lighter = dataclasses.replace(OURS, flops={**OURS.flops, "unet_pass": 9})
    found = compare(OURS, lighter, ("steps", "engine", "precision", "decoder"))
    assert [d.field for d in found.refused] == ["flops.unet_pass"]


def test_unknown_treatments_are_refused():
    with pytest.raises(UsageError, match="threads") as caught:
        compare(OURS, OURS, ("threads",))
    assert caught.value.code == "bench.treatment"
