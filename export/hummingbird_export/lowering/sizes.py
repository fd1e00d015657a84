"""Sizes that are known when a graph runs: frames, height and width at every level of the pyramid.

Reshape targets and the cuts of chunked work are computed from the sample's shape by a handful of
integer nodes, once each; a runtime folds them away where the sizes are fixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from hummingbird_export.lowering.builder import GraphBuilder

Size = str | tuple[str, int]
"""``"t"`` frames; ``("h", level)``, ``("w", level)``, ``("hw", level)`` the grid of a level."""


class Sizes:
    """The sizes of one clip.

    Args:
        g: graph under construction.
        sample: [1, C, F, h, w].
    """

    def __init__(self, g: GraphBuilder, sample: ir.Value) -> None:
        self._g = g
        self._known: dict[object, ir.Value] = {}
        self._joined: dict[ir.Value, tuple[int, list[ir.Value]]] = {}
        shape = g.op("Shape", sample, name="sizes/Shape")
        for axis, size in ((2, "t"), (3, ("h", 0)), (4, ("w", 0))):
            self._known[size] = g.op("Gather", shape, g.constant([axis]), axis=0, name="sizes/Axis")

    def size(self, which: Size) -> ir.Value:
        """One size as int64 [1]."""
        if which not in self._known:
            g = self._g
            assert not isinstance(which, str)
            kind, level = which
            if kind == "hw":
                sides = self.size(("h", level)), self.size(("w", level))
                self._known[which] = g.op("Mul", *sides, name="sizes/Cells")
            else:
                step = g.constant([2**level])
                self._known[which] = g.op("Div", self.size((kind, 0)), step, name="sizes/Level")
        return self._known[which]

    def shape(self, *dims: int | Size) -> ir.Value:
        """A Reshape target; numbers are taken as they are, 0 and -1 with ONNX's meaning."""
        if all(isinstance(dim, int) for dim in dims):
            return self._g.constant(dims)
        key = ("shape", *dims)
        if key not in self._known:
            parts = [
                self._g.constant([dim]) if isinstance(dim, int) else self.size(dim) for dim in dims
            ]
            self._known[key] = self._g.op("Concat", *parts, axis=0, name="sizes/Target")
        return self._known[key]

    def split(self, x: ir.Value, along: Size, pieces: int, *, axis: int = 0) -> list[ir.Value]:
        """Cut an axis into pieces whose sizes differ by at most one.

        What was just joined from as many pieces along that axis is not joined at all: one piece
        after the other flows on, and the whole need not exist (an unread join is dropped when the
        graph is finished).
        """
        if pieces == 1:
            return [x]
        known = self._joined.get(x)
        if known is not None and known[0] == axis and len(known[1]) == pieces:
            return known[1]
        cuts = self._cuts(along, pieces)
        return list(self._g.ops("Split", x, cuts, outputs=pieces, axis=axis, name="Cut"))

    def join(self, pieces: Sequence[ir.Value], *, axis: int = 0) -> ir.Value:
        """Undo a cut."""
        if len(pieces) == 1:
            return pieces[0]
        whole = self._g.op("Concat", *pieces, axis=axis, name="Whole")
        self._joined[whole] = (axis, list(pieces))
        return whole

    def _cuts(self, along: Size, pieces: int) -> ir.Value:
        """Piece i ends at floor(n (i + 1) / pieces)."""
        key = ("cuts", along, pieces)
        if key not in self._known:
            g, n = self._g, self.size(along)
            ends, starts = (
                g.op(
                    "Div",
                    g.op("Mul", n, g.constant(list(numbers)), name="sizes/Cut"),
                    g.constant([pieces]),
                    name="sizes/Cut",
                )
                for numbers in (range(1, pieces + 1), range(pieces))
            )
            self._known[key] = g.op("Sub", ends, starts, name="sizes/Cut")
        return self._known[key]
