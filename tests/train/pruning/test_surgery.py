"""Surgery on weights: published keys and shapes, bit-equal blocks, refusals, and the verb."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from hummingbird_runtime.errors import InputError, UsageError
from hummingbird_train.models.blocks import Conditioning
from hummingbird_train.models.unet import UNetConfig, VideoUNet
from hummingbird_train.models.weights import load_model, save_model, skeleton
from hummingbird_train.pruning.plan import plan
from hummingbird_train.pruning.surgery import main, prune, pruned_unet

KEYS = Path(__file__).parents[1] / "models" / "data"
# The published four levels at toy widths: two blocks a level and a middle block.
TEACHER = UNetConfig(
    model_channels=4,
    channel_mult=(1, 2, 4, 4),
    num_head_channels=2,
    init_attn_heads=2,
    context_dim=6,
    norm_num_groups=2,
    temporal_dropout=0.0,
)
LARGE = replace(TEACHER, num_res_blocks=1, time_cond_proj_dim=8)
SMALL = replace(LARGE, middle_block=False)


def random_unet(config: UNetConfig, seed: int = 0) -> VideoUNet:
    """Every parameter random, also those that start at zero."""
    torch.manual_seed(seed)
    unet = VideoUNet(config)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return unet.eval()


@pytest.fixture(scope="module")
def teacher() -> VideoUNet:
    return random_unet(TEACHER)


def published(name: str) -> dict[str, tuple[int, ...]]:
    _, *lines = (KEYS / f"keys_unet_{name}.tsv").read_text("utf-8").splitlines()
    pairs = (line.split("\t") for line in lines)
    return {key: tuple(int(d) for d in dims.split("x")) for key, dims in pairs}


def test_the_published_chain_has_the_published_tensors_at_full_size() -> None:
    vc2, large, small = (
        UNetConfig.videocrafter2(), UNetConfig.hummingbird_09b(), UNetConfig.hummingbird_07b()
    )  # fmt: skip
    state = skeleton("unet", vc2).state_dict()
    assert {n: tuple(t.shape) for n, t in state.items()} == published("videocrafter2")
    first = prune(state, plan(vc2, large))
    assert {n: tuple(t.shape) for n, t in first.items()} == published("hummingbird_09b")
    second = prune(first, plan(large, small))
    assert {n: tuple(t.shape) for n, t in second.items()} == published("hummingbird_07b")
    at_once = prune(state, plan(vc2, small))
    assert {n: t.shape for n, t in at_once.items()} == {n: t.shape for n, t in second.items()}
    assert all(t.is_meta for t in at_once.values())


def test_kept_blocks_are_the_teachers_bit_for_bit(teacher: VideoUNet) -> None:
    pruning = plan(TEACHER, SMALL)
    old, new = teacher.state_dict(), prune(teacher, pruning)
    assert list(new) == list(skeleton("unet", SMALL).state_dict())
    checked = 0
    for a, b in pruning.kept.items():
        for name, tensor in old.items():
            if name.startswith(f"{a}."):
                other = new[b + name[len(a) :]]
                assert other.data_ptr() == tensor.data_ptr()
                assert torch.equal(other, tensor)
                checked += 1
    assert checked == len(new) - 1  # all but the guidance embedding
    assert not new["time_cond_proj.weight"].any()


@torch.no_grad()
def test_kept_blocks_compute_what_they_did(teacher: VideoUNet) -> None:
    pruning = plan(TEACHER, SMALL)
    student = pruned_unet(teacher, pruning)
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    cond = Conditioning(1, 2, normal(1, 1, 16), normal(1, 3, 6), False)
    compared = 0
    for a, b in pruning.kept.items():
        if "put_blocks" not in a and a != "init_attn":
            continue
        old, new = teacher.get_submodule(a), student.get_submodule(b)
        first = next(iter(new.parameters()))
        channels = first.shape[1] if first.ndim > 1 else first.shape[0]
        x = normal(2, channels, 4, 4)
        y = old(x, cond)
        assert torch.equal(y, new(x, cond)), (a, b)
        assert y.std() > 0.01
        compared += 1
    assert compared == 17  # 8 down with stem and resampling, 8 up, init_attn


@torch.no_grad()
def test_the_student_runs_and_is_independent_of_its_teacher(teacher: VideoUNet) -> None:
    student = pruned_unet(teacher, plan(TEACHER, SMALL))
    expected = VideoUNet(SMALL)
    expected.load_state_dict(student.state_dict())
    arguments = {
        "sample": torch.randn(1, 4, 2, 8, 8),
        "timestep": torch.tensor([519]),
        "encoder_hidden_states": torch.randn(1, 3, 6),
        "timestep_cond": torch.randn(1, 8),
        "fps": torch.tensor([8]),
    }
    output = student(**arguments)
    assert torch.equal(output, expected.eval()(**arguments))
    other = {**arguments, "timestep_cond": torch.randn(1, 8)}
    assert torch.equal(student(**other), output)  # w is ignored until it is trained
    before = teacher.state_dict()["out.2.bias"].clone()
    student.out[2].bias.add_(1.0)
    assert torch.equal(teacher.state_dict()["out.2.bias"], before)


def test_weights_of_another_network_are_refused(teacher: VideoUNet) -> None:
    pruning = plan(TEACHER, SMALL)
    state = teacher.state_dict()
    lacking = {n: t for n, t in state.items() if n != "out.0.bias"}
    with pytest.raises(InputError) as caught:
        prune(lacking, pruning)
    assert caught.value.code == "checkpoint.keys"
    state["out.0.bias"] = torch.zeros(5)
    with pytest.raises(InputError) as caught:
        prune(state, pruning)
    assert caught.value.code == "checkpoint.shapes"


def test_the_verb_writes_a_network_that_loads(
    teacher: VideoUNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "teacher.safetensors", tmp_path / "student.safetensors"
    save_model(source, teacher, TEACHER, dtype=torch.float16)
    assert main([str(source), "-o", str(out), "--guidance-dim", "8"]) == 0
    assert "| output_blocks.11 | output_blocks.7 |" in capsys.readouterr().out
    student = load_model(out)
    assert isinstance(student, VideoUNet)
    assert student.config == replace(SMALL, temporal_dropout=TEACHER.temporal_dropout)
    with safe_open(str(out), framework="pt") as file:
        kept = json.loads(file.metadata()["pruning"])["kept"]
        half = file.get_tensor("output_blocks.7.0.in_layers.2.weight")
    assert kept["output_blocks.11"] == "output_blocks.7"
    assert half.dtype == torch.float16  # bits of the file, not of a conversion
    assert torch.equal(half, teacher.output_blocks[11][0].in_layers[2].weight.half())
    with pytest.raises(UsageError) as caught:
        main([str(source), "-o", str(out)])
    assert caught.value.code == "output.exists"


def test_the_verb_only_prints_without_an_output(
    teacher: VideoUNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "teacher.safetensors"
    save_model(source, teacher, TEACHER)
    before = sorted(tmp_path.iterdir())
    assert main([str(source), "--keep-middle-block", "--keep", "input_blocks.11", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kept"]["input_blocks.11"] == "input_blocks.7"
    assert "input_blocks.10" in found["dropped"]
    assert found["kept"]["middle_block"] == "middle_block"
    assert sorted(tmp_path.iterdir()) == before
