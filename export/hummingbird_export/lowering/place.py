"""Places of the object, and their planes, as ONNX operators (``models/place.py``)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hummingbird_export.lowering.blocks import Scene
from hummingbird_export.lowering.layers import dense, silu
from hummingbird_train.models.embeddings import NUM_ROWS
from hummingbird_train.models.place import COORDINATES, HALF_SPAN, PlacePlanes


def place_planes(s: Scene, module: PlacePlanes) -> ir.Value:
    """(t, channels, h, w) to add to the first features."""
    g, channels = s.g, module.planes.out_features // COORDINATES
    counting = g.constant(np.arange(NUM_ROWS), np.float32)
    tokens = silu(g, s.form, dense(g, "text", s.context, module.text))  # (l, hidden)
    total = g.op("ReduceSum", tokens, g.constant([0]), keepdims=1, name="Tokens")
    root = g.op("Sqrt", g.op("Cast", _length(s), to=ir.DataType.FLOAT, name="Float"), name="Root")
    motion = dense(g, "motion", g.op("Div", total, root, name="Mean"), module.motion)  # (1, 6)
    motion = g.op("Reshape", motion, g.constant([2, COORDINATES]), name="Rows")
    middle, velocity = (
        g.op("Gather", motion, g.constant([row]), axis=0, name="Row") for row in (0, 1)
    )  # (1, 3) each
    index = _counted(s, counting, s.sizes.size("t"), "Frames")
    index = g.op("Unsqueeze", index, g.constant([1]), name="Column")  # (t, 1)
    time = g.op("Div", index, _number(s, HALF_SPAN), name="Scaled")
    time = g.op("Sub", time, _number(s, 1.0), name="Time")
    place = g.op("Add", middle, g.op("Mul", time, velocity, name="Way"), name="Place")  # (t, 3)
    hidden = silu(g, s.form, dense(g, "hidden", place, module.hidden))
    weights = dense(g, "planes", hidden, module.planes)
    weights = g.op("Reshape", weights, g.constant([-1, channels, COORDINATES]), name="Weights")
    planes = g.op("MatMul", weights, _basis(s, counting), name="Planes")  # (t, channels, h*w)
    shape = s.sizes.shape(0, 0, ("h", 0), ("w", 0))
    return g.op("Reshape", planes, shape, name="Grid")


def _number(s: Scene, value: float) -> ir.Value:
    return s.g.constant(value, np.float32)


def _length(s: Scene) -> ir.Value:
    shape = s.g.op("Shape", s.context, name="Shape")
    return s.g.op("Gather", shape, s.g.constant([0]), axis=0, name="Length")


def _counted(s: Scene, counting: ir.Value, size: ir.Value, name: str) -> ir.Value:
    """0, 1, ... below a size."""
    g = s.g
    return g.op("Slice", counting, g.constant([0]), size, g.constant([0]), name=name)


def _basis(s: Scene, counting: ir.Value) -> ir.Value:
    """x, y and x^2 + y^2 - 2/3 of every cell: (3, h*w)."""
    g, sides = s.g, {}
    for kind, axis in (("w", 0), ("h", 1)):
        size = s.sizes.size((kind, 0))
        index = _counted(s, counting, size, "Cells")
        centre = g.op(
            "Add", g.op("Mul", index, _number(s, 2.0), name="Twice"), _number(s, 1.0), name="Centre"
        )
        count = g.op("Cast", size, to=ir.DataType.FLOAT, name="Side")
        unit = g.op("Sub", g.op("Div", centre, count, name="Part"), _number(s, 1.0), name="Unit")
        sides[kind] = g.op("Unsqueeze", unit, g.constant([axis]), name="Line")
    grid = g.op("Concat", s.sizes.size(("h", 0)), s.sizes.size(("w", 0)), axis=0, name="GridShape")
    x, y = (g.op("Expand", sides[kind], grid, name="Plane") for kind in ("w", "h"))
    square = g.op(
        "Add", g.op("Mul", x, x, name="Square"), g.op("Mul", y, y, name="Square"), name="Sum"
    )
    bowl = g.op("Sub", square, _number(s, 2 / 3), name="Bowl")
    flat = [g.op("Reshape", plane, g.constant([1, -1]), name="Row") for plane in (x, y, bowl)]
    return g.op("Concat", *flat, axis=0, name="Basis")
