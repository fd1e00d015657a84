"""The face of the runtime: a sentence in, a clip out.

Here a bundle is opened, a call is checked, and one run at a time is let through. The run itself is
in ``generation``, its stages in ``stages``, the solvers in ``sampler``.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.adapters import open_style
from hummingbird_runtime.arguments import whole_number
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.events import Done, Event
from hummingbird_runtime.generation import generate
from hummingbird_runtime.graphs import GraphPool
from hummingbird_runtime.one_run import OneRun
from hummingbird_runtime.providers import session_options_from
from hummingbird_runtime.request import Options, check_request
from hummingbird_runtime.session import OnnxRuntimeBackend, SessionBackend
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_runtime.video import Video


class TextToVideoPipeline:
    """Draws clips with one bundle. ``from_pretrained`` makes one; ``close`` or ``with`` ends it.

    One run at a time: a second one meanwhile gets ``runtime.busy``. After any failure the
    pipeline is ready for the next call.

    Args:
        bundle: verified bundle.
        graphs: its graphs.
        tokenizer: its tokenizer.
    """

    def __init__(self, bundle: Bundle, graphs: GraphPool, tokenizer: Tokenizer) -> None:
        self.bundle = bundle
        self.tokenizer = tokenizer
        self._graphs = graphs
        self._one_run = OneRun()

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        provider: str | None = None,
        providers: Sequence[str] | None = None,
        provider_options: Mapping[str, Any] | None = None,
        session_options: Mapping[str, str] | None = None,
        session_settings: SessionSettings | None = None,
        threads: int | None = None,
        backend: SessionBackend | None = None,
        low_memory: bool | None = None,
        style: str | os.PathLike[str] | None = None,
        style_strength: float = 1.0,
        preload: bool = True,
    ) -> TextToVideoPipeline:
        """Verify a bundle and open its graphs.

        Args:
            path: bundle folder; None is the built-in bundle, which draws simple moving shapes.
            provider: one execution provider of ONNX Runtime; None is the CPU.
            providers: several, in order of preference; excludes ``provider``.
            provider_options: options by provider name, or of ``provider`` alone.
            session_options: extra session configuration entries of ONNX Runtime.
            session_settings: memory and optimization settings that win over the bundle's own.
            threads: threads of one run; None lets ONNX Runtime choose.
            backend: opens graphs; None is the onnxruntime package.
            low_memory: hold one graph at a time, at the price of opening them in every call; None
                does so for bundles of more than 512 MiB.
            style: a style of the bundle by name, or an adapter file; merged into the U-Net.
            style_strength: -10..10; 0 is the U-Net as it is, 1 the style as trained.
            preload: open the graphs that every run needs now; False leaves it to ``load``, or
                to the first call.

        Raises:
            InputError, IntegrityError, ResourceError: ``bundle.*``, ``provider.*``,
                ``tokenizer.invalid``, ``adapter.*``.
            UsageError: ``provider.*``, ``session.threads``, ``request.type``.
        """
        options = session_options_from(
            provider=provider,
            providers=providers,
            provider_options=provider_options,
            session_options=session_options,
            session_settings=session_settings,
            threads=threads,
        )
        bundle = Bundle.open(path)
        tokenizer = Tokenizer.from_files(bundle.folder("tokenizer"))
        graphs = GraphPool(
            bundle,
            backend or OnnxRuntimeBackend(),
            options,
            low_memory=low_memory,
            style=None if style is None else open_style(bundle, style, style_strength),
        )
        if preload:
            graphs.preload()
        return cls(bundle, graphs, tokenizer)

    def load(self) -> None:
        """Open the graphs that every run needs, those not open yet; for ``preload=False``.

        Raises:
            HummingbirdError: as ``from_pretrained``.
        """
        self._graphs.preload()

    def __call__(
        self, prompt: str | list[str] | tuple[str, ...] | None = None, **options: Unpack[Options]
    ) -> Any:
        """Draw a clip, or one for each of several prompts.

        Args:
            prompt: a sentence, or a list of them, drawn in order with seeds seed, seed + 1, ..
            **options: see ``request.Options``; None everywhere is the bundle's default.

        Returns:
            A ``Video``; float32 frames [F, H, W, 3] in 0..1 for output_type ``np``, upscaled as the
            video's are; the float32 latent [1, C, F, h, w] for ``latent``; a list of them for a
            list of prompts.

        Raises:
            HummingbirdError: ``request.*`` and ``prompt.*`` before any work; ``runtime.busy``,
                ``runtime.closed``, ``runtime.cancelled``, ``numeric.non_finite``,
                ``runtime.decoder_shape``, ``runtime.upscaler_shape``, ``resource.memory``.
        """
        if not isinstance(prompt, list | tuple):
            return _result(self.stream(prompt, **options))
        seed = options.get("seed")
        first = 0 if seed is None else whole_number("seed", seed)
        calls: list[Options] = [{**options, "seed": first + i} for i in range(len(prompt))]
        # every call is checked here, before the first of them runs
        runs = [self.stream(text, **call) for text, call in zip(prompt, calls, strict=True)]
        return [_result(run) for run in runs]

    def stream(
        self, prompt: str | None = None, **options: Unpack[Options]
    ) -> Generator[Event, None, None]:
        """Draw one clip and yield what happens, see ``events``; the last event is ``Done``.

        The arguments are checked at once, the work starts with the first ``next``. Closing the
        generator cancels the run. Arguments and errors are those of ``pipe(prompt, ...)``.
        """
        request, warnings = check_request(
            self.bundle.manifest.model,
            self.bundle.scheduler,
            prompt=prompt,
            graphs=self.bundle.manifest.graphs,
            options=options,
        )
        cancel = options.get("cancel") or CancelToken()
        run = generate(
            self.bundle,
            self._graphs,
            self.tokenizer,
            request,
            warnings=warnings,
            cancel=cancel,
            on_step=options.get("callback_on_step_end"),
        )
        return self._one_run.guard(run, cancel)

    def close(self) -> None:
        """Cancel a run that is under way, wait for its current graph, free the graphs."""
        self._one_run.cancel()
        self._graphs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _result(events: Generator[Event, None, None]) -> Video | NDArray[np.float32]:
    """Run to the end and give back what ``Done`` carries."""
    with closing(events):
        return next(event.video for event in events if isinstance(event, Done))
