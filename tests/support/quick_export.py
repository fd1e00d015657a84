"""Bundles of small networks that export in a second or two: what torch traced once is used again.

The export's own comparison with torch would notice a graph that is not the network's. The networks
are wide enough that their layers are quantized (4096 weights and more), and one level deep. The
simplifier is left out. Everything else is the real export.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import micro_models
import onnx
import onnx_ir as ir
from torch import nn

from hummingbird_export import compile as compiling
from hummingbird_export import package
from hummingbird_export.compile import Job
from hummingbird_export.facts import FixedSizes, latent_size, narrow
from hummingbird_export.networks import Subject
from hummingbird_export.random_models import preset, random_networks
from hummingbird_export.simplify import Simplifier
from hummingbird_export.targets import find_target
from hummingbird_export.trace import trace
from hummingbird_export.wrappers import Signature
from hummingbird_runtime.schedule import SchedulerConfig
from hummingbird_runtime.tokenizer import Tokenizer

_TRACED: dict[tuple[str, str], onnx.ModelProto] = {}


@cache
def networks() -> micro_models.Networks:
    """The three networks; no test may change them."""
    tiny = preset("tiny")
    shapes = replace(
        tiny,
        unet=replace(
            tiny.unet,
            model_channels=64,
            channel_mult=(1,),
            attention_resolutions=(),
            num_head_channels=32,
            norm_num_groups=8,
            context_dim=64,
            time_cond_proj_dim=64,
        ),
        vae=replace(
            tiny.vae,
            encoder_channels=8,
            encoder_res_blocks=1,
            decoder_channels=32,
            decoder_res_blocks=1,
            scaling_factor=0.5,
        ),
        text=replace(tiny.text, width=64, heads=2, layers=2),
    )
    return random_networks(shapes, seed=0)


@contextmanager
def traced_once() -> Iterator[None]:
    """Trace each kind of network once; others of its shape take that graph with their weights."""

    def stored(module: nn.Module, signature: Signature) -> ir.Model:
        tensors = {name: tensor.detach().numpy() for name, tensor in module.named_parameters()}
        key = signature.role, str({name: array.shape for name, array in tensors.items()})
        if key not in _TRACED:
            _TRACED[key] = ir.to_proto(trace(module, signature))
        model = ir.from_proto(_TRACED[key])
        if tensors.keys() - model.graph.initializers.keys():  # a parameter was folded into others
            return trace(module, signature)
        for name, array in tensors.items():
            model.graph.initializers[name].const_value = ir.tensor(array.copy(), name=name)
        return model

    def left_as_it_is(model: ir.Model, work: Path, simplifier: Simplifier) -> tuple[None, str]:
        return None, "left out by the test"

    with (
        mock.patch.object(compiling, "trace", stored),
        mock.patch.object(compiling, "simplify_graph", left_as_it_is),
        mock.patch.object(package, "Simplifier", nullcontext),
    ):
        yield


def export(out: Path, tokenizer_folder: Path, **options: Any) -> Path:
    """A bundle of ``networks()``, or of others given as ``parts``."""
    parts = options.pop("parts", None) or networks()
    scheduler = options.pop("scheduler", SchedulerConfig())
    with traced_once():
        return micro_models.export(out, parts, tokenizer_folder, scheduler, **options)


def job(bundle: Path, target: str, *, sizes: FixedSizes | None = None, **changes: Any) -> Job:
    """What ``export_bundle`` would hand to ``compile_networks`` for ``networks()``."""
    unet, vae, _ = networks()
    facts, chosen = micro_models.facts(unet, vae), find_target(target)
    size = latent_size(facts)
    return replace(
        Job(
            bundle=bundle,
            target=chosen,
            simplifier=Simplifier(),
            identity="00000000-0000-4000-8000-000000000001",
            size=size,
            fixed={} if sizes is None else sizes.letters(facts),
            least={"F": chosen.form_for(unet.config, size).fewest_frames},
        ),
        **changes,
    )


def subject(asked: Job, tokenizer_folder: Path, *, force: bool = False) -> Subject:
    """The model of ``networks()`` for the judges of a job."""
    unet, vae, text_encoder = networks()
    facts = micro_models.facts(unet, vae)
    return Subject(
        facts=narrow(facts, asked.fixed, fewest_frames=asked.least["F"]),
        scheduler=SchedulerConfig(),
        tokenizer=Tokenizer.from_files(tokenizer_folder),
        text_encoder=text_encoder,
        force=force,
    )
