"""Pickles that would run a command, or eat the machine, if anything in them were believed.

Each takes the path of a canary file and gives the bytes of a pickle. ``LIVE`` ones run their
command with the standard unpickler, which a test checks, so that the table is known to bite.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

Maker = Callable[[Path], bytes]

GOOD = b"\x80\x02}"  # an empty dict, still open


def command(canary: Path) -> str:
    return f"touch {canary}"


def text(value: str) -> bytes:
    data = value.encode("utf-8")
    return b"X" + struct.pack("<I", len(data)) + data


def short(value: str) -> bytes:
    data = value.encode("utf-8")
    return b"\x8c" + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def shell(module: str, attribute: str) -> Maker:
    return lambda canary: b"\x80\x02" + call(name(module, attribute), text(command(canary))) + b"."


def python(module: str, attribute: str, *before: bytes) -> Maker:
    def make(canary: Path) -> bytes:
        code = f"__import__('os').system({command(canary)!r})"
        return b"\x80\x02" + call(name(module, attribute), *before, text(code)) + b"."

    return make


def plain(module: str, attribute: str, *arguments: bytes) -> Maker:
    return lambda _: b"\x80\x02" + call(name(module, attribute), *arguments) + b"."


def raw(data: bytes) -> Maker:
    return lambda _: data


class Reduced:
    """Pickles as any call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def reduced(protocol: int) -> Maker:
    import os

    return lambda canary: pickle.dumps({"w": Reduced(os.system, command(canary))}, protocol)


def stack_global(module: str, attribute: str) -> Maker:
    def make(canary: Path) -> bytes:
        function = short(module) + short(attribute) + b"\x93"
        return b"\x80\x04" + call(function, short(command(canary))) + b"."

    return make


def memo_names(canary: Path) -> bytes:
    """The names lie in the memo, pushed in the wrong order and fetched in the right one."""
    stored = short("system") + b"\x94" + b"0" + short("posix") + b"\x94" + b"0"
    return b"\x80\x04" + stored + call(b"h\x01h\x00\x93", short(command(canary))) + b"."


def memo_function(canary: Path) -> bytes:
    """The function is memoized, dropped, and called much later."""
    return (
        b"\x80\x02" + name("posix", "system") + b"q\x07" + b"0" + b"}" + text("a") + b"K\x01s"
        + text("w") + b"h\x07" + b"(" + text(command(canary)) + b"tRs."
    )  # fmt: skip


def nested(canary: Path) -> bytes:
    """getattr(__import__("os"), "system")(command)."""
    module = call(name("builtins", "__import__"), text("os"))
    return (
        b"\x80\x02"
        + call(call(name("builtins", "getattr"), module, text("system")), text(command(canary)))
        + b"."
    )


def discarded(canary: Path) -> bytes:
    """The result is thrown away; a plain dict is left."""
    return b"\x80\x02" + call(name("posix", "system"), text(command(canary))) + b"0}."


def beside_tensors(canary: Path) -> bytes:
    payload = call(name("posix", "system"), text(command(canary)))
    return GOOD + text("weight") + TENSOR + b"s" + text("epoch") + payload + b"s."


def inst(canary: Path) -> bytes:
    return b"(" + text(command(canary)) + b"iposix\nsystem\n."


def obj(canary: Path) -> bytes:
    return b"(" + name("posix", "system") + text(command(canary)) + b"o."


def newobj(canary: Path) -> bytes:
    words = b"(" + text("touch") + text(str(canary)) + b"l"
    return b"\x80\x02" + name("subprocess", "Popen") + words + b"\x85\x81."


def newobj_ex(canary: Path) -> bytes:
    words = b"(" + short("touch") + short(str(canary)) + b"l"
    keywords = b"}" + short("close_fds") + b"\x88s"
    return b"\x80\x04" + name("subprocess", "Popen") + words + b"\x85" + keywords + b"\x92."


def setstate(canary: Path) -> bytes:
    """A class of our allow-list gets a state whose method is a command."""
    payload = call(name("posix", "system"), text(command(canary)))
    return b"\x80\x02" + name("lvdm.models.ddpm3d", "LatentDiffusion") + b")\x81" + payload + b"b."


