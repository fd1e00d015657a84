"""CLIP's two towers (Radford et al. 2021) with OpenCLIP's tensor names, still pictures or clips.

One code for OpenCLIP's ViT-H-14 (HPSv2.1), Hugging Face's CLIP files (PickScore; names mapped) and
ViCLIP (Wang et al. 2023: patches of all frames attend to each other). Shapes are read off the
tensors. Runs with gradient to the pixels; the weights are frozen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hummingbird_runtime.errors import InputError

HEAD = 64
"""Channels of one head in every published tower but ViT-H's vision tower, which has 80."""
HEADS = {1280: 16}
"""Width of a tower -> heads where they are not width / 64."""


@dataclass(frozen=True)
class TowerFacts:
    """What a state dict does not say."""

    quick_gelu: bool = False
    """x sigmoid(1.702 x) in place of GELU: OpenAI's weights and ViCLIP."""
    vision_heads: int | None = None
    """None: by the published rule."""
    text_heads: int | None = None
    """None: by the published rule."""


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, hidden: int, quick: bool) -> None:
        super().__init__()
        self.heads, self.quick = heads, quick
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.Module()
        self.attn.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.attn.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.attn.out_proj = nn.Linear(width, width)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """(b, l, c) -> (b, l, c)."""
        projected = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in projected.chunk(3, 2))
        h = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        x = x + self.attn.out_proj(h.transpose(1, 2).flatten(2))
        h = self.mlp.c_fc(self.ln_2(x))
        h = h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h)
        return x + self.mlp.c_proj(h)


def _transformer(width: int, layers: int, hidden: int, heads: int | None, quick: bool) -> nn.Module:
    out = nn.Module()
    heads = heads or HEADS.get(width, max(1, width // HEAD))
    out.resblocks = nn.ModuleList(Block(width, heads, hidden, quick) for _ in range(layers))
    return out


class VisionTower(nn.Module):
    """Pictures (b, 3, h, w) or clips (b, 3, f, h, w), normalised, to embeddings (b, d)."""

    def __init__(self, shapes: Mapping[str, torch.Size], facts: TowerFacts) -> None:
        super().__init__()
        width, channels, *kernel = shapes["conv1.weight"]
        self.video = len(kernel) == 3
        conv = nn.Conv3d if self.video else nn.Conv2d
        self.conv1 = conv(channels, width, tuple(kernel), stride=tuple(kernel), bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(shapes["positional_embedding"]))
        if self.video:
            self.temporal_positional_embedding = nn.Parameter(
                torch.empty(shapes["temporal_positional_embedding"])
            )
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = _transformer(
            width, *_depth(shapes), facts.vision_heads, facts.quick_gelu
        )
        self.proj = nn.Parameter(torch.empty(shapes["proj"]))

    @property
    def size(self) -> int:
        """Height and width of the pictures."""
        side = round((len(self.positional_embedding) - 1) ** 0.5)
        return side * int(self.conv1.weight.shape[-1])

    @property
    def frames(self) -> int:
        """Frames of a clip; 1 for pictures."""
        return self.temporal_positional_embedding.shape[1] if self.video else 1

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (b, c, [f,] h', w')
        if self.video:
            b, c = x.shape[:2]
            x = x.flatten(3).permute(0, 2, 3, 1)  # (b, f, p, c)
            x = x + self.positional_embedding[1:]
            x = x + self.temporal_positional_embedding[0, :, None]
            x = x.transpose(1, 2).reshape(b, -1, c)  # (b, p * f, c)
        else:
            x = x.flatten(2).transpose(1, 2) + self.positional_embedding[1:]  # (b, p, c)
        first = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([first, x], dim=1))
        for block in self.transformer.resblocks:
            if x.requires_grad:
                x = checkpoint(block, x, False, use_reentrant=False)
            else:
                x = block(x, False)
        return self.ln_post(x[:, 0]) @ self.proj


class TextTower(nn.Module):
    """Token ids (b, l) to embeddings (b, d), read at the first end token."""

    def __init__(self, shapes: Mapping[str, torch.Size], facts: TowerFacts) -> None:
        super().__init__()
        vocabulary, width = shapes["token_embedding.weight"]
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(shapes["positional_embedding"]))
        self.transformer = _transformer(width, *_depth(shapes), facts.text_heads, facts.quick_gelu)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(shapes["text_projection"]))

    @property
    def length(self) -> int:
        """Longest row of ids."""
        return len(self.positional_embedding)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token_embedding(ids) + self.positional_embedding[: ids.shape[1]]
        for block in self.transformer.resblocks:
            x = block(x, True)
        x = self.ln_final(x)
        # the end token has the largest id of every CLIP vocabulary; argmax takes its first place
        return x[torch.arange(len(x)), ids.argmax(dim=1)] @ self.text_projection


class ClipTowers(nn.Module):
    """Both towers, their weights frozen.

    Args:
        tensors: ``visual.*`` and the text tower's names without a prefix, as OpenCLIP has them.
        facts: what they do not say.

    Raises:
        InputError: ``feedback.towers`` naming tensors that are missing or too many.
    """

    def __init__(self, tensors: Mapping[str, Tensor], facts: TowerFacts) -> None:
        super().__init__()
        vision = {
            n.removeprefix("visual."): t for n, t in tensors.items() if n.startswith("visual.")
        }
        text = {n: t for n, t in tensors.items() if not n.startswith("visual.")}
        text.pop("logit_scale", None)  # scores are cosines
        with torch.device("meta"):
            self.visual = _build(VisionTower, vision, facts)
            self.text = _build(TextTower, text, facts)
        for tower, own in ((self.visual, vision), (self.text, text)):
            _assign(tower, own)
        self.requires_grad_(False).eval()


