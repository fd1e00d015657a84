"""One graph of a bundle as diffusers' own ``OnnxRuntimeModel``."""

from __future__ import annotations

import os
from typing import Any

from diffusers import OnnxRuntimeModel

from hummingbird_runtime.bundle import Bundle


def load_part(
    bundle: Bundle | str | os.PathLike[str] | None,
    role: str,
    *,
    provider: str = "CPUExecutionProvider",
    provider_options: dict[str, Any] | None = None,
    session_options: Any = None,
) -> OnnxRuntimeModel:
    """Open one graph. Calling it with arrays by input name gives the list of outputs.

    Args:
        bundle: an open bundle, or a folder to verify first; None is the built-in bundle.
        role: ``text_encoder``, ``unet``, ``vae_decoder`` or another role of the bundle.
        provider: execution provider of ONNX Runtime.
        provider_options: its options.
        session_options: ``onnxruntime.SessionOptions``.

    Raises:
        InputError, IntegrityError, ResourceError: ``bundle.*``.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    path = opened.path(role)
    return OnnxRuntimeModel.from_pretrained(
        path.parent,
        file_name=path.name,
        provider=provider,
        provider_options=provider_options,
        sess_options=session_options,
    )
