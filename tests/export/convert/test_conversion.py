"""Whole conversions: every container to the same bits, refusals, and what lies in the folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_checkpoints import CONTAINERS, PREFIXES, TEXT, UNET, VAE, networks, published
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hummingbird_export.convert import conversion
from hummingbird_export.convert.container import open_checkpoint
from hummingbird_export.convert.conversion import Options, convert
from hummingbird_export.convert.doctor import diagnose
from hummingbird_export.convert.lora import lora_order, read_lora
from hummingbird_export.convert.provenance import NOTICE, Terms
from hummingbird_runtime.errors import (
    Cancelled,
    HummingbirdError,
    InputError,
    IntegrityError,
    ResourceError,
    UsageError,
)
from hummingbird_train.models.weights import load_model, save_model

OPTIONS = Options(Terms("RAIL-MS", "The terms.\n"), "little")


def source(tmp_path: Path, tensors: dict[str, torch.Tensor], kind: str = "safetensors") -> Path:
    path = tmp_path / f"model-{kind.replace(' ', '-')}.ckpt"
    CONTAINERS[kind](path, tensors)
    return path


def run(path: Path, out: Path, *, overwrite: bool = False, **changes: object) -> Path:
    diagnosis = diagnose([open_checkpoint(path, modules=True)])
    return convert(out, diagnosis, replace(OPTIONS, **changes), overwrite=overwrite)


def refusal(path: Path, out: Path, **changes: object) -> HummingbirdError:
    with pytest.raises(HummingbirdError) as caught:
        run(path, out, **changes)
    assert not out.exists()
    assert not list(out.parent.glob(".hummingbird-*"))
    assert "\n" not in str(caught.value)
    return caught.value


def expected(part: str) -> dict[str, torch.Tensor]:
    """What a converted part must hold: the network's tensors, without those that never run."""
    dropped = ("transformer.resblocks.2.", "text_projection", "logit_scale")
    state = networks()[part].state_dict()
    return {n: t for n, t in state.items() if part != "text" or not n.startswith(dropped)}


@pytest.mark.parametrize("kind", ["safetensors", "deepspeed", "module"])
def test_containers_convert_to_the_same_bits(tmp_path: Path, kind: str):
    out = run(source(tmp_path, published(), kind), tmp_path / "out")
    for part in PREFIXES:
        got = load_file(out / f"{part}.safetensors")
        wanted = expected(part)
        assert set(got) == set(wanted)
        for name, tensor in wanted.items():
            assert got[name].dtype == torch.float32
            assert got[name].shape == tensor.shape, name
            assert got[name].numpy().tobytes() == tensor.numpy().tobytes(), name


def test_the_networks_load_and_compute_the_same(tmp_path: Path):
    out = run(source(tmp_path, published()), tmp_path / "out")
    unet, vae, text = (load_model(out / f"{part}.safetensors") for part in PREFIXES)
    assert unet.config == UNET
    assert vae.config == VAE
    assert text.config == replace(TEXT, published_extras=False)
    ids = torch.randint(0, 40, (1, 8))
    with torch.inference_mode():
        context = text(ids)
        assert torch.equal(context, networks()["text"](ids))
        inputs = (torch.randn(1, 4, 2, 4, 4), torch.tensor(519), context)
        extra = {"timestep_cond": torch.randn(1, 8), "fps": torch.tensor([8])}
        assert torch.equal(unet(*inputs, **extra), networks()["unet"](*inputs, **extra))
        z = torch.randn(1, 4, 3, 3)
        assert torch.equal(vae.decode(z), networks()["vae"].decode(z))


