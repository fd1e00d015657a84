"""The public names: what is promised exists, is sorted, and nothing else leaks out."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import hummingbird_runtime


def test_the_public_names_are_these() -> None:
    """Adding or removing a name is a decision: change this list with it."""
    assert sorted(hummingbird_runtime.__all__) == [
        "Bundle",
        "CancelToken",
        "Cancelled",
        "ExecutionError",
        "HummingbirdError",
        "InputError",
        "IntegrityError",
        "ResourceError",
        "SchedulerConfig",
        "SessionBackend",
        "SessionOptions",
        "SessionSettings",
        "TextToVideoPipeline",
        "TimeLimitError",
        "UsageError",
        "Video",
        "builtin_bundle",
    ]
    assert hummingbird_runtime.__all__ == sorted(hummingbird_runtime.__all__)
    assert hummingbird_runtime.__version__.count(".") == 2


@pytest.mark.parametrize("name", hummingbird_runtime.__all__)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(hummingbird_runtime, name)
    assert inspect.getdoc(value)
    assert name in dir(hummingbird_runtime)


def test_type_checkers_see_the_same_names() -> None:
    source = Path(hummingbird_runtime.__file__)
    imported = {
        alias.name
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert imported == set(hummingbird_runtime.__all__)
    assert (source.parent / "py.typed").is_file()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = hummingbird_runtime.no_such_name
