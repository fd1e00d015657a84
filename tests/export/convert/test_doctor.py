"""The doctor names every published model from its keys and shows faults by block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from published_checkpoints import TEXT, UNET, VAE, networks, published

from hummingbird_export.convert import layout
from hummingbird_export.convert.container import Checkpoint, TensorInfo
from hummingbird_export.convert.doctor import Diagnosis, diagnose, expected_shapes
from hummingbird_export.convert.table import MAX_ROWS, report, title
from hummingbird_export.convert.variants import VARIANTS, variant_of
from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig
from hummingbird_train.models.weights import skeleton

DATA = Path(__file__).parents[2] / "train" / "models" / "data"
"""Names and shapes of the published U-Nets, in their own order."""

KEY_LISTS = {
    "hummingbird-0.7b": "hummingbird_07b",
    "hummingbird-0.9b": "hummingbird_09b",
    "videocrafter2": "videocrafter2",
}

Shapes = dict[str, tuple[int, ...]]


def key_list(variant: str) -> Shapes:
    lines = (DATA / f"keys_unet_{KEY_LISTS[variant]}.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines if not line.startswith("#"))
    return {name: tuple(map(int, dims.split("x"))) for name, dims in rows}


def checkpoint(tmp_path: Path, shapes: Mapping[str, tuple[int, ...]], **options: str) -> Checkpoint:
    path = tmp_path / options.get("name", "model.ckpt")
    path.write_bytes(bytes(1000))
    dtype = options.get("dtype", "float32")
    infos = {name: TensorInfo(shape, dtype) for name, shape in shapes.items()}

    def no_reading(name: str) -> None:
        raise AssertionError(f"the doctor read {name}")

    return Checkpoint(path, options.get("container", "state dict"), infos, no_reading)


def whole(unet: Mapping[str, tuple[int, ...]]) -> Shapes:
    """A U-Net with the published autoencoder and text tower."""
    vae = expected_shapes("vae", AutoencoderConfig.videocrafter2())
    text = skeleton("text_encoder", TextConfig.videocrafter2()).state_dict()
    return {
        **{f"model.diffusion_model.{n}": s for n, s in unet.items()},
        **{f"first_stage_model.{n}": s for n, s in vae.items()},
        **{f"cond_stage_model.model.{n}": tuple(t.shape) for n, t in text.items()},
    }


def look(tmp_path: Path, shapes: Mapping[str, tuple[int, ...]], **options: str) -> Diagnosis:
    return diagnose([checkpoint(tmp_path, shapes, **options)])


@pytest.mark.parametrize("variant", KEY_LISTS)
def test_published_key_lists_are_named_and_complete(tmp_path: Path, variant: str):
    found = look(tmp_path, whole(key_list(variant)))
    assert found.variant is not None
    assert found.variant.name == variant
    assert found.variant.published
    assert found.sound
    assert found.parts["vae"].config == AutoencoderConfig.videocrafter2()
    assert found.parts["text"].config == replace(TextConfig.videocrafter2(), published_extras=False)
    assert found.parts["vae"].parameters == 83_653_863
    assert found.dropped == {"text layers that never run": 14}


@pytest.mark.parametrize(
    ("variant", "other"),
    [
        ("videocrafter2", "t2v-turbo"),
        ("hummingbird-0.9b", "hummingbird-0.9b-unguided"),
        ("hummingbird-0.7b", "hummingbird-0.7b-unguided"),
    ],
)
def test_the_guidance_embedding_tells_relatives_apart(tmp_path: Path, variant: str, other: str):
    shapes = key_list(variant)
    if variant == "videocrafter2":
        shapes["time_cond_proj.weight"] = (320, 256)
    else:
        del shapes["time_cond_proj.weight"]
    found = look(tmp_path, whole(shapes))
    assert found.sound
    assert found.variant is not None
    assert found.variant.name == other
    assert found.variant.guided == (variant == "videocrafter2")


def test_names_of_variants_are_unique_and_sampling_fits():
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    for variant in VARIANTS:
        assert variant_of(variant.unet) is variant
        assert variant.scheduler.sampler == ("lcm" if variant.guided else "ddim")
        assert variant.facts["guidance"]["kind"] == ("embedded" if variant.guided else "cfg")


def test_small_relatives_are_configured_from_their_shapes(tmp_path: Path):
    shapes = {name: tuple(tensor.shape) for name, tensor in published().items()}
    found = look(tmp_path, shapes)
    assert found.sound
    assert found.parts["unet"].config == UNET
    assert found.parts["vae"].config == VAE
    assert found.parts["text"].config == replace(TEXT, published_extras=False)
    assert found.variant is not None
    assert found.variant.name == "hummingbird-0.7b-layout"
    assert not found.variant.published
    assert found.dropped == {
        "schedule tables": 3,
        "attention masks": 1,
        "image tower": 1,
        "training losses": 1,
        "averaged copies": 2,
        "text layers that never run": 14,
    }


@pytest.mark.parametrize(
    "config",
    [
        replace(UNET, num_res_blocks=2, middle_block=True, attention_resolutions=(1, 2)),
        replace(UNET, channel_mult=(1, 3, 3), attention_resolutions=(4,), time_cond_proj_dim=None),
        replace(UNET, in_channels=9, out_channels=5, frame_embedding=True),
        replace(UNET, pooled_text_embedding=True, context_dim=24, attention_resolutions=(1, 2)),
    ],
)
def test_configurations_are_recovered(config: UNetConfig):
    assert layout.unet_config(expected_shapes("unet", config)) == config


def test_parts_without_a_prefix_and_in_several_files(tmp_path: Path):
    shapes = whole(key_list("hummingbird-0.7b"))
    files = []
    for part, prefix in (
        ("unet", "model.diffusion_model."),
        ("vae", "first_stage_model."),
        ("text", "cond_stage_model.model."),
    ):
        bare = {n.removeprefix(prefix): s for n, s in shapes.items() if n.startswith(prefix)}
        files.append(checkpoint(tmp_path, bare, name=f"{part}.safetensors"))
        only = diagnose(files[-1:])
        assert list(only.parts) == [part]
        assert only.sound
    assert title(diagnose(files[1:2])) == "autoencoder only, no U-Net"
    assert title(diagnose(files[1:])) == "autoencoder and text tower only, no U-Net"
    assert diagnose(files).sound
    assert list(diagnose(files).parts) == ["unet", "vae", "text"]
    with pytest.raises(InputError, match="unet, got it in") as caught:
        diagnose([files[0], files[0]])
    assert caught.value.code == "checkpoint.twice"


def test_one_fault_is_named_in_its_block(tmp_path: Path):
    shapes = whole(key_list("hummingbird-0.7b"))
    unet = "model.diffusion_model."
    shapes[f"{unet}output_blocks.2.1.proj_in.weight"] = (1280, 1280, 1, 1)
    del shapes[f"{unet}time_embed.0.bias"]
    shapes["first_stage_model.encoder.mid.attn_2.q.weight"] = (512, 512, 1, 1)
    found = look(tmp_path, shapes)
    assert not found.sound
    assert title(found).startswith("nearest: Hummingbird 0.7B")
    assert report(found) == GOLDEN


GOLDEN = """\
model.ckpt  1.0 KB, 1395 tensors, state dict
model  nearest: Hummingbird 0.7B (no middle block, guidance embedded)

