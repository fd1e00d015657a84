import json

import pytest

from hummingbird_runtime.errors import InputError
from hummingbird_train.models.autoencoder import AutoencoderConfig
from hummingbird_train.models.text_encoder import TextConfig
from hummingbird_train.models.unet import UNetConfig

PRESETS = [
    UNetConfig.videocrafter2(),
    UNetConfig.hummingbird_09b(),
    UNetConfig.hummingbird_07b(),
    UNetConfig.tiny(),
    AutoencoderConfig.videocrafter2(),
    AutoencoderConfig.tiny(),
    TextConfig.videocrafter2(),
    TextConfig.tiny(80),
]


@pytest.mark.parametrize("config", PRESETS)
def test_presets_survive_json(config: UNetConfig | AutoencoderConfig | TextConfig) -> None:
    assert type(config).from_json(json.loads(json.dumps(config.to_json()))) == config


def test_fields_left_out_take_their_defaults() -> None:
    assert UNetConfig.from_json({"num_res_blocks": 1}) == UNetConfig(num_res_blocks=1)


@pytest.mark.parametrize(
    "values",
    [
        {"widht": 3},
        {"model_channels": "320"},
        {"model_channels": True},
        {"model_channels": 320.0},
        {"middle_block": 1},
        {"channel_mult": [1, "2"]},
        {"channel_mult": 2},
        {"channel_mult": None},
        {"time_cond_proj_dim": "256"},
        {"dropout": "0"},
    ],
)
def test_wrong_fields_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError) as caught:
        UNetConfig.from_json(values)
    assert caught.value.code == "checkpoint.config"
    assert next(iter(values)) in caught.value.message


def test_a_choice_outside_its_list_is_refused() -> None:
    with pytest.raises(InputError, match="norm"):
        AutoencoderConfig.from_json({"norm": "batch"})


@pytest.mark.parametrize(
    ("owner", "values"),
    [
        (UNetConfig, {"model_channels": 321}),
        (UNetConfig, {"model_channels": 56}),
        (UNetConfig, {"norm_num_groups": 24}),
        (UNetConfig, {"num_head_channels": 0}),
        (UNetConfig, {"channel_mult": []}),
        (AutoencoderConfig, {"channels": 100}),
        (AutoencoderConfig, {"stem": "pixel_shuffle", "decoder_channels": 100}),
        (AutoencoderConfig, {"channels": 0}),
        (TextConfig, {"heads": 3}),
        (TextConfig, {"layers": 1}),
        (TextConfig, {"heads": 0}),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(
    owner: type[UNetConfig | AutoencoderConfig | TextConfig], values: dict[str, object]
) -> None:
    with pytest.raises(InputError) as caught:
        owner.from_json(values)
    assert caught.value.code == "checkpoint.config"
    assert "expected" in caught.value.message
