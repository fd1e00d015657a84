"""What ``from_pretrained`` takes besides the bundle, and the opening of a pipeline's parts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypedDict, Unpack

from hummingbird_runtime.adapters import open_style
from hummingbird_runtime.auto_providers import AUTO, choose
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.graphs import GraphPool
from hummingbird_runtime.providers import session_options_from
from hummingbird_runtime.session import (
    OnnxRuntimeBackend,
    SessionBackend,
    SessionOptions,
    machine,
)
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.tokenizer import Tokenizer


class ProviderOptions(TypedDict, total=False):
    """Keyword arguments of ``from_pretrained`` on how ONNX Runtime is used."""

    provider: str | None
    """One execution provider of ONNX Runtime; None is the CPU."""
    providers: Sequence[str] | None
    """Several, in order of preference, or ``auto``; excludes ``provider``. A node that none of
    them takes is an error, unless the CPU is among them."""
    provider_options: Mapping[str, Any] | None
    """Options by provider name, or of ``provider`` alone; ``device_type`` (gpu, npu or cpu) picks
    the device of a plug-in provider."""
    session_options: Mapping[str, str] | None
    """Extra session configuration entries of ONNX Runtime."""
    session_settings: SessionSettings | None
    """Memory and optimization settings that win over the bundle's own."""
    threads: int | None
    """Threads of one run; None lets ONNX Runtime choose."""


class OpenOptions(ProviderOptions, total=False):
    """Keyword arguments of ``from_pretrained``."""

    backend: SessionBackend | None
    """Opens graphs; None is the onnxruntime package."""
    low_memory: bool | None
    """Hold one graph at a time, at the price of opening them in every call; None does so for
    bundles of more than 512 MiB."""
    style: str | os.PathLike[str] | None
    """A style of the bundle by name, or an adapter file; merged into the U-Net."""
    style_strength: float
    """-10..10; 0 is the U-Net as it is, 1 the style as trained."""


def open_parts(
    path: str | os.PathLike[str] | None,
    *,
    backend: SessionBackend | None = None,
    low_memory: bool | None = None,
    style: str | os.PathLike[str] | None = None,
    style_strength: float = 1.0,
    **options: Unpack[ProviderOptions],
) -> tuple[Bundle, GraphPool, Tokenizer]:
    """A verified bundle, its graphs (none open yet) and its tokenizer.

    Args:
        path: bundle folder; None is the built-in bundle.
        backend: see ``OpenOptions``, as the rest.
        low_memory: as there.
        style: as there.
        style_strength: as there.
        **options: as there.

    Raises:
        HummingbirdError: as ``from_pretrained``.
    """
    session_options = session_options_from(**options)
    bundle = Bundle.open(path)
    if session_options.providers == (AUTO,):
        session_options = _chosen(session_options, bundle, backend)
    tokenizer = Tokenizer.from_files(bundle.folder("tokenizer"))
    graphs = GraphPool(
        bundle,
        backend or OnnxRuntimeBackend(),
        session_options,
        low_memory=low_memory,
        style=None if style is None else open_style(bundle, style, style_strength),
    )
    return bundle, graphs, tokenizer


def _chosen(
    options: SessionOptions, bundle: Bundle, backend: SessionBackend | None
) -> SessionOptions:
    if backend is not None:
        raise UsageError(
            "provider.auto",
            f"got providers {AUTO!r} with a session backend, expected names",
            hint=f"name the providers, or leave the backend out: {AUTO} knows onnxruntime's own",
        )
    manifest = bundle.manifest
    precisions = {graph.precision for graph in manifest.graphs.values()}
    choice = choose(machine(), manifest.target, precisions)
    return replace(options, providers=choice.providers, why=choice.why)
