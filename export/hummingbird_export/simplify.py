"""Clean-up of a graph by onnxsim, in a child process: a crash there never costs the artefact.

onnxsim is native code that may need several times the model's memory. The child is started once,
early, so that its imports overlap with tracing, and takes one graph after the other.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import onnx_ir as ir

from hummingbird_runtime.errors import ResourceError

LARGE = 64 * 1024
"""Bytes from which a weight is no matter of the simplifier's."""


class Simplifier:
    """A context manager around the child process.

    Usage: ``with Simplifier() as simplifier: reason = simplifier.run(source, target)``.
    """

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def run(self, source: Path, target: Path) -> str:
        """Simplify ``source`` into ``target``; the source is never touched.

        Returns:
            An empty string when ``target`` was written, else one line: why it was not.
        """
        if self._child is None:
            self._start()
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps([str(source), str(target)]) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = child.wait()
            self._stop()
            return f"onnxsim's process ended with status {code}"
        reason: str = json.loads(answer)
        return reason if reason or target.is_file() else "onnxsim wrote no file"

    def _start(self) -> None:
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "hummingbird_export.simplify"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        except OSError as error:
            raise ResourceError(
                "export.process",
                f"the simplifier's process could not be started: {error}",
                hint="free memory or raise the limit on processes",
            ) from error

    def _stop(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()
        child.kill()  # it holds nothing that needs saving
        child.wait()
        child.stdout.close()


def simplify_graph(
    model: ir.Model, work: Path, simplifier: Simplifier
) -> tuple[ir.Model | None, str]:
    """Simplify a model whose large weights stay out of the simplifier's sight and memory.

    Args:
        model: large initializers are taken out for the while and put back.
        work: folder for the files that pass between the processes.
        simplifier: running child process.

    Returns:
        The simplified model and what was done, or None and why not.
    """
    source, target = work / "traced.onnx", work / "simple.onnx"
    graph = model.graph
    large = {
        name: value
        for name, value in graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes >= LARGE
    }
    kept = list(graph.inputs)
    _detach(graph, large)
    ir.save(model, source)
    _attach(graph, large, kept)
    reason = simplifier.run(source, target)
    if reason:
        return None, reason
    simple = ir.load(target)
    found = {value.name: value for value in simple.graph.inputs}
    for name, value in large.items():
        if name in found:
            found[name].const_value = value.const_value
    names = [value.name for value in kept]
    simple_large = {name: found[name] for name in large if name in found}
    _attach(simple.graph, simple_large, [found[name] for name in names])
    return simple, f"onnxsim: {len(graph)} nodes to {len(simple.graph)}"


def _detach(graph: ir.Graph, large: Mapping[str, ir.Value]) -> None:
    for name, value in large.items():
        del graph.initializers[name]
        graph.inputs.append(value)


def _attach(graph: ir.Graph, large: Mapping[str, ir.Value], inputs: Sequence[ir.Value]) -> None:
    graph.inputs[:] = list(inputs)
    for value in large.values():
        graph.register_initializer(value)


def simplify_file(source: Path, target: Path) -> str:
    """Simplify in this process; returns what ``Simplifier.run`` returns.

    onnxsim's fusions turn every linear layer on 3-D tokens into several reshapes and a Gemm, which
    is more nodes and no faster: they are tried, and kept only where they make the graph smaller.
    """
    import onnxsim

    try:
        before = _count_nodes(source)
        for fuse in (True, False):
            onnxsim.simplify(str(source), output_path=str(target), perform_optimization=fuse)
            after = _count_nodes(target)
            if after < before:
                return ""
    except Exception as error:  # whatever onnxsim cannot do only costs the simplification
        first = (str(error).splitlines() or [""])[0]
        return f"onnxsim: {type(error).__name__}: {first}"[:300]
    return f"onnxsim left {after} nodes of {before}"


def _count_nodes(path: Path) -> int:
    import onnx_ir

    return len(onnx_ir.load(path).graph)


def _serve() -> None:
    """Answer each line ``[source, target]`` with a line: the reason, empty when it was done."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # onnxsim prints to standard output
    import onnxsim  # noqa: F401

    for line in sys.stdin:
        source, target = json.loads(line)
        replies.write(json.dumps(simplify_file(Path(source), Path(target))) + "\n")
        replies.flush()


if __name__ == "__main__":
    _serve()
