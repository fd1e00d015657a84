"""U-Nets of the published layout at toy widths, forms to write them in, single blocks as graphs.

Every layer is random, also those that training starts at zero: nothing is hidden from a comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch

from hummingbird_export.lowering.blocks import Scene
from hummingbird_export.lowering.builder import GraphBuilder
from hummingbird_export.lowering.form import Form
from hummingbird_export.lowering.sizes import Sizes
from hummingbird_export.lowering.unet import lower_unet
from hummingbird_export.random_models import random_unet
from hummingbird_export.storage import save_graph
from hummingbird_export.verify import Parity, compare_graph, run_session, torch_cases
from hummingbird_export.wrappers import unet_graph
from hummingbird_runtime.manifest import Tensor
from hummingbird_train.models.unet import UNetConfig, VideoUNet

TOKENS = 5
PROMPT_WIDTH = 6
EMBEDDING_WIDTH = 12

_PUBLISHED = UNetConfig(
    model_channels=4,
    num_head_channels=2,
    init_attn_heads=3,  # inner width 6: unlike the channels, as in the published models
    norm_num_groups=2,
    context_dim=PROMPT_WIDTH,
    temporal_dropout=0.0,
)
"""Widths 4, 8, 16, 16; two residual blocks a level, as VideoCrafter2."""

CONFIGS = {
    "vc2": _PUBLISHED,
    "09b": replace(_PUBLISHED, num_res_blocks=1, time_cond_proj_dim=8),
    "07b": replace(_PUBLISHED, num_res_blocks=1, time_cond_proj_dim=8, middle_block=False),
    "tiny": replace(
        _PUBLISHED,
        channel_mult=(1, 2),
        num_res_blocks=1,
        attention_resolutions=(1, 2),
        middle_block=False,
        time_cond_proj_dim=8,
        frame_embedding=True,
        pooled_text_embedding=True,
        place_planes=True,
    ),
    "frames": replace(
        _PUBLISHED, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(2,),
        frame_embedding=True,
    ),
    "pooled": replace(
        _PUBLISHED, channel_mult=(1,), num_res_blocks=1, pooled_text_embedding=True,
        time_cond_proj_dim=8,
    ),
    "places": replace(
        _PUBLISHED, channel_mult=(1,), num_res_blocks=1, place_planes=True
    ),
    "one": replace(_PUBLISHED, channel_mult=(1,), num_res_blocks=1, middle_block=False),
}  # fmt: skip

PIECES = (3, 2, 2, 1), (2, 3, 1, 2)
FORMS = {
    "portable": Form(),
    "fused": Form(fused=True),
    "pieces": Form(fused=True, frame_chunks=PIECES[0], cell_chunks=PIECES[1]),
    "portable-pieces": Form(frame_chunks=PIECES[0], cell_chunks=PIECES[1]),
}


def unet(name: str, *, seed: int = 2) -> VideoUNet:
    """One of ``CONFIGS`` with random weights."""
    return random_unet(CONFIGS[name], seed=seed)


def lower(network: VideoUNet, form: Form) -> ir.Model:
    """The graph of a U-Net for prompts of ``TOKENS`` tokens."""
    return lower_unet(network, unet_graph(network, tokens=TOKENS)[1], form)


@cache
def lowered(config: str, form: str) -> tuple[VideoUNet, ir.Model]:
    """A network and its graph, made once: no test may change either."""
    network = unet(config)
    return network, lower(network, FORMS[form])


def verify(
    network: VideoUNet, model: ir.Model, folder: Path, *sizes: tuple[int, int, int]
) -> Parity:
    """Write a graph and compare it with torch at (frames, rows, columns); raises where they differ.

    Rows and columns are those of the coarsest level.
    """
    module, signature = unet_graph(network, tokens=TOKENS)
    k = network.config.size_multiple
    cases = [{"F": frames, "h": k * rows, "w": k * columns} for frames, rows, columns in sizes]
    opened = session(str(save_graph(model, folder)))
    return compare_graph(
        lambda feeds: run_session(opened, feeds, "unet")[0],
        torch_cases(module, signature, cases),
        "unet",
    )


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    """Initializers by name."""
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def session(model: bytes | str) -> onnxruntime.InferenceSession:
    """A session on a file, or on its bytes, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def in_memory(model: ir.Model) -> onnxruntime.InferenceSession:
    """A session on a model that is not written."""
    return session(ir.to_proto(model).SerializeToString())


def run_block(
    build: Callable[[Scene, list[ir.Value]], ir.Value],
    form: Form,
    inputs: list[torch.Tensor],
    *,
    grid: tuple[int, int],
    emb: torch.Tensor,
    context: torch.Tensor,
) -> torch.Tensor:
    """What a part of a U-Net gives as a graph of its own.

    Args:
        build: appends the part to a scene, given its inputs.
        form: how.
        inputs: features, (t, ...) each.
        grid: rows and columns of the clip's finest level.
        emb: SiLU of the time embedding, (1 or t, ``EMBEDDING_WIDTH``).
        context: prompt (``TOKENS``, ``PROMPT_WIDTH``).
    """
    g = GraphBuilder("block")
    sample = g.input(Tensor("sample", "float32", (1, 1, "F", "h", "w")))
    per_frame = len(emb) > 1
    first = "F" if per_frame else 1
    scene = Scene(
        g,
        form,
        Sizes(g, sample),
        g.input(Tensor("emb", "float32", (first, EMBEDDING_WIDTH))),
        per_frame,
        g.input(Tensor("context", "float32", (TOKENS, PROMPT_WIDTH))),
    )
    features = [
        g.input(Tensor(f"x{i}", "float32", (*(f"d{i}_{axis}" for axis in range(x.ndim)),)))
        for i, x in enumerate(inputs)
    ]
    y = build(scene, features)
    free = tuple(f"y{axis}" for axis in range(inputs[0].ndim))
    model = g.finish([(y, Tensor("y", "float32", free))])
    frames = inputs[0].shape[0]
    feeds = {"sample": np.zeros((1, 1, frames, *grid), np.float32)}
    feeds |= {f"x{i}": x.numpy() for i, x in enumerate(inputs)}
    feeds |= {"emb": emb.numpy(), "context": context.numpy()}
    return torch.from_numpy(in_memory(model).run(None, feeds)[0])