part     tensors   parameters  stored as  state
unet  851 of 853  772,090,500  float32    1 missing, 1 of another shape
vae   248 of 248   83,916,007  float32    1 unexpected
text  280 of 280  340,387,840  float32    complete

not needed: text layers that never run (14)

part  block            missing  unexpected  shape  for example
unet  time_embed.0           1                     bias
unet  output_blocks.2                           1  1.proj_in.weight is 1280x1280x1x1, not 1280x1280
vae   encoder.mid                        1         attn_2.q.weight"""


def test_a_renamed_layer_is_two_rows_not_a_wall(tmp_path: Path):
    """The correct spelling of the published misspelling, in all 12 residual blocks."""
    shapes = whole(key_list("hummingbird-0.7b"))
    shapes = {name.replace("temopral", "temporal"): shape for name, shape in shapes.items()}
    text = report(look(tmp_path, shapes))
    table = text[text.index("part  block") :].splitlines()
    assert len(table) == 3
    assert "output_blocks.{0..7}" in table[1]
    assert "input_blocks.{1,3,5,7}" in table[2]
    for row in table[1:]:
        assert "needs 0.temopral_conv.conv1.0.weight, has 0.temporal_conv.conv1.0.weight" in row


def test_no_report_is_longer_than_a_screen(tmp_path: Path):
    shapes = whole(key_list("videocrafter2"))
    shapes |= {f"stranger{i}.{'x' * 90}.{j}": (1,) for i in range(40) for j in range(50)}
    lines = report(look(tmp_path, shapes)).splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) < 140
    assert lines[-1] == f"and {40 - MAX_ROWS} more blocks with {50 * (40 - MAX_ROWS)} tensors"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("image_proj_model.latents", "image-to-video"),
        ("model.diffusion_model.motion_cond_proj.weight", "T2V-Turbo v2"),
    ],
)
def test_other_models_of_the_family_are_told(tmp_path: Path, name: str, match: str):
    shapes = {**whole(key_list("videocrafter2")), name: (320, 256)}
    found = look(tmp_path, shapes)
    assert not found.sound
    assert match in report(found).splitlines()[-1]


def test_files_of_another_kind_say_what_they_hold(tmp_path: Path):
    with pytest.raises(InputError, match="under down_blocks, mid_block") as caught:
        look(tmp_path, {"down_blocks.0.x": (1,), "mid_block.y": (2,)})
    assert caught.value.code == "checkpoint.kind"
    assert "diffusers" in caught.value.hint
    with pytest.raises(InputError, match="0 tensors under no name"):
        look(tmp_path, {"betas": (1000,)})


def test_unwanted_names_can_be_left_out(tmp_path: Path):
    shapes = {**whole(key_list("hummingbird-0.7b")), "reward_model.head.weight": (1, 2)}
    source = checkpoint(tmp_path, shapes)
    assert diagnose([source]).unknown == ("reward_model.head.weight",)
    found = diagnose([source], drop=["reward_model."])
    assert found.sound
    assert found.dropped["left out as asked"] == 1


def test_our_own_files_state_their_configuration(tmp_path: Path):
    """Shapes do not show the number of groups; the metadata do."""
    import json

    config = replace(UNET, norm_num_groups=8, init_attn_heads=4)
    source = checkpoint(tmp_path, expected_shapes("unet", config))
    stated = {"model": "unet", "config": json.dumps(config.to_json())}
    assert diagnose([source]).parts["unet"].config == replace(UNET, num_head_channels=1)
    assert diagnose([replace(source, metadata=stated)]).parts["unet"].config == config
    for broken in ("[1]", "null", "{"):
        odd = replace(source, metadata={"model": "unet", "config": broken})
        assert diagnose([odd]).parts["unet"].sound


def test_absurd_names_and_shapes_are_no_configuration(tmp_path: Path):
    unet = expected_shapes("unet", UNET)
    for name, shape in (
        ("time_embed.0.weight", ()),
        ("time_embed.0.weight", (4, 0)),
        ("time_embed.0.weight", (4, 33)),
        ("init_attn.0.proj_in.weight", (0, 0, 0)),
        ("out.2.weight", (0, 0, 3, 3)),
    ):
        assert layout.unet_config({**unet, name: shape}) in (None, UNET)
        assert not look(tmp_path, {**unet, name: shape}).sound
    assert layout.unet_config({**unet, "input_blocks.99999999.0.op.weight": (1,)}) == UNET


def test_networks_of_the_support_file_are_what_they_claim():
    assert set(networks()) == {"unet", "vae", "text"}
