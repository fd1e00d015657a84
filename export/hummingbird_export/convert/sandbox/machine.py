"""The pickle language, interpreted without any way to call, import or look up what a file names.

Opcodes are decoded by pickletools and act on plain data (PEP 307, 3154). Where Python would call
something, this builds a tensor view from an allow-listed rebuilder, or an inert ``Instance``, or
notes the name as forbidden and goes on, so that a refusal can list all of them.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from typing import Any

from hummingbird_export.convert.sandbox.names import STORAGES, Role, role_of
from hummingbird_export.convert.sandbox.values import (
    Global,
    Instance,
    Malformed,
    Opaque,
    Refused,
    Storage,
    TensorView,
)

MAX_OPCODES = 4_000_000
"""A published module has about 300,000."""

_SCALARS = (str, int, float, bytes, bool, type(None), Global)
_MAX_DIMS = 8


class Machine:
    """One run over one pickle.

    Args:
        stubs: packages beyond those of names.py whose classes are read as data.
    """

    def __init__(self, stubs: Collection[str] = ()) -> None:
        self.forbidden: dict[str, None] = {}
        """Names that refuse the file, in order of appearance."""
        self.classes: dict[str, None] = {}
        """Inert names: present in pickled modules, never in a plain state dict."""
        self._stubs = stubs
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """The value that the pickle describes, as plain data.

        Raises:
            Refused: for what only an attack or an exotic pickle needs.
            Malformed: for a damaged pickle.
        """
        end = 0
        try:
            for count, (opcode, argument, position) in enumerate(pickletools.genops(data), 1):
                if count > MAX_OPCODES:
                    raise Refused(f"more than {MAX_OPCODES} instructions")
                step = _STEPS.get(opcode.name)
                if step is None:
                    raise Refused(f"instruction {opcode.name}, which no checkpoint needs")
                step(self, argument)
                end = position or 0
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise Malformed(f"a damaged pickle: {type(error).__name__}: {error}") from error
        if end + 1 != len(data):
            raise Refused(f"{len(data) - end - 1} bytes after the end of the pickle")
        if len(self._stack) != 1:
            raise Malformed(f"a damaged pickle: it ends with {len(self._stack)} values")
        return self._stack[0]

    # Stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if self._marks and self._marks[-1] == len(self._stack):
            raise IndexError("nothing above the mark")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _drop(self, _: Any) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _tuple_of(self, count: int) -> None:
        values = [self._pop() for _ in range(count)]
        self._push(tuple(reversed(values)))

    def _remember(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    # Containers

    def _append(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Instance):
            target.items.extend(values)
        elif isinstance(target, list):
            target.extend(values)
        else:
            raise TypeError(f"items added to a {type(target).__name__}")

    def _set_items(self, values: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Instance):
            target = target.entries
        if not isinstance(target, dict):
            raise TypeError(f"entries set on a {type(target).__name__}")
        target.update(_pairs(values))

    def _build(self, _: Any) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, Instance):
            target.states.append(state)
        elif not isinstance(target, dict):  # a state dict carries its versions as an attribute
            raise Refused(f"state set on {_described(target)}")

    # Names and what would be calls

    def _global(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refused("a name that is no text")
        found = Global(module, name)
        role = self._role(found)
        if role is None:
            self.forbidden[str(found)] = None
        elif role == "inert":
            self.classes[str(found)] = None
        return found

    def _role(self, found: Global) -> Role | None:
        return role_of(found.module, found.name, self._stubs)

    def _stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push(self._global(module, name))

    def _call(self, target: Any, arguments: Any) -> Any:
        if not isinstance(target, Global):
            raise Refused(f"a call of {_described(target)}")
        if not isinstance(arguments, tuple):
            raise TypeError("arguments that are no tuple")
        role = self._role(target)
        if role == "tensor":
            return _tensor(arguments)
        if role == "parameter":
            if not arguments or not isinstance(arguments[0], TensorView):
                raise Refused("a parameter without a tensor")
            return arguments[0]
        if role == "ordered":
            rows = arguments[0] if arguments else []
            if isinstance(rows, dict):
                return dict(rows)
            return _pairs([value for row in rows for value in _exactly_two(row)])
        if role == "set":
            return list(arguments[0]) if arguments else []
        if role == "size":
            return tuple(arguments[0])
        if role in ("storage", "dtype"):
            raise Refused(f"a call of {target}")
        if target.name == "getattr":
            _check_bound_method(arguments)
        return Instance(target, arguments)

    def _reduce(self, _: Any) -> None:
        arguments, target = self._pop(), self._pop()
        self._push(self._call(target, arguments))

    def _new(self, _: Any) -> None:
        arguments, target = self._pop(), self._pop()
        self._push(self._instance(target, arguments))

    def _new_with_keywords(self, _: Any) -> None:
        keywords, arguments, target = self._pop(), self._pop(), self._pop()
        self._push(self._instance(target, (arguments, keywords)))

    def _instance(self, target: Any, arguments: Any) -> Any:
        if isinstance(target, Global) and self._role(target) in ("inert", None):
            return Instance(target, arguments)  # a forbidden name is noted already
        return self._call(target, arguments)

    def _inst(self, text: str) -> None:
        target = self._global(*text.split(" ", 1))
        self._push(self._call(target, tuple(self._pop_to_mark())))

    def _obj(self, _: Any) -> None:
        target, *arguments = self._pop_to_mark()
        self._push(self._call(target, tuple(arguments)))

    def _persistent(self, _: Any) -> None:
        identity = self._pop()
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise Refused("an external object that is no storage")
        _, kind, key, _, numel = identity
        dtype = STORAGES.get(kind.name) if isinstance(kind, Global) else None
        if dtype is None or kind.module != "torch" or not isinstance(key, str):
            raise Refused(f"a storage of type {_described(kind)}")
        self._push(Storage(dtype, key, _count(numel)))


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = [key if type(key) in _SCALARS else Opaque(key) for key in values[::2]]
    return dict(zip(keys, values[1::2], strict=True))


def _exactly_two(row: Any) -> Any:
    if not isinstance(row, (list, tuple)) or len(row) != 2:
        raise TypeError("an ordered dict from rows that are no pairs")
    return row


def _tensor(arguments: tuple[Any, ...]) -> TensorView:
    if len(arguments) < 6 or not isinstance(arguments[0], Storage):
        raise Refused("a tensor without a storage")
    if any(arguments[6:]):
        raise Refused("a tensor with lazy operations on it")
    storage, offset, shape, stride = arguments[:4]
    sizes, steps = (tuple(map(_count, row)) for row in (_row(shape), _row(stride)))
    if len(sizes) != len(steps) or len(sizes) > _MAX_DIMS:
        raise Refused(f"a tensor of shape {sizes[:9]} with strides {steps[:9]}")
    return TensorView(storage, _count(offset), sizes, steps)


def _row(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise Refused("a shape that is no tuple")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise Refused("a size that is no whole number from 0 to 2^40")
    return value


def _check_bound_method(arguments: tuple[Any, ...]) -> None:
    """``getattr(module, "method")`` is how a bound method is pickled; nothing else is let pass."""
    match arguments:
        case (Instance(), str(name)) if name.isidentifier() and not name.startswith("_"):
            return
    raise Refused("getattr on something other than a module of the file")


def _described(value: Any) -> str:
    if isinstance(value, Global):
        return str(value)
    return f"a value of type {type(value).__name__}"


def _value(make: Callable[[], Any]) -> Callable[[Machine, Any], None]:
    return lambda machine, _: machine._push(make())


def _literal(machine: Machine, argument: Any) -> None:
    machine._push(argument)


def _nothing(machine: Machine, argument: Any) -> None:
    """Framing and the final STOP: the value stays on the stack."""


_LITERALS = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)

_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    **dict.fromkeys(_LITERALS.split(), _literal),
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), _nothing),
    "NONE": _value(lambda: None),
    "NEWTRUE": _value(lambda: True),
    "NEWFALSE": _value(lambda: False),
    "EMPTY_LIST": _value(list),
    "EMPTY_SET": _value(list),
    "EMPTY_DICT": _value(dict),
    "EMPTY_TUPLE": _value(tuple),
    "MARK": lambda m, _: m._marks.append(len(m._stack)),
    "POP": Machine._drop,
    "POP_MARK": Machine._pop_mark,
    "DUP": lambda m, _: m._push(m._stack[-1]),
    "TUPLE": lambda m, _: m._push(tuple(m._pop_to_mark())),
    "TUPLE1": lambda m, _: m._tuple_of(1),
    "TUPLE2": lambda m, _: m._tuple_of(2),
    "TUPLE3": lambda m, _: m._tuple_of(3),
    "LIST": lambda m, _: m._push(m._pop_to_mark()),
    "FROZENSET": lambda m, _: m._push(m._pop_to_mark()),
    "DICT": lambda m, _: m._push(_pairs(m._pop_to_mark())),
    "APPEND": lambda m, _: m._append([m._pop()]),
    "APPENDS": lambda m, _: m._append(m._pop_to_mark()),
    "ADDITEMS": lambda m, _: m._append(m._pop_to_mark()),
    "SETITEM": lambda m, _: m._set_items([m._pop(), m._pop()][::-1]),
    "SETITEMS": lambda m, _: m._set_items(m._pop_to_mark()),
    "PUT": lambda m, index: m._remember(index),
    "BINPUT": lambda m, index: m._remember(index),
    "LONG_BINPUT": lambda m, index: m._remember(index),
    "MEMOIZE": lambda m, _: m._remember(len(m._memo)),
    "GET": lambda m, index: m._push(m._memo[index]),
    "BINGET": lambda m, index: m._push(m._memo[index]),
    "LONG_BINGET": lambda m, index: m._push(m._memo[index]),
    "GLOBAL": lambda m, text: m._push(m._global(*text.split(" ", 1))),
    "STACK_GLOBAL": Machine._stack_global,
    "BUILD": Machine._build,
    "REDUCE": Machine._reduce,
    "NEWOBJ": Machine._new,
    "NEWOBJ_EX": Machine._new_with_keywords,
    "INST": Machine._inst,
    "OBJ": Machine._obj,
    "BINPERSID": Machine._persistent,
}
"""Instruction -> what it does; what is not here (extension registry, buffers) refuses the file."""