def protocol_0(module: str, attribute: str) -> Maker:
    def make(canary: Path) -> bytes:
        return f"c{module}\n{attribute}\n(S'touch {canary}'\ntR.".encode()

    return make


def two_pickles(canary: Path) -> bytes:
    return GOOD + text("weight") + TENSOR + b"s." + shell("posix", "system")(canary)


STORAGE = (
    b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ"
)
TENSOR = (
    name("torch._utils", "_rebuild_tensor_v2")
    + b"(" + STORAGE + b"K\x00K\x02\x85K\x01\x85\x89}tR"
)  # fmt: skip
"""Two float32 values in the entry ``data/0``."""

MODULE = name("lvdm.models.ddpm3d", "LatentDiffusion") + b")\x81"


def module(state: bytes) -> bytes:
    """A module with the rest of its attributes, then BUILD."""
    tables = b"".join(text(n) + b"}s" for n in ("_parameters", "_buffers"))
    return MODULE + b"}" + tables + state + b"b"


def tensor_of(shape: bytes, stride: bytes, numel: bytes = b"K\x02", extra: bytes = b"") -> bytes:
    storage = STORAGE.replace(b"K\x02tQ", numel + b"tQ")
    view = name("torch._utils", "_rebuild_tensor_v2") + b"("
    return (
        GOOD + text("w") + view + storage + b"K\x00" + shape + stride + b"\x89}" + extra + b"tRs."
    )


def module_cycle(_: Path) -> bytes:
    children = text("_modules") + b"}" + text("again") + b"h\x01ss"
    tables = b"".join(text(n) + b"}s" for n in ("_parameters", "_buffers"))
    return b"\x80\x02" + MODULE + b"q\x01}" + tables + children + b"b."


def module_bomb(_: Path) -> bytes:
    """60 modules, each the two children of the next: 2^60 paths."""
    inner = b"\x80\x02" + module(text("_modules") + b"}s") + b"q\x000"
    for level in range(60):
        below = b"h" + bytes([level])
        children = b"}" + text("a") + below + b"s" + text("b") + below + b"s"
        inner += module(text("_modules") + children + b"s") + b"q" + bytes([level + 1]) + b"0"
    return inner + b"h\x3c."


LIVE: dict[str, Maker] = {
    "posix.system": shell("posix", "system"),
    "os.system": shell("os", "system"),
    "os.popen": shell("os", "popen"),
    "subprocess.getoutput": shell("subprocess", "getoutput"),
    "builtins.eval": python("builtins", "eval"),
    "builtins.exec": python("builtins", "exec"),
    "__builtin__.eval": python("__builtin__", "eval"),
    "timeit.timeit": python("timeit", "timeit", text("pass")),
    "cProfile.run": python("cProfile", "run"),
    "stack global": stack_global("posix", "system"),
    "protocol 0": protocol_0("posix", "system"),
    "reduce, protocol 2": reduced(2),
    "reduce, protocol 4": reduced(4),
    "reduce, protocol 5": reduced(5),
    "names from the memo": memo_names,
    "function from the memo": memo_function,
    "nested reduce": nested,
    "discarded result": discarded,
    "INST": inst,
    "OBJ": obj,
    "dotted path": stack_global("webbrowser", "os.system"),
}
"""These run their command under ``pickle.loads``."""

