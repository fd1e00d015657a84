"""ONNX Runtime through its Java classes ``ai.onnxruntime``, by pyjnius: the second path on Android.

For apps that carry the Java interface and no library of their own. Tensors are copied once on the
way in and twice on the way out; ``capi`` copies nothing and is the first choice.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.capi.graph_session import GraphSession
from hummingbird_runtime.capi.options import config_entries, left_out
from hummingbird_runtime.capi.status import NativeError
from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.java_classes import Java
from hummingbird_runtime.manifest import Tensor
from hummingbird_runtime.session_errors import load_error
from hummingbird_runtime.session_options import CPU, SessionOptions

Array = NDArray[Any]

_BRINGS = "add com.microsoft.onnxruntime:onnxruntime-android to the app's dependencies"
_DTYPES = {
    "FLOAT": "float32", "FLOAT16": "float16", "DOUBLE": "float64", "INT8": "int8",
    "UINT8": "uint8", "INT32": "int32", "INT64": "int64", "BOOL": "bool",
}  # fmt: skip
_TYPES = {dtype: name for name, dtype in _DTYPES.items()}
_LEVELS = {
    "disabled": "NO_OPT", "basic": "BASIC_OPT", "extended": "EXTENDED_OPT", "layout": "LAYOUT_OPT",
    "all": "ALL_OPT",
}  # fmt: skip


class JavaBackend:
    """Graphs run by the CPU provider behind ``ai.onnxruntime``.

    Raises:
        ResourceError: ``extra.missing`` without pyjnius, ``jni.no_class`` without the classes.
    """

    def __init__(self) -> None:
        self._java = Java("ai.onnxruntime.", _BRINGS)
        self._java.find("OrtEnvironment")

    def open(self, path: Path, options: SessionOptions) -> GraphSession:
        """Open one graph file of a verified bundle.

        Raises:
            HummingbirdError: as ``session.OnnxRuntimeBackend.open``; ``provider.unavailable`` for
                anything but the CPU, and for a style, whose weights this path cannot hand in.
        """
        name = f"{path.absolute().parent.name}/{path.name}"
        if options.providers != (CPU,) or options.initializers:
            got = "weights of a style" if options.initializers else ", ".join(options.providers)
            raise ResourceError(
                "provider.unavailable",
                f"graph {name}: got {got}, ONNX Runtime's Java classes are used with {CPU} alone",
                hint="use the C interface: hummingbird_runtime.capi.CapiBackend",
            )
        try:
            native = self._java.call(_JavaGraph, self._java, path.absolute(), options)
        except NativeError as error:
            raise load_error(error, name, options.providers) from error
        return GraphSession(native, name, left_out(options))


class _JavaRunOptions:
    def __init__(self, java: Java) -> None:
        self._options = java.find("OrtSession$RunOptions")()
        self.native, self._lock, self._over = self._options, threading.RLock(), False

    def terminate(self) -> None:
        with self._lock:  # a closed one would throw
            if not self._over:
                self._options.setTerminate(True)

    def close(self) -> None:
        with self._lock:
            self._over = True
            self._options.close()


class _JavaGraph:
    def __init__(self, java: Java, path: Path, options: SessionOptions) -> None:
        self._java = java
        self.new_run_options = functools.partial(_JavaRunOptions, java)
        self._session: Any = None
        self._buffers = java.find("ByteBuffer", "java.nio.")
        self._order = java.find("ByteOrder", "java.nio.").nativeOrder()
        self._environment = java.find("OrtEnvironment").getEnvironment()
        native = java.find("OrtSession$SessionOptions")()
        try:
            _set_options(java, native, options)
            self._session = self._environment.createSession(os.fspath(path), native)
        finally:
            native.close()
        self.inputs = _signature(java, self._session.getInputInfo())
        self.outputs = _signature(java, self._session.getOutputInfo())

    def run(self, names: None, feeds: Mapping[str, Array], options: _JavaRunOptions) -> list[Array]:
        return cast("list[Array]", self._java.call(self._run, feeds, options))

    def _run(self, feeds: Mapping[str, Array], options: _JavaRunOptions) -> list[Array]:
        tensors: dict[str, Any] = {}
        try:
            table = self._java.find("HashMap", "java.util.")()
            for name, array in feeds.items():
                tensors[name] = self._tensor(array)
                table.put(name, tensors[name])
            result = self._session.run(table, options.native)
            try:
                return [self._array(result.get(i), t) for i, t in enumerate(self.outputs)]
            finally:
                result.close()
        finally:
            for tensor in tensors.values():
                tensor.close()
            options.close()

    def _tensor(self, array: Array) -> Any:
        buffer = self._buffers.allocateDirect(array.nbytes).order(self._order)
        buffer.put(array.tobytes())
        buffer.rewind()
        kind = getattr(self._java.find("OnnxJavaType"), _TYPES[str(array.dtype)])
        return self._java.find("OnnxTensor").createTensor(
            self._environment, buffer, list(array.shape), kind
        )

    def _array(self, value: Any, declared: Tensor) -> Array:
        tensor = self._java.narrow(value, "OnnxTensor")
        buffer = tensor.getByteBuffer()
        # pyjnius copies a whole array at once; into a bytearray it goes byte by byte
        content = bytearray(buffer.array().tostring())
        shape = tuple(self._java.narrow(tensor.getInfo(), "TensorInfo").getShape())
        return np.frombuffer(content, declared.dtype).reshape(shape)

    def __del__(self) -> None:
        if self._session is not None:
            self._session.close()


def _set_options(java: Java, native: Any, options: SessionOptions) -> None:
    settings = options.settings
    native.setSessionLogLevel(java.find("OrtLoggingLevel").ORT_LOGGING_LEVEL_FATAL)
    if options.threads is not None:
        native.setIntraOpNumThreads(options.threads)
    if settings.memory_pattern is not None:
        native.setMemoryPatternOptimization(settings.memory_pattern)
    if settings.cpu_arena is not None:
        native.setCPUArenaAllocator(settings.cpu_arena)
    if settings.optimization is not None:
        levels = java.find("OrtSession$SessionOptions$OptLevel")
        native.setOptimizationLevel(getattr(levels, _LEVELS[settings.optimization]))
    for key, value in config_entries(options).items():
        native.addConfigEntry(key, value)


def _signature(java: Java, infos: Any) -> tuple[Tensor, ...]:
    tensors, entries = [], infos.entrySet().iterator()
    while entries.hasNext():
        entry = entries.next()
        info = java.narrow(entry.getValue().getInfo(), "TensorInfo")
        names = info.getDimensionNames()
        sizes = zip(info.getShape(), names, strict=True)
        dims = tuple(size if size >= 0 else name or "?" for size, name in sizes)
        kind = str(info.type.toString())
        tensors.append(Tensor(entry.getKey(), cast("Any", _DTYPES.get(kind, kind)), dims))
    return tuple(tensors)
