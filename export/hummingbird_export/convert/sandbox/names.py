"""Which names a pickled checkpoint may contain, and as what. Everything else refuses the file.

Names are compared as text and never imported. ``inert`` names appear in pickled modules: they stand
for classes of the publishers' own code and are read as data, after the caller has opted in.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Literal

Role = Literal["tensor", "parameter", "storage", "dtype", "ordered", "set", "size", "inert"]

STORAGES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Storage classes of torch -> number type."""

_DTYPES = {"half", "float", "double", "long", "int", "bool", *STORAGES.values()}

_ROLES: dict[tuple[str, str], Role] = {
    ("torch._utils", "_rebuild_tensor_v2"): "tensor",
    ("torch._utils", "_rebuild_parameter"): "parameter",
    ("torch._utils", "_rebuild_parameter_with_state"): "parameter",
    ("collections", "OrderedDict"): "ordered",
    ("builtins", "set"): "set",
    ("__builtin__", "set"): "set",
    ("builtins", "frozenset"): "set",
    ("__builtin__", "frozenset"): "set",
    ("torch", "Size"): "size",
    **{("torch", name): "storage" for name in STORAGES},
    **{("torch", name): "dtype" for name in _DTYPES},
}

_TYPES = "object int float bool str unicode bytes bytearray list dict tuple slice complex range"
_INERT = {
    "builtins": {"getattr", *_TYPES.split()},  # getattr: how a bound method is pickled
    "__builtin__": {"getattr", "long", *_TYPES.split()},
    "collections": {"defaultdict", "deque", "Counter"},
    "functools": {"partial"},
    "typing": {"Any", "Union", "Optional", "List", "Dict", "Tuple"},
    "_codecs": {"encode"},  # how protocol 2 writes bytes
    "numpy": {"dtype", "ndarray"},
    "numpy.core.multiarray": {"_reconstruct", "scalar"},
    "numpy._core.multiarray": {"_reconstruct", "scalar"},
    "torch": {"device"},
}

PACKAGES = (
    "lvdm",
    "open_clip",
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "lightning_utilities",
    "torchmetrics",
    "omegaconf",
    "einops",
    "timm",
    "xformers",
    "torch.nn",
    "torch.optim",
    "torch._C._nn",
)
"""Packages whose classes the published modules name."""


def role_of(module: str, name: str, stubs: Collection[str] = ()) -> Role | None:
    """What a name may be used as, or None for a name that refuses the file.

    Args:
        module: dotted module name as it stands in the file.
        name: name in it, dotted for nested classes.
        stubs: further packages whose names are inert.
    """
    known = _ROLES.get((module, name))
    if known is not None:
        return known
    parts = [*module.split("."), *name.split(".")]
    if not all(part.isidentifier() and not part.startswith("__") for part in parts):
        builtin = module == "__builtin__" and name.isidentifier() and not name.startswith("_")
        return "inert" if builtin and name in _INERT[module] else None
    if name in _INERT.get(module, ()):
        return "inert"
    packages = (*PACKAGES, *stubs)
    inside = any(module == package or module.startswith(f"{package}.") for package in packages)
    return "inert" if inside else None


def refusable_stub(package: str) -> bool:
    """Whether a package may not be added to the inert ones: the standard library, torch, NumPy."""
    root = package.partition(".")[0]
    words = package.split(".")
    plain = all(word.isidentifier() and not word.startswith("_") for word in words)
    return not plain or root in sys.stdlib_module_names or root in {"torch", "numpy", "nt", "posix"}