def test_files_equal_those_of_save_model(tmp_path: Path):
    """Not byte for byte (safetensors sorts), but tensor for tensor and in the metadata."""
    out = run(source(tmp_path, published()), tmp_path / "out", dtype="fp16")
    save_model(tmp_path / "vae.safetensors", networks()["vae"], VAE, dtype=torch.float16)
    ours, theirs = load_file(out / "vae.safetensors"), load_file(tmp_path / "vae.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    headers = []
    for path in (out / "vae.safetensors", tmp_path / "vae.safetensors"):
        with safe_open(path, "pt") as file:
            headers.append(file.metadata())
    assert headers[0] == headers[1]


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_types_are_widened_or_narrowed(tmp_path: Path, stored: torch.dtype):
    tensors = {
        name: tensor.to(stored) if tensor.is_floating_point() else tensor
        for name, tensor in published().items()
    }
    path = source(tmp_path, tensors, "plain")
    for dtype, kind in (("fp32", torch.float32), ("fp16", torch.float16)):
        out = run(path, tmp_path / dtype, dtype=dtype)
        for part, prefix in PREFIXES.items():
            for name, tensor in load_file(out / f"{part}.safetensors").items():
                assert torch.equal(tensor, tensors[prefix + name].to(kind))
        record = json.loads((out / "provenance.json").read_bytes())
        assert record["parts"]["unet"]["source_dtypes"] == [str(stored).removeprefix("torch.")]
        assert record["parts"]["unet"]["dtype"] == dtype


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    path = source(tmp_path, published(), "module")
    first, second = (run(path, tmp_path / name) for name in ("a", "b"))
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for name in files:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_folder_says_where_its_weights_come_from(tmp_path: Path):
    path = source(tmp_path, published(), "module")
    out = run(path, tmp_path / "out")
    assert sorted(p.name for p in out.iterdir()) == [
        "LICENSE",
        "build.json",
        "config.json",
        "provenance.json",
        "text.safetensors",
        "tokenizer",
        "unet.safetensors",
        "vae.safetensors",
    ]
    assert (out / "LICENSE").read_text() == "The terms.\n"
    record = json.loads((out / "provenance.json").read_bytes())
    (origin,) = record["sources"]
    assert origin == {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "container": "pickled module lvdm.models.ddpm3d.LatentDiffusion",
    }
    assert record["variant"] == "hummingbird-0.7b-layout"
    assert record["licence"] == "RAIL-MS"
    assert record["redistribution"] == NOTICE
    assert record["lora"] is None
    for part, entry in record["parts"].items():
        data = (out / entry["file"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["tensors"] == len(expected(part))
    recipe = json.loads((out / "build.json").read_bytes())
    assert recipe["provenance"]["sources"] == record["sources"]
    assert recipe["provenance"]["redistribution"] == NOTICE
    assert recipe["scheduler"]["sampler"] == "lcm"
    assert str(tmp_path) not in (out / "provenance.json").read_text()


def test_a_fetched_file_carries_its_revision(tmp_path: Path):
    path = source(tmp_path, published())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = {"repo": "a/b", "revision": "0" * 40, "files": {path.name: {"sha256": digest}}}
    (tmp_path / "fetch.json").write_text(json.dumps(record))
    out = run(path, tmp_path / "out")
    (origin,) = json.loads((out / "provenance.json").read_bytes())["sources"]
    assert (origin["repo"], origin["revision"]) == ("a/b", "0" * 40)
    record["files"][path.name]["sha256"] = "f" * 64
    (tmp_path / "fetch.json").write_text(json.dumps(record))
    error = refusal(path, tmp_path / "other")
    assert isinstance(error, IntegrityError)
    assert error.code == "checkpoint.changed"


def test_a_lora_is_merged(tmp_path: Path):
    shapes = {n: tuple(t.shape) for n, t in networks()["unet"].state_dict().items()}
    order = lora_order(shapes)
    torch.manual_seed(0)
    tensors = []
    for name in order:
        out, inside, *kernel = shapes[name]
        tensors += [torch.randn(out, 2, *[1] * len(kernel)), torch.randn(2, inside, *kernel)]
    torch.save(tensors, tmp_path / "unet_lora.pt")
    lora = read_lora(open_checkpoint(tmp_path / "unet_lora.pt"))
    path = source(tmp_path, published(), "deepspeed")
    got = load_file(run(path, tmp_path / "out", lora=lora, strength=0.5) / "unet.safetensors")
    for name, tensor in expected("unet").items():
        if name not in order:
            assert torch.equal(got[name], tensor)
            continue
        up, down = tensors[2 * order.index(name)], tensors[2 * order.index(name) + 1]
        update = 0.5 * (up.flatten(1) @ down.flatten(1)).reshape(tensor.shape)
        assert not torch.equal(got[name], tensor)
        torch.testing.assert_close(got[name], tensor + update, atol=1e-5, rtol=1e-5)
    record = json.loads((tmp_path / "out" / "provenance.json").read_bytes())
    assert record["lora"]["file"] == "unet_lora.pt"
    assert record["lora"]["strength"] == 0.5
    for part in ("vae", "text"):
        other = load_file(tmp_path / "out" / f"{part}.safetensors")
        assert all(torch.equal(other[n], t) for n, t in expected(part).items())


def test_a_lora_without_a_unet_is_refused(tmp_path: Path):
    torch.save([torch.ones(4, 1), torch.ones(1, 4)], tmp_path / "unet_lora.pt")
    lora = read_lora(open_checkpoint(tmp_path / "unet_lora.pt"))
    vae = {n: t for n, t in published().items() if n.startswith("first_stage_model.")}
    path = source(tmp_path, vae)
    assert refusal(path, tmp_path / "out", lora=lora, partial=True).code == "lora.base"
    assert refusal(tmp_path / "unet_lora.pt", tmp_path / "out").code == "checkpoint.kind"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, bad: float, dtype: str):
    tensors = published()
    name = "first_stage_model.decoder.conv_in.bias"
    tensors[name] = tensors[name].clone()
    tensors[name][3] = bad
    error = refusal(source(tmp_path, tensors), tmp_path / "out", dtype=dtype)
    assert isinstance(error, InputError)
    assert error.code == "checkpoint.not_finite"
    assert "decoder.conv_in.bias: got 1 of 64" in error.message


def test_weights_beyond_float16_are_named(tmp_path: Path):
    tensors = published()
    name = "model.diffusion_model.out.2.bias"
    tensors[name] = torch.full_like(tensors[name], 70000.0)
    path = source(tmp_path, tensors)
    error = refusal(path, tmp_path / "out", dtype="fp16")
    assert error.code == "checkpoint.half_range"
    assert "out.2.bias: got magnitude 7e+04" in error.message
    assert "--dtype fp32" in error.hint
    assert run(path, tmp_path / "out").is_dir()


def test_missing_unexpected_and_misshapen_tensors_are_refused(tmp_path: Path):
    unet = "model.diffusion_model."
    for change, code, match in (
        ({f"{unet}out.2.bias": None}, "checkpoint.keys", "1 tensors missing"),
        ({f"{unet}out.7.bias": torch.ones(2)}, "checkpoint.keys", "unexpected unet: out.7.bias"),
        ({"reward.head": torch.ones(2)}, "checkpoint.keys", "unexpected reward.head"),
        ({f"{unet}out.2.bias": torch.ones(9)}, "checkpoint.shapes", "[9], expected [4]"),
        ({f"{unet}out.2.bias": torch.ones(4).int()}, "checkpoint.dtype", "int32 in out.2.bias"),
    ):
        tensors = {n: t for n, t in (published() | change).items() if t is not None}
        error = refusal(source(tmp_path, tensors, "plain"), tmp_path / "out")
        assert error.code == code
        assert error.exit_code == 3
        assert match in error.message, error.message


def test_another_variant_than_asked_is_refused(tmp_path: Path):
    error = refusal(source(tmp_path, published()), tmp_path / "out", variant="hummingbird-0.7b")
    assert error.code == "checkpoint.variant"
    assert "hummingbird-0.7b-layout" in error.message


def test_parts_can_be_missing_only_when_asked(tmp_path: Path):
    vae = {n: t for n, t in published().items() if n.startswith("first_stage_model.")}
    path = source(tmp_path, vae)
    error = refusal(path, tmp_path / "out")
    assert error.code == "checkpoint.parts"
    assert "got vae, expected also unet and text" in error.message
    out = run(path, tmp_path / "out", partial=True)
    recipe = json.loads((out / "build.json").read_bytes())
    assert recipe["vae"] == "vae.safetensors"
    assert "unet" not in recipe
    assert "scheduler" not in recipe


def test_several_files_make_one_model(tmp_path: Path):
    opened = []
    for part, prefix in PREFIXES.items():
        bare = {n.removeprefix(prefix): t for n, t in published().items() if n.startswith(prefix)}
        save_file(
            {n: t for n, t in bare.items() if "loss" not in n and "visual" not in n},
            tmp_path / f"{part}.safetensors",
        )
        opened.append(open_checkpoint(tmp_path / f"{part}.safetensors"))
    out = convert(tmp_path / "out", diagnose(opened), OPTIONS)
    record = json.loads((out / "provenance.json").read_bytes())
    assert [entry["file"] for entry in record["sources"]] == [o.path.name for o in opened]
    again = [open_checkpoint(out / f"{part}.safetensors") for part in PREFIXES]  # our own files
    second = convert(tmp_path / "again", diagnose(again), OPTIONS)
    for part in PREFIXES:
        name = f"{part}.safetensors"
        assert (second / name).read_bytes() == (out / name).read_bytes()


def test_only_a_converted_folder_is_replaced(tmp_path: Path):
    path = source(tmp_path, published())
    out = run(path, tmp_path / "out")
    with pytest.raises(UsageError) as caught:
        run(path, out)
    assert caught.value.code == "output.exists"
    assert run(path, out, overwrite=True, dtype="fp16") == out
    assert load_file(out / "vae.safetensors")["decoder.conv_in.bias"].dtype == torch.float16
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError) as caught:
        run(path, mine, overwrite=True)
    assert caught.value.code == "output.not_a_checkpoint"
    assert (mine / "thesis.tex").read_text() == "years of work"


def test_a_disk_that_is_too_small_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = source(tmp_path, published())
    free = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: free)
    with pytest.raises(ResourceError, match="1000000 bytes free") as caught:
        run(path, tmp_path / "out")
    assert caught.value.code == "output.disk_full"


def test_a_missing_parent_is_named(tmp_path: Path):
    with pytest.raises(ResourceError) as caught:
        run(source(tmp_path, published()), tmp_path / "no" / "out")
    assert caught.value.code == "output.folder_missing"


def test_a_conversion_can_be_cancelled(tmp_path: Path):
    calls = iter(range(40))

    def watch() -> None:
        if next(calls, None) is None:
            raise Cancelled

    error = refusal(source(tmp_path, published()), tmp_path / "out", watch=watch)
    assert isinstance(error, Cancelled)


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path):
    """The reader hands out tensors one by one and nobody keeps them."""
    import weakref

    opened = open_checkpoint(source(tmp_path, published(), "plain"))
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def read(name: str) -> torch.Tensor:
        nonlocal most
        tensor = opened.read(name)
        alive.append(weakref.ref(tensor))
        most = max(most, sum(ref() is not None for ref in alive))
        return tensor

    convert(tmp_path / "out", diagnose([replace(opened, read=read)]), OPTIONS)
    assert len(alive) > 500
    assert most <= 2
