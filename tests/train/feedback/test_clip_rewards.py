"""CLIP-type rewards on seeded small models in the published files' layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hummingbird_runtime.bytepairs import byte_alphabet
from hummingbird_runtime.errors import InputError, ResourceError, UsageError
from hummingbird_train.feedback.rewards import clip_reward
from hummingbird_train.feedback.rewards.clip_reward import ClipReward, Family
from hummingbird_train.feedback.rewards.clip_towers import (
    ClipTowers,
    TowerFacts,
    from_hugging_face,
    read_tensors,
)
from hummingbird_train.feedback.rewards.internvideo import InternVideoReward

WIDTH, PATCH, GRID, LENGTH, FRAMES = 16, 4, 2, 12, 3
SMALL = TowerFacts(vision_heads=2, text_heads=2)
QUICK = TowerFacts(quick_gelu=True, vision_heads=2, text_heads=2)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """CLIP's tokenizer without merges: every word is spelled from bytes."""
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = list(byte_alphabet().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|start|>", "<|end|>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2")
    config = {"model_max_length": LENGTH, "bos_token_id": 512, "eos_token_id": 513}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "pad_token_id": 0}))
    return folder


def tensors(video: bool = False) -> dict[str, torch.Tensor]:
    """A random model with OpenCLIP's names."""
    torch.manual_seed(0)
    draw = lambda *shape: 0.2 * torch.randn(shape)  # noqa: E731
    out = {
        "visual.conv1.weight": draw(WIDTH, 3, *([1] if video else []), PATCH, PATCH),
        "visual.class_embedding": draw(WIDTH),
        "visual.positional_embedding": draw(GRID**2 + 1, WIDTH),
        "visual.proj": draw(WIDTH, 6),
        "token_embedding.weight": draw(514, WIDTH),
        "positional_embedding": draw(LENGTH, WIDTH),
        "text_projection": draw(WIDTH, 6),
        "logit_scale": torch.tensor(4.6),
    }
    if video:
        out["visual.temporal_positional_embedding"] = draw(1, FRAMES, WIDTH)
    for norm in ("visual.ln_pre", "visual.ln_post", "ln_final"):
        out |= {f"{norm}.weight": 1 + draw(WIDTH), f"{norm}.bias": draw(WIDTH)}
    for tower in ("visual.", ""):
        for i in range(2):
            at = f"{tower}transformer.resblocks.{i}"
            for norm in ("ln_1", "ln_2"):
                out |= {f"{at}.{norm}.weight": 1 + draw(WIDTH), f"{at}.{norm}.bias": draw(WIDTH)}
            out |= {
                f"{at}.attn.in_proj_weight": draw(3 * WIDTH, WIDTH),
                f"{at}.attn.in_proj_bias": draw(3 * WIDTH),
                f"{at}.attn.out_proj.weight": draw(WIDTH, WIDTH),
                f"{at}.attn.out_proj.bias": draw(WIDTH),
                f"{at}.mlp.c_fc.weight": draw(24, WIDTH),
                f"{at}.mlp.c_fc.bias": draw(24),
                f"{at}.mlp.c_proj.weight": draw(WIDTH, 24),
                f"{at}.mlp.c_proj.bias": draw(WIDTH),
            }
    return out


@pytest.fixture
def small(monkeypatch):
    """The published families with two heads, as 16 channels have."""
    known = {
        name: Family(f.layout, f.frames, f.sampling, QUICK if f.facts.quick_gelu else SMALL, f.mean,
                     f.deviation)
        for name, f in clip_reward.FAMILIES.items()
    }  # fmt: skip
    monkeypatch.setattr(clip_reward, "FAMILIES", known)


def block(x, own, at, causal, quick):
    """One layer, written with torch's own attention."""
    attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    attention.load_state_dict(
        {n.removeprefix(f"{at}.attn."): t for n, t in own.items() if n.startswith(f"{at}.attn.")}
    )
    norm = lambda y, n: nn.functional.layer_norm(  # noqa: E731
        y, (WIDTH,), own[f"{at}.{n}.weight"], own[f"{at}.{n}.bias"]
    )
    mask = torch.full((x.shape[1],) * 2, -torch.inf).triu(1) if causal else None
    h = norm(x, "ln_1")
    x = x + attention(h, h, h, attn_mask=mask, need_weights=False)[0]
    h = norm(x, "ln_2") @ own[f"{at}.mlp.c_fc.weight"].T + own[f"{at}.mlp.c_fc.bias"]
    h = h * torch.sigmoid(1.702 * h) if quick else nn.functional.gelu(h)
    return x + h @ own[f"{at}.mlp.c_proj.weight"].T + own[f"{at}.mlp.c_proj.bias"]