def _build(
    cls: type[VisionTower | TextTower], tensors: Mapping[str, Tensor], facts: TowerFacts
) -> nn.Module:
    try:
        return cls({n: t.shape for n, t in tensors.items()}, facts)
    except KeyError as error:
        raise _wrong(f"{len(tensors)} tensors without {error}", cls.__name__) from error


def _assign(tower: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    expected = tower.state_dict()
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    odd = sorted(
        n for n in expected.keys() & tensors.keys() if expected[n].shape != tensors[n].shape
    )
    if missing or unexpected or odd:
        raise _wrong(
            f"missing {sorted(missing)[:3]}, unexpected {sorted(unexpected)[:3]}, of another shape "
            f"{odd[:3]}",
            type(tower).__name__,
        )
    tower.load_state_dict({n: t.float() for n, t in tensors.items()}, assign=True)


def _wrong(got: str, tower: str) -> InputError:
    return InputError(
        "feedback.towers",
        f"{tower} of a reward model, got {got}, expected the tensors of a CLIP model",
        hint="give a checkpoint of the model that the reward is named after",
    )


def _depth(shapes: Mapping[str, torch.Size]) -> tuple[int, int]:
    """(layers, hidden width of the MLP)."""
    found = [re.match(r"transformer\.resblocks\.(\d+)\.", name) for name in shapes]
    layers = 1 + max((int(m[1]) for m in found if m), default=-1)
    return layers, shapes["transformer.resblocks.0.mlp.c_fc.weight"][0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a ``.safetensors`` file, or of torch's own kind, read as weights only.

    A training checkpoint's ``state_dict`` or ``module`` is taken; ``module.`` prefixes go.

    Raises:
        InputError: ``checkpoint.missing`` or ``checkpoint.corrupt``.
    """
    if not path.is_file():
        raise InputError(
            "checkpoint.missing",
            f"weights {path}, got no such file, expected a reward model's",
            hint="check the path",
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
        for name in ("state_dict", "module"):
            if isinstance(found, dict) and isinstance(found.get(name), dict):
                found = found[name]
        return {n.removeprefix("module."): t for n, t in found.items() if isinstance(t, Tensor)}
    except (OSError, SafetensorError, RuntimeError, ValueError, AttributeError) as error:
        raise _corrupt(path, error) from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> InputError:
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(
        "checkpoint.corrupt",
        f"weights {path}, got {first}, expected tensors by name",
        hint="get the file again, or save it as safetensors",
    )


def from_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's names for the tensors of a ``transformers`` CLIPModel; q, k and v are joined."""
    out: dict[str, Tensor] = {}
    joined: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.endswith("position_ids"):
            continue
        part = re.fullmatch(
            r"(vision|text)_model\.encoder\.layers\.(\d+)\.self_attn\.([qkv])_proj\.(weight|bias)",
            name,
        )
        if part:
            tower = "visual." if part[1] == "vision" else ""
            key = f"{tower}transformer.resblocks.{part[2]}.attn.in_proj_{part[4]}"
            joined.setdefault(key, {})[part[3]] = tensor
            continue
        for pattern, to in _NAMES:
            name = re.sub(pattern, to, name)
        out[name] = tensor.T if name in ("visual.proj", "text_projection") else tensor
    for key, parts in joined.items():
        if set(parts) == set("qkv"):
            out[key] = torch.cat([parts["q"], parts["k"], parts["v"]])
    return out


_NAMES = (
    (r"^visual_projection\.weight$", "visual.proj"),
    (r"^text_projection\.weight$", "text_projection"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "visual.conv1."),
    (r"^vision_model\.embeddings\.class_embedding$", "visual.class_embedding"),
    (r"^vision_model\.embeddings\.position_embedding\.weight$", "visual.positional_embedding"),
    (r"^vision_model\.pre_layrnorm\.", "visual.ln_pre."),
    (r"^vision_model\.post_layernorm\.", "visual.ln_post."),
    (r"^text_model\.embeddings\.token_embedding\.", "token_embedding."),
    (r"^text_model\.embeddings\.position_embedding\.weight$", "positional_embedding"),
    (r"^text_model\.final_layer_norm\.", "ln_final."),
    (r"^vision_model\.encoder\.layers\.", "visual.transformer.resblocks."),
    (r"^text_model\.encoder\.layers\.", "transformer.resblocks."),
    (r"\.self_attn\.out_proj\.", ".attn.out_proj."),
    (r"\.layer_norm([12])\.", r".ln_\1."),
    (r"\.mlp\.fc1\.", ".mlp.c_fc."),
    (r"\.mlp\.fc2\.", ".mlp.c_proj."),
)


def from_viclip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same names for ViCLIP's ``vision_encoder.*`` and ``text_encoder.*``; its loss's go."""
    out = {}
    for name, tensor in tensors.items():
        if name.startswith("vision_encoder."):
            out[f"visual.{name.removeprefix('vision_encoder.')}"] = tensor
        elif name.startswith("text_encoder."):
            out[name.removeprefix("text_encoder.")] = tensor
    return out
