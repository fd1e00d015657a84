"""The tests of the Python binding, every one of them, over the C interface.

``test_session.py`` is loaded a second time with ``CapiBackend`` in the place of
``OnnxRuntimeBackend``, so the two backends cannot drift apart.
"""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

from hummingbird_runtime.capi import CapiBackend
from hummingbird_runtime.session import OnnxRuntimeBackend

SOURCE = Path(__file__).with_name("test_session.py")


def over_the_c_interface() -> ModuleType:
    spec = importlib.util.spec_from_file_location("test_session_over_capi", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.OnnxRuntimeBackend is OnnxRuntimeBackend
    module.OnnxRuntimeBackend = CapiBackend
    return module


COPY = over_the_c_interface()


def opens_a_graph(test: object) -> bool:
    return any(word in inspect.getsource(test) for word in ("opened(", "refusal(", "Backend()"))


globals().update(
    {name: f for name, f in vars(COPY).items() if name.startswith("test_") and opens_a_graph(f)}
)


def test_most_of_the_session_tests_are_here() -> None:
    """A rename in the other file must not leave this one empty."""
    assert sum(name.startswith("test_") for name in globals()) >= 15
    assert COPY.opened.__globals__["OnnxRuntimeBackend"] is CapiBackend
