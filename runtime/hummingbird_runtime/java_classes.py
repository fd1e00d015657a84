"""Classes of Java from Python, by pyjnius, which is imported when the first of them is needed."""

from __future__ import annotations

import importlib
import re
from typing import Any

from hummingbird_runtime.capi.status import error_of
from hummingbird_runtime.errors import ResourceError

_CODE = re.compile(r"Error code - ORT_(\w+) - message: (.*)", re.DOTALL)


class Java:
    """The classes of this process's virtual machine, and its exceptions as ``NativeError``.

    Args:
        package: put before names.
        brings: what makes a missing class available, for the message.

    Raises:
        ResourceError: ``extra.missing`` without pyjnius.
    """

    def __init__(self, package: str, brings: str) -> None:
        self._package, self._brings = package, brings
        try:
            jnius = importlib.import_module("jnius")
        except ImportError as error:
            raise ResourceError(
                "extra.missing",
                "Java, got no package 'jnius', expected it to be installed",
                hint="pip install 'hummingbird-edge[jni]'; an app names pyjnius as a requirement",
            ) from error
        self._exception = jnius.JavaException
        self._autoclass, self._cast = jnius.autoclass, jnius.cast

    def find(self, name: str, package: str | None = None) -> Any:
        """A class by name; inner ones behind a ``$``.

        Raises:
            ResourceError: ``jni.no_class``.
        """
        path = (self._package if package is None else package) + name
        try:
            return self._autoclass(path)
        except self._exception as error:
            raise ResourceError(
                "jni.no_class",
                f"got no Java class {path}, expected it in the app ({str(error)[:80]!r})",
                hint=self._brings,
            ) from error

    def narrow(self, value: Any, name: str) -> Any:
        """A value whose declared type is an interface, as an object of the class ``name``.

        Raises:
            ResourceError: ``jni.no_class`` when it is of another class.
        """
        got = self._cast("java.lang.Object", value).getClass().getName()
        if got != self._package + name:
            raise ResourceError(
                "jni.no_class", f"got an object of {got}, expected {name}", hint=self._brings
            )
        return self._cast(got, value)

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call something of Java.

        Raises:
            NativeError: with ONNX Runtime's own text.
        """
        try:
            return function(*arguments)
        except self._exception as error:
            text = str(getattr(error, "innermessage", None) or error)
            found = _CODE.search(text)
            raise error_of(found[1] if found else "FAIL", found[2] if found else text) from error
