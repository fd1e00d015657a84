"""Prints the two tables of docs/quantization.md: kernels, and the small U-Net's quality.

One thread and process time, so that other work on the machine does not count:
``python docs/measure_quantization.py kernels`` (a minute), ``... unet`` (three minutes).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)
CPU = ["CPUExecutionProvider"]
Nodes = list[onnx.NodeProto]
node = helper.make_node


def session(nodes: Nodes, constants: dict, shape: tuple) -> ort.InferenceSession:
    read = {name for one in nodes for name in one.input}
    kept = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items() if n in read]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "form", [x], [y], kept)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=CPU)


def table(title: str, forms: dict[str, Nodes], constants: dict, x: np.ndarray, flop: float) -> None:
    opened = {name: session(nodes, constants, x.shape) for name, nodes in forms.items()}
    best = dict.fromkeys(forms, float("inf"))
    for _ in range(5):
        for name, one in opened.items():  # paired: each round runs every form
            start = time.process_time()
            one.run(None, {"x": x})
            best[name] = min(best[name], time.process_time() - start)
    print(f"\n{title}")
    first = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"  {name:46} {flop / seconds / 1e9:6.0f} GOP/s {first / seconds:5.2f}x")


def round_to(w: np.ndarray, axis: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    others = tuple(i for i in range(w.ndim) if i != axis)
    scale = (np.abs(w).max(axis=others, keepdims=True) / limit).astype(np.float32)
    return np.rint(w / scale).astype(np.int8), scale.ravel()


def products(m: int, k: int, n: int) -> None:
    w = RNG.standard_normal((k, n), dtype=np.float32)
    q, scale = round_to(w, 1, 64)
    s, z = np.float32(8 / 255), np.uint8(128)
    c = {"w": w, "q": q, "ws": scale, "wz": np.zeros(n, np.int8), "s": s, "z": z}
    c |= {"b": np.ones(n, np.float32), "b1": np.ones((1, 1, n), np.float32)}
    c |= {"bq": np.ones(n, np.int32), "bs": s * scale, "bz": np.zeros(n, np.int32)}
    c |= {"ys": np.float32(1), "to2": np.array([-1, k]), "to3": np.array([1, -1, k])}
    source = [node("QuantizeLinear", ["x", "s", "z"], ["xq"])]
    both = [
        *source,
        node("DequantizeLinear", ["xq", "s", "z"], ["d"]),
        node("DequantizeLinear", ["q", "ws", "wz"], ["wd"], axis=1),
    ]
    bias = node("DequantizeLinear", ["bq", "bs", "bz"], ["bd"], axis=0)
    fused = ["xq", "q", "s", "ws", "z", "wz", "b"]
    forms = {
        "float32 Gemm": [node("Gemm", ["x", "w", "b"], ["y"])],
        "pair in and out, MatMul, Add": [
            *both,
            node("MatMul", ["d", "wd"], ["m"]),
            node("QuantizeLinear", ["m", "ys", "z"], ["mq"]),
            node("DequantizeLinear", ["mq", "ys", "z"], ["md"]),
            node("Add", ["md", "b"], ["y"]),
        ],
        "pair in, MatMul, Add of a vector": [
            *both,
            node("MatMul", ["d", "wd"], ["m"]),
            node("Add", ["m", "b"], ["y"]),
        ],
        "pair in, Gemm, int32 bias (standard)": [
            *both,
            bias,
            node("Gemm", ["d", "wd", "bd"], ["y"]),
        ],
        "MatMulIntegerToFloat (fused)": [
            *source,
            node("MatMulIntegerToFloat", fused, ["y"], domain="com.microsoft"),
        ],
        "DynamicQuantizeMatMul": [
            node(
                "DynamicQuantizeMatMul", ["x", "q", "ws", "wz", "b"], ["y"], domain="com.microsoft"
            )
        ],
        "weights only, DequantizeLinear and Gemm": [both[2], node("Gemm", ["x", "wd", "b"], ["y"])],
    }
    x = RNG.standard_normal((m, k), dtype=np.float32)
    table(f"product {m} x {k} x {n}", forms, c, x, 2.0 * m * k * n)


def convolution(shape: tuple[int, int, int, int], outputs: int, kernel: tuple[int, int]) -> None:
    channels = shape[1]
    w = RNG.standard_normal((outputs, channels, *kernel), dtype=np.float32)
    q, scale = round_to(w, 0, 64)
    s, z = np.float32(8 / 255), np.uint8(128)
    c = {"w": w, "q": q, "ws": scale, "wz": np.zeros(outputs, np.int8), "s": s, "z": z}
    c |= {"b": np.ones(outputs, np.float32), "bq": np.ones(outputs, np.int32), "bs": s * scale}
    c |= {"bz": np.zeros(outputs, np.int32), "ys": np.float32(100 / 255), "wz0": np.int8(0)}
    c |= {"sv": np.full(channels, s), "zv": np.full(channels, z)}
    c |= {"yv": np.full(outputs, c["ys"]), "yz": np.full(outputs, z)}
    pads = [kernel[0] // 2, kernel[1] // 2] * 2
    rest = [
        node("DequantizeLinear", ["xq", "s", "z"], ["d"]),
        node("DequantizeLinear", ["q", "ws", "wz"], ["wd"], axis=0),
        node("DequantizeLinear", ["bq", "bs", "bz"], ["bd"], axis=0),
    ]
    run = node("Conv", ["d", "wd", "bd"], ["m"], pads=pads)
    out = node("QuantizeLinear", ["m", "ys", "z"], ["mq"])
    forms = {
        "float32 Conv": [node("Conv", ["x", "w", "b"], ["y"], pads=pads)],
        "pair in only": [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            *rest,
            node("Conv", ["d", "wd", "bd"], ["y"], pads=pads),
        ],
        "pair in and out, one scale": [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            *rest,
            run,
            out,
            node("DequantizeLinear", ["mq", "ys", "z"], ["y"]),
        ],
        "pair in and out, scales along channels": [
            node("QuantizeLinear", ["x", "sv", "zv"], ["xq"], axis=1),
            *rest,
            run,
            out,
            node("DequantizeLinear", ["mq", "yv", "yz"], ["y"], axis=1),
        ],
        "ConvInteger": [
            node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            node("ConvInteger", ["xq", "q", "z", "wz0"], ["i"], pads=pads),
            node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
        ],
        "weights only, DequantizeLinear and Conv": [
            rest[1],
            node("Conv", ["x", "wd", "b"], ["y"], pads=pads),
        ],
    }
    x = RNG.standard_normal(shape, dtype=np.float32)
    flop = 2.0 * shape[0] * shape[2] * shape[3] * channels * outputs * kernel[0] * kernel[1]
    table(f"convolution {shape} -> {outputs}, kernel {kernel}", forms, c, x, flop)


def kernels() -> None:
    for size in ((2560, 640, 2560), (2048, 2560, 640), (4096, 320, 320), (2080, 1280, 1280)):
        products(*size)
    convolution((4, 320, 40, 64), 320, (3, 3))
    convolution((1, 320, 26, 640), 320, (3, 1))
    convolution((4, 1280, 10, 16), 1280, (3, 3))
    convolution((4, 640, 40, 64), 320, (1, 1))


def unet() -> None:
    """Final latents after four steps, mean and worst of eight, for the tiny U-Net's shape."""
    import onnx_ir as ir

    from hummingbird_export.gates import compare
    from hummingbird_export.lowering.unet import lower_unet
    from hummingbird_export.quantize import calibrate, quantize_graph
    from hummingbird_export.random_models import LCM, preset, random_unet
    from hummingbird_export.storage import save_graph
    from hummingbird_export.trajectory import Settings, final_latents, random_cases, trajectory
    from hummingbird_export.wrappers import unet_graph

    config = preset("tiny").unet
    settings = Settings(LCM, (config.in_channels, 8, 8, 8), guidance_dim=config.time_cond_proj_dim)
    test, seen = random_cases(8, 24, 96), random_cases(2, 24, 96, seed=100)

    def denoiser(path: Path) -> Callable:
        one = ort.InferenceSession(str(path), providers=CPU)
        return lambda feeds: one.run(None, feeds)[0]

    rows = [("int8", {}), ("int8", {"along_channels": False}), ("int8-dynamic", {})]
    rows += [("mixed", {}), ("w8", {}), ("w4", {})]
    for hard in (False, True):
        with tempfile.TemporaryDirectory() as name:
            network = random_unet(config, seed=3, hard=hard)
            model = lower_unet(network, unet_graph(network, tokens=24)[1])
            path = save_graph(model, Path(name))
            ask = denoiser(path)
            feeds = [f for case in seen for f in trajectory(ask, case, settings).feeds]
            ranges = calibrate(path, feeds)
            want = list(final_latents(ask, test, settings))
            print(f"\n{'hard' if hard else 'random'} weights, {path.stat().st_size / 1e6:.2f} MB")
            for precision, options in rows:
                model = ir.load(path)
                report = quantize_graph(model, precision, ranges=ranges, **options)
                folder = Path(name, precision)
                folder.mkdir(exist_ok=True)
                stored = save_graph(model, folder)
                quality = compare(final_latents(denoiser(stored), test, settings), want)
                print(
                    f"  {precision:13} {quality.mean_db:6.1f} {quality.worst_db:6.1f} dB"
                    f"  cosine {quality.cosine:.4f} {stored.stat().st_size / 1e6:6.2f} MB"
                    f"  {report.counts()} {options or ''}"
                )


if __name__ == "__main__":
    {"kernels": kernels, "unet": unet}[sys.argv[1]]()
