"""One graph while it is open, seen as a function of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.errors import ExecutionError
from hummingbird_runtime.session import Session


class Graph:
    """One open graph; cancelled before and during each run.

    Args:
        role: its name in messages.
        session: the open session.
        cancel: stops it.
    """

    def __init__(self, role: str, session: Session, cancel: CancelToken) -> None:
        self._role = role
        self._session = session
        self._cancel = cancel
        self._inputs = {tensor.name: tensor for tensor in session.inputs}

    def __call__(self, what: str, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The graph's one output as float32.

        Args:
            what: what is computed, for the message of an error.
            feeds: arrays by input name; converted to the graph's own number types.

        Raises:
            Cancelled: ``runtime.cancelled``.
            ExecutionError: ``numeric.non_finite`` when the output holds NaN or infinities.
        """
        self._cancel.raise_if_cancelled()
        typed = {
            name: np.asarray(array, self._inputs[name].dtype if name in self._inputs else None)
            for name, array in feeds.items()
        }
        outputs = self._session.run(typed, cancel=self._cancel)
        self._cancel.raise_if_cancelled()
        output = np.asarray(outputs[self._session.outputs[0].name], np.float32)
        require_finite(f"{what} ({self._role})", output)
        return output

    def fixed_first_size(self, name: str) -> int | None:
        """The one length that an input takes along its first axis; None where it is free."""
        dims = self._inputs[name].dims if name in self._inputs else ()
        return dims[0] if dims and isinstance(dims[0], int) else None


def require_finite(what: str, array: NDArray[np.float32]) -> None:
    """Refuse NaN and infinities.

    Raises:
        ExecutionError: ``numeric.non_finite``, naming ``what``.
    """
    if not np.isfinite(array).all():
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        raise ExecutionError(
            "numeric.non_finite",
            f"{what}: got {bad} of {array.size} values NaN or infinite, expected finite numbers",
            hint="use a bundle with float32 weights and a guidance scale inside the trained range",
        )