ODD: dict[str, Maker] = {
    "nt.system": shell("nt", "system"),
    "NEWOBJ": newobj,
    "NEWOBJ_EX": newobj_ex,
    "beside good tensors": beside_tensors,
    "as a module's state": setstate,
    "two pickles": two_pickles,
    "torch.load": plain("torch", "load", text("other.pt")),
    "torch.hub.load": plain("torch.hub", "load", text("a/b"), text("c")),
    "torch.jit.load": plain("torch.jit", "load", text("other.pt")),
    "nested torch file": plain("torch.storage", "_load_from_bytes", b"C\x01x"),
    "torch extension": plain("torch.utils.cpp_extension", "load", text("x"), text("x.cpp")),
    "tensor subclass": plain("torch._utils", "_rebuild_from_type_v2", b"N", b"N", b"N", b"N"),
    "import": plain("importlib", "import_module", text("antigravity")),
    "runpy": plain("runpy", "run_path", text("x.py")),
    "marshal": plain("marshal", "loads", text("x")),
    "pickle in a pickle": plain("pickle", "loads", text("cos\nsystem\n.")),
    "copyreg": plain("copyreg", "_reconstructor", name("subprocess", "Popen"), b"N", b"N"),
    "copy_reg": plain("copy_reg", "_reconstructor", name("builtins", "object"), b"N", b"N"),
    "attrgetter": plain("operator", "attrgetter", text("system")),
    "partial of os.system": plain("functools", "partial", name("os", "system")),
    "numpy.load": plain("numpy", "load", text("x.npy")),
    "numpy runstring": plain("numpy.testing._private.utils", "runstring", text("1"), b"}"),
    "dunder in a known package": plain("lvdm.models", "__builtins__.eval", text("1")),
    "globals of a known class": raw(
        b"\x80\x04" + short("collections") + short("OrderedDict.__reduce__.__globals__") + b"\x93."
    ),
    "attribute of a known function": raw(
        b"\x80\x04" + short("torch._utils") + short("_rebuild_tensor_v2.__globals__") + b"\x93."
    ),
    "torch.nn reaching out": plain("torch.nn.modules.module", "__builtins__"),
    "look-alike letters": raw(b"\x80\x04" + short("\u043es") + short("system") + b"\x93."),
    "names with a line feed": raw(b"\x80\x04" + short("os\nsystem") + short("x") + b"\x93."),
    "a name that is a number": raw(b"\x80\x04K\x01" + short("system") + b"\x93."),
    "no name": raw(b"\x80\x04" + short("") + short("") + b"\x93."),
    "extension registry": raw(b"\x80\x02\x82\x01."),
    "out-of-band buffer": raw(b"\x80\x05\x97."),
    "a call of a result": raw(b"\x80\x02" + module(text("_modules") + b"}s") + b")R."),
    "a call of a number type": plain("torch", "float32"),
    "a call of a text": raw(b"\x80\x02" + text("os.system") + b")R."),
    "state on a name": raw(b"\x80\x02" + name("torch._utils", "_rebuild_tensor_v2") + b"}b."),
    "state on a tensor": raw(b"\x80\x02" + TENSOR + b"}b."),
    "state on a list": raw(b"\x80\x02]}b."),
    "getattr on a class": plain("builtins", "getattr", name("torch.nn", "Linear"), text("x")),
    "getattr of a dunder": raw(
        b"\x80\x02" + call(name("builtins", "getattr"), MODULE, text("__class__")) + b"."
    ),
    "external class": raw(b"\x80\x02(" + text("module") + name("lvdm", "X") + b"NNNtQ."),
    "external text": raw(b"Pos.system\n."),
    "storage of a strange type": raw(
        b"\x80\x02" + STORAGE.replace(b"ctorch\nFloatStorage", b"clvdm\nStorage") + b"."
    ),
    "tensor without storage": plain(
        "torch._utils", "_rebuild_tensor_v2", b"N", b"K\x00", b")", b")", b"\x89", b"}"
    ),
    "parameter without tensor": plain("torch._utils", "_rebuild_parameter", b"N", b"\x89", b"}"),
    "expanded tensor": raw(tensor_of(b"J\xff\xff\xff\x7fK\x02\x86", b"K\x00K\x01\x86")),
    "negative stride": raw(tensor_of(b"K\x02\x85", b"J\xff\xff\xff\xff\x85")),
    "lazy tensor": raw(tensor_of(b"K\x02\x85", b"K\x01\x85", extra=b"}" + text("neg") + b"\x88s")),
    "shape that is a list": raw(tensor_of(b"]", b"K\x01\x85")),
    "9 dimensions": raw(tensor_of(b"(" + b"K\x01" * 9 + b"t", b"(" + b"K\x01" * 9 + b"t")),
    "module in itself": module_cycle,
    "module bomb": module_bomb,
    "endless name": raw(GOOD + text("w" * 400) + TENSOR + b"s."),
    "name with a control character": raw(GOOD + text("a\x1b[2J") + TENSOR + b"s."),
}
"""These would need some other library, or attack the reader itself."""

HOSTILE = {**LIVE, **ODD}
