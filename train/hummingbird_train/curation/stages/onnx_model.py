"""ONNX files that a user brings: opened once a process, on one thread, with typed errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from hummingbird_runtime.errors import ExecutionError, InputError
from hummingbird_train.curation.stages.model_file import file_sha256

Arrays = Mapping[str, NDArray[Any]]


@lru_cache(maxsize=8)
def open_model(path: str, digest: str = "") -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU.

    Args:
        path: the file.
        digest: of its bytes, so that a changed file is opened anew.

    Raises:
        InputError: ``stage.model``.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common exception class
        raise InputError(
            "stage.model",
            f"{path}: got no ONNX model that runs ({error!s:.160}), expected one",
            hint="correct the path in [stages]",
        ) from error


def open_checked(path: str) -> Any:
    """``open_model`` of the file as it is now."""
    return open_model(path, file_sha256(path))


def run_model(session: Any, feeds: Arrays) -> dict[str, NDArray[Any]]:
    """Run a session: outputs by name.

    Raises:
        ExecutionError: ``stage.run``.
    """
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(feeds)), strict=True))
    except Exception as error:  # ONNX Runtime has no common exception class
        raise ExecutionError(
            "stage.run",
            f"a user's model failed: got {error!s:.200}, expected outputs {names}",
            hint="its inputs are described in docs/curation-stages.md",
        ) from error


def refuse_interface(path: str, got: object, expected: str) -> InputError:
    """The error of a model whose inputs or outputs are not those that a stage feeds and reads."""
    return InputError(
        "stage.interface",
        f"{path}: got {got}, expected {expected}",
        hint="docs/curation-stages.md describes the model",
    )