def vision(own, x, quick):
    """The vision tower of clips, frame by frame: (b, 3, f, h, w)."""
    cells = torch.einsum(
        "bcfyhxw,dchw->bfyxd",
        x.unflatten(3, (GRID, PATCH)).unflatten(5, (GRID, PATCH)),
        own["visual.conv1.weight"].flatten(2).view(WIDTH, 3, PATCH, PATCH),
    ).flatten(2, 3)
    cells = cells + own["visual.positional_embedding"][1:]
    if "visual.temporal_positional_embedding" in own:
        cells = cells + own["visual.temporal_positional_embedding"][0][:, None]
    first = own["visual.class_embedding"] + own["visual.positional_embedding"][0]
    h = torch.cat([first.expand(len(x), 1, -1), cells.flatten(1, 2)], dim=1)
    norm = lambda y, n: nn.functional.layer_norm(  # noqa: E731
        y, (WIDTH,), own[f"visual.{n}.weight"], own[f"visual.{n}.bias"]
    )
    h = norm(h, "ln_pre")
    for i in range(2):
        h = block(h, own, f"visual.transformer.resblocks.{i}", False, quick)
    return norm(h[:, 0], "ln_post") @ own["visual.proj"]


def text(own, ids, quick):
    h = own["token_embedding.weight"][ids] + own["positional_embedding"][: ids.shape[1]]
    for i in range(2):
        h = block(h, own, f"transformer.resblocks.{i}", True, quick)
    h = nn.functional.layer_norm(h, (WIDTH,), own["ln_final.weight"], own["ln_final.bias"])
    return h[:, ids[0].tolist().index(513)] @ own["text_projection"]


@pytest.mark.parametrize("video", [False, True])
@torch.no_grad()
def test_the_towers_are_those_of_the_papers(video: bool):
    own = tensors(video)
    towers = ClipTowers(own, QUICK if video else SMALL)
    x = torch.randn(2, 3, FRAMES if video else 1, 8, 8)
    got = towers.visual(x if video else x[:, :, 0])
    assert torch.allclose(got, vision(own, x, video), atol=2e-6)  # float32, sums in another order
    ids = torch.tensor([[512, 70, 71, 513, 0, 0]])
    assert torch.allclose(towers.text(ids), text(own, ids, video), atol=2e-6)
    padded = torch.tensor([[512, 70, 71, 513, 513, 513]])  # Hugging Face pads with the end token
    assert torch.allclose(towers.text(padded), towers.text(ids), atol=2e-6)


@pytest.mark.slow  # imports transformers
def test_a_hugging_face_file_gives_the_same_embeddings():
    transformers = pytest.importorskip("transformers")
    shared = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={
            **shared, "vocab_size": 514, "max_position_embeddings": LENGTH, "num_hidden_layers": 2,
            "bos_token_id": 512, "eos_token_id": 513, "hidden_act": "gelu",
        },
        vision_config={
            **shared, "image_size": 8, "patch_size": 4, "num_hidden_layers": 2,
            "hidden_act": "gelu",
        },
        projection_dim=6,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(config).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    ours = ClipTowers(from_hugging_face(theirs.state_dict()), SMALL)
    pixels, ids = torch.randn(2, 3, 8, 8), torch.tensor([[512, 70, 71, 513, 513]])
    with torch.no_grad():
        seen = theirs.visual_projection(theirs.vision_model(pixels).pooler_output)
        read = theirs.text_projection(theirs.text_model(ids).pooler_output)
    assert torch.allclose(ours.visual(pixels), seen, atol=2e-5)  # float32, values of about 10
    assert torch.allclose(ours.text(ids), read, atol=2e-5)


@pytest.mark.parametrize("name", ["hpsv2.1", "clip", "viclip"])
def test_a_reward_is_the_cosine_of_published_preprocessing(name, small, tokenizer, tmp_path):
    video = name == "viclip"
    own = tensors(video)
    stored = own
    if video:
        stored = {
            (f"vision_encoder.{n[7:]}" if n.startswith("visual.") else f"text_encoder.{n}"): t
            for n, t in own.items() if n != "logit_scale"
        } | {"temp": torch.ones(())}  # fmt: skip
    path = tmp_path / "weights.pt"
    torch.save({"epoch": 3, "state_dict": {f"module.{n}": t for n, t in stored.items()}}, path)
    reward = ClipReward.open(name, path, tokenizer)
    assert reward.wants.size == 8
    assert reward.wants.count == (FRAMES if video else 5)
    frames = torch.rand(2, FRAMES, 3, 8, 8)
    got = reward(frames, reward.encode_text(["red", "a box"]))
    mean, deviation = (
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        if video
        else (
            (0.48145466, 0.4578275, 0.40821073),
            (0.26862954, 0.26130258, 0.27577711),
        )
    )
    shape = (1, 1, 3, 1, 1)
    x = (frames - torch.tensor(mean).view(shape)) / torch.tensor(deviation).view(shape)
    for b, prompt in enumerate(["red", "a box"]):
        ids = torch.from_numpy(reward.tokenizer.encode(prompt).ids)
        said = nn.functional.normalize(text(own, ids, video), dim=-1)
        clip = x[b : b + 1].transpose(1, 2)  # (1, 3, f, h, w)
        parts = [clip] if video else clip.split(1, dim=2)
        cosines = [
            (nn.functional.normalize(vision(own, part, video), dim=-1) * said).sum()
            for part in parts
        ]
        assert got[b].item() == pytest.approx(torch.stack(cosines).mean().item(), abs=2e-6)


