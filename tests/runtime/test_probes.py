"""Probes: inputs made again from the seed, stored outputs compared, damage and drift refused."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from hummingbird_runtime import deep_check, integrity
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import ExecutionError, InputError
from hummingbird_runtime.guidance import guidance_embedding
from hummingbird_runtime.manifest import Frames, Manifest, Side
from hummingbird_runtime.noise import noise
from hummingbird_runtime.probe_cases import probe_cases
from hummingbird_runtime.probe_inputs import ProbeInput, probe_feeds
from hummingbird_runtime.probes import (
    SAMPLES,
    Probe,
    read_probes,
    write_probe,
)
from hummingbird_runtime.session import SessionOptions

SIZES = {"tokens": tiny_bundle.LENGTH, "vocabulary": 600}


def unet_by_hand(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    sinus = np.sin(np.arange(1000) * 0.37).astype(np.float32)
    shift = feeds["encoder_hidden_states"].mean() + feeds["timestep_cond"].mean()
    shift += sinus[feeds["timestep"]] + sinus[feeds["fps"]].mean()
    return (feeds["sample"] * np.float32(0.5) + np.tanh(shift)).astype(np.float32)


def text_by_hand(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    table = np.random.default_rng(0).normal(size=(600, tiny_bundle.WIDTH)).astype(np.float32)
    return table[feeds["input_ids"]]


def decoder_by_hand(feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    kernel = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    rgb = np.einsum("kc,nchw->nkhw", kernel, feeds["latent_sample"])
    return np.tanh(rgb.repeat(8, axis=2).repeat(8, axis=3)).astype(np.float32)


BY_HAND = {"unet": unet_by_hand, "text_encoder": text_by_hand, "vae_decoder": decoder_by_hand}


def reseal(root: Path, **changes: object) -> None:
    manifest = Manifest.from_json((root / "manifest.json").read_bytes())
    changes = {"files": integrity.file_entries(root), **changes}
    integrity.seal(root, dataclasses.replace(manifest, **changes))


def probed(root: Path, gate: float = 1e-5, scale: float = 1.0) -> Path:
    """The tiny bundle with every probe it can have; ``scale`` makes the references wrong."""
    tiny_bundle.write(root)
    for role, graph in tiny_bundle.graphs().items():
        for case, inputs in probe_cases(role, graph, tiny_bundle.facts(), **SIZES):
            arrays = {
                name: np.random.default_rng(3).normal(size=spec.shape).astype(np.float32)
                for name, spec in inputs.items()
                if spec.stored
            }
            output = BY_HAND[role](probe_feeds(inputs, 7, arrays)) * np.float32(scale)
            options = {"inputs": inputs, "seed": 7, "relative_l2": gate, "arrays": arrays}
            write_probe(root, role, case, output, **options)
    reseal(root)
    return root


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return probed(tmp_path_factory.mktemp("probes") / "probed")


def checked(root: Path) -> tuple[int, list[str]]:
    notes: list[str] = []
    count = deep_check.check_graphs(
        Bundle.open(root), SessionOptions(threads=1), cancel=CancelToken(), note=notes.append
    )
    return count, notes


def test_inputs_follow_from_the_seed_alone() -> None:
    inputs = {
        "b": ProbeInput((1, 3, 2, 5, 4), normal=0.5),
        "a": ProbeInput((1, 8), guidance=7.5),
        "c": ProbeInput((2, 300), below=7),
        "d": ProbeInput((), constant=519),
    }
    feeds = probe_feeds(inputs, 11)
    # stream 1 is b's, the second name; frames and channels are swapped in a latent clip's layout
    expected = noise(11, 1, 3, 2, 5, 4)[0].transpose(1, 0, 2, 3)[np.newaxis] * np.float32(0.5)
    np.testing.assert_array_equal(feeds["b"], expected)
    np.testing.assert_array_equal(feeds["a"], guidance_embedding(7.5, 8))
    assert (feeds["d"].dtype, feeds["d"].shape, int(feeds["d"])) == (np.int64, (), 519)
    assert feeds["c"].dtype == np.int64
    assert set(feeds["c"].ravel().tolist()) == set(range(7))
    assert not np.array_equal(probe_feeds(inputs, 12)["b"], feeds["b"])


def test_cases_are_small_sizes_that_the_bundle_allows() -> None:
    graphs, facts = tiny_bundle.graphs(), tiny_bundle.facts()
    wide = tiny_bundle.facts(
        frames=Frames(trained=6, default=6, allowed=(1, 26)),
        height=Side(trained=64, default=64, multiple_of=64, allowed=(64, 512)),
        width=Side(trained=64, default=64, multiple_of=64, allowed=(64, 512)),
    )
    cases = dict(probe_cases("unet", graphs["unet"], wide, **SIZES))
    assert list(cases) == ["4x16x16", "8x24x32"]
    assert cases["8x24x32"]["sample"] == ProbeInput((1, 4, 8, 24, 32), normal=1.0)
    assert cases["8x24x32"]["encoder_hidden_states"] == ProbeInput((1, 24, 8), stored=True)
    assert cases["4x16x16"]["timestep"] != cases["8x24x32"]["timestep"]
    assert cases["4x16x16"]["encoder_hidden_states"].shape == (1, 24, 8)
    # pixels end at 64: both wanted sizes come down to 8 x 8 cells
    assert list(dict(probe_cases("unet", graphs["unet"], facts, **SIZES))) == ["4x8x8", "8x8x8"]
    one = tiny_bundle.facts(
        frames=Frames(trained=6, default=6, allowed=(6, 6)),
        height=Side(trained=32, default=32, multiple_of=16, allowed=(32, 32)),
        width=Side(trained=48, default=48, multiple_of=16, allowed=(48, 48)),
    )
    assert list(dict(probe_cases("unet", graphs["unet"], one, **SIZES))) == ["6x4x6"]
    assert list(dict(probe_cases("vae_decoder", graphs["vae_decoder"], one, **SIZES))) == ["1x4x6"]
    assert probe_cases("vae_encoder", graphs["unet"], facts, **SIZES) == []


def test_a_bundle_that_computes_what_it_did_passes(bundle: Path) -> None:
    count, notes = checked(bundle)
    assert count == 4
    assert sum(note.startswith("opened ") for note in notes) == 3
    assert sum("dB), allowed 1.00e-05 (100.0 dB)" in note for note in notes) == 4


def test_large_outputs_are_stored_in_part(bundle: Path) -> None:
    (found,) = read_probes(Bundle.open(bundle), "vae_decoder")
    probe, stored = found.probe, found.reference
    assert probe.shape == (1, 3, 64, 64)
    assert probe.stride == 1
    output = np.random.default_rng(0).normal(size=(5, 90, 90)).astype(np.float32)
    write_probe(
        bundle.parent, "unet", "x", output, inputs={}, seed=0, relative_l2=1.0
    )  # fmt: skip
    document = json.loads((bundle.parent / "probes" / "unet.json").read_bytes())
    stride = document["cases"][0]["stride"]
    assert -(-output.size // stride) <= SAMPLES
    assert math.gcd(stride, 90) == 1
    np.testing.assert_array_equal(
        np.load(bundle.parent / "probes" / "unet.0.npy"), output.ravel()[::stride]
    )
    assert document["cases"][0]["norm"] == pytest.approx(np.linalg.norm(output))
    assert len(stored) == 3 * 64 * 64


@pytest.mark.parametrize(("scale", "percent"), [(1.001, 0.1), (0.999, 0.1), (-1.0, 200)])
def test_a_graph_that_drifted_is_refused_with_both_figures(
    tmp_path: Path, scale: float, percent: float
) -> None:
    path = probed(tmp_path / "drifted", scale=scale)
    with pytest.raises(ExecutionError) as caught:
        checked(path)
    assert caught.value.code == "verify.parity"
    got = float(caught.value.message.partition("L2 error ")[2].partition(" ")[0])
    assert got == pytest.approx(percent / 100, rel=0.02)
    assert "expected at most 1.00e-05 (100.0 dB)" in caught.value.message
    assert checked(probed(tmp_path / "allowed", gate=3.0, scale=scale))[0] == 4


def test_what_is_not_stored_is_held_by_its_norm() -> None:
    output = np.ones((2, 40), np.float32)
    probe = Probe("x", 0, {}, (2, 40), 3, float(np.sqrt(80)), 1e-3)
    stored = output.ravel()[::3]
    assert deep_check.relative_error(probe, stored, output) < 1e-7
    changed = output.copy()
    changed.ravel()[1] = 5  # between two stored elements
    assert deep_check.relative_error(probe, stored, changed) > 0.1
    assert deep_check.relative_error(probe, stored, output[:1]) == math.inf
    assert not deep_check.relative_error(probe, stored, output * np.float32("nan")) <= 1e9


PROBE = {
    "case": "x", "seed": 0, "shape": [1, 2], "stride": 1, "norm": 1.0, "relative_l2": 1e-4,
    "inputs": {"input_ids": {"shape": [1, 24], "below": 3}},
}  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"seed": 1 << 64},
        {"norm": 0.0},
        {"relative_l2": 0.0},
        {"relative_l2": "small"},
        {"shape": [1, 0]},
        {"shape": [1 << 30, 1 << 30]},
        {"shape": [1, 20000], "stride": 1},
        {"stride": 0},
        {"stride": 1 << 50},
        {"inputs": {"x": {"shape": [1]}}},
        {"inputs": {"x": {"shape": [1], "below": 3, "constant": 1}}},
        {"inputs": {"x": {"shape": [1], "below": 0}}},
        {"inputs": {"x": {"shape": [0], "below": 3}}},
        {"inputs": {"x": {"shape": [1 << 30], "normal": 1.0}}},
        {"inputs": {"x": {"shape": [2, 4], "guidance": 1.0}}},
        {"inputs": {"x": {"shape": [1], "stored": False}}},
        {"inputs": {"../x": {"shape": [1], "stored": True}}},
        {"inputs": {"x": {"shape": [1, 5], "guidance": 1.0}}},
        {"url": "x"},
    ],
)
def test_records_that_make_no_sense_are_refused(tmp_path: Path, change: dict) -> None:
    root = probed(tmp_path / "x")
    cases = {"cases": [{**PROBE, **change}]}
    (root / "probes" / "text_encoder.json").write_text(json.dumps(cases))
    reseal(root)
    with pytest.raises(InputError) as caught:
        checked(root)
    assert caught.value.code == "bundle.manifest_invalid"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"0"),
        lambda path: np.save(path, np.zeros(24 * 8)),
        lambda path: np.save(path, np.zeros((24, 8), np.float32)),
        lambda path: np.save(path, np.array([{}], object)),
    ],
    ids=range(7),
)
@pytest.mark.parametrize("name", ["text_encoder.0.npy", "unet.1.encoder_hidden_states.npy"])
def test_arrays_of_another_form_are_never_unpickled_or_read(
    tmp_path: Path, damage, name: str
) -> None:
    root = probed(tmp_path / "x")
    damage(root / "probes" / name)
    reseal(root)
    with pytest.raises(InputError, match=re.escape(name)) as caught:
        checked(root)
    assert caught.value.code == "bundle.manifest_invalid"


def test_more_than_a_few_cases_are_refused(tmp_path: Path) -> None:
    root = probed(tmp_path / "x")
    (root / "probes" / "unet.json").write_text(json.dumps({"cases": [PROBE] * 17}))
    reseal(root)
    with pytest.raises(InputError, match="at most 16"):
        checked(root)


def test_the_command_runs_the_probes(bundle: Path, capsys, tmp_path: Path) -> None:
    assert main(["verify", str(bundle), "--deep", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    assert "3 graphs opened, 4 probes held; two runs equal" in out
    assert "unet 4x8x8: relative L2 error" in err
    assert main(["verify", str(probed(tmp_path / "y", scale=1.1)), "--deep"]) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("error[verify.parity]: probe of text_encoder 24: ")


def test_a_whole_clip_tells_seconds_by_stage_and_memory(
    tiny_bundle_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["verify", str(tiny_bundle_path), "--full", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    for stage in ("load", "text", "denoise", "decode", "total"):
        assert f"{stage} 0." in out or f"{stage} 1." in out
    assert "two runs equal" not in out
    peak = deep_check.peak_memory()
    assert peak is not None
    assert 10 << 20 < peak < 64 << 30
    monkeypatch.setattr(deep_check, "Path", lambda name: Path("no such file"))
    other = deep_check.peak_memory()
    assert other is None or other > 10 << 20
    monkeypatch.setattr(deep_check, "peak_memory", lambda: None)
    assert main(["verify", str(tiny_bundle_path), "--full", "--decoder", "tiny"]) == 3
    assert main(["verify", str(tiny_bundle_path), "--full", "--decoder", "full"]) == 0
    assert "peak memory not told" in capsys.readouterr().out