def test_frames_of_another_size_are_resized_and_gradients_reach_them(small, tokenizer, tmp_path):
    save_file(tensors(), str(tmp_path / "w.safetensors"))
    reward = ClipReward.open("clip", tmp_path / "w.safetensors", tokenizer)
    frames = torch.rand(1, 2, 3, 12, 12, requires_grad=True)
    said = reward.encode_text(["red"])
    assert not said.requires_grad
    way = torch.randn_like(frames)
    (slope,) = torch.autograd.grad(reward(frames, said).sum(), frames)
    h = 1e-2  # float32: truncation h^2 and rounding 1e-7 / h are both under 1 %
    with torch.no_grad():
        low, high = (reward(frames + s * h * way, said).item() for s in (-1, 1))
    assert (high - low) / (2 * h) == pytest.approx((slope * way).sum().item(), rel=5e-2, abs=1e-4)
    assert torch.equal(reward.encode_text(["red"]), said)  # remembered


def test_files_of_something_else_are_refused(small, tokenizer, tmp_path):
    path = tmp_path / "w.safetensors"
    own = tensors()
    del own["visual.proj"]
    save_file(own, str(path))
    with pytest.raises(InputError) as error:
        ClipReward.open("clip", path, tokenizer)
    assert error.value.code == "feedback.towers"
    save_file({**tensors(), "ln_final.extra": torch.ones(1)}, str(path))
    with pytest.raises(InputError, match=r"ln_final\.extra"):
        ClipReward.open("clip", path, tokenizer)
    with pytest.raises(UsageError) as error:
        ClipReward.open("taste", path, tokenizer)
    assert error.value.code == "feedback.reward_name"
    for name, code in (("none.pt", "checkpoint.missing"), ("bad.pt", "checkpoint.corrupt")):
        (tmp_path / "bad.pt").write_bytes(b"no tensors")
        with pytest.raises(InputError) as error:
            read_tensors(tmp_path / name)
        assert error.value.code == code


class Opaque:
    """Anything but a tensor."""


def test_a_pickled_object_is_never_made(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": Opaque()}, tmp_path / "w.pt")
    with pytest.raises(InputError) as error:
        read_tensors(tmp_path / "w.pt")
    assert error.value.code == "checkpoint.corrupt"


CODE = """
import torch
class Config(dict):
    from_file = classmethod(lambda cls, path: cls(
        inputs={"video_input": {}}, model={"vision_encoder": {}}, path=path))
def eval_dict_leaf(config): return config
"""
MODEL = """
import torch
class Model(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config, self.text_proj = config, torch.nn.Linear(2, 3)
    def get_vid_feat_with_grad(self, x): return x.mean(dim=(1, 3, 4))
    def encode_text(self, text): return None, text["ids"]
class Text(dict):
    def to(self, device): return self
def setup_internvideo2(config):
    tokenize = lambda prompts, max_length, **_: Text(
        ids=torch.tensor([[float(len(p)), max_length] for p in prompts]))
    return Model(config), tokenize
"""


def test_internvideo_comes_from_the_users_checkout(tmp_path, monkeypatch):
    package = tmp_path / "intern_vid2"
    weights = tmp_path / "w.pt"
    with pytest.raises(InputError) as error:
        InternVideoReward.open(tmp_path, weights)
    assert error.value.code == "feedback.checkout"
    (package / "configs").mkdir(parents=True)
    (package / "configs" / "internvideo2_stage2_config.py").write_text("")
    with pytest.raises(InputError) as error:
        InternVideoReward.open(tmp_path, weights)
    assert error.value.code == "checkpoint.missing"
    weights.write_bytes(b"x")
    (package / "__init__.py").write_text("import a_package_nobody_has")
    with pytest.raises(ResourceError) as error:
        InternVideoReward.open(tmp_path, weights)
    assert error.value.code == "extra.missing"
    (package / "__init__.py").write_text("")
    (package / "demo_config.py").write_text(CODE)
    (package / "demo_utils.py").write_text(MODEL)
    import importlib
    import sys

    importlib.invalidate_caches()
    reward = InternVideoReward.open(tmp_path, weights, frames=2)
    for name in [n for n in sys.modules if n.startswith("intern_vid2")]:
        monkeypatch.delitem(sys.modules, name)
    config = reward.model.config
    assert config["model"]["vision_encoder"] == {"num_frames": 2, "pretrained": str(weights)}
    assert str(tmp_path) not in sys.path
    frames = torch.rand(1, 2, 3, 224, 224, requires_grad=True)
    text_part = reward.encode_text(["abc"])
    score = reward(frames, text_part)
    mean = torch.tensor([0.485, 0.456, 0.406])
    seen = (frames.mean(dim=(1, 3, 4)) - mean) / torch.tensor([0.229, 0.224, 0.225])
    said = reward.model.text_proj(torch.tensor([[3.0, 40.0]]))
    expected = torch.cosine_similarity(seen, said).item()
    assert score.item() == pytest.approx(expected, abs=1e-5)
    assert torch.autograd.grad(score.sum(), frames)[0].abs().sum() > 0
