"""The face of the runtime: a sentence in, a clip out.

Here a bundle is opened, a call is checked, and one run at a time is let through. The run itself is
in ``generation``, its stages in ``stages``, the solvers in ``sampler``.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from typing import Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray

from hummingbird_runtime.arguments import whole_number
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.checkpoint import Checkpoint, refuse_shared
from hummingbird_runtime.events import Done, Event, Warning
from hummingbird_runtime.generation import generate
from hummingbird_runtime.graphs import GraphPool
from hummingbird_runtime.memory_plan import Plan
from hummingbird_runtime.one_run import OneRun
from hummingbird_runtime.opening import OpenOptions, open_parts
from hummingbird_runtime.planner import Planner
from hummingbird_runtime.request import Options, Request, check_request
from hummingbird_runtime.tokenizer import Tokenizer
from hummingbird_runtime.video import Video


class TextToVideoPipeline:
    """Draws clips with one bundle. ``from_pretrained`` makes one; ``close`` or ``with`` ends it.

    One run at a time: a second one meanwhile gets ``runtime.busy``. After any failure the
    pipeline is ready for the next call.

    Args:
        bundle: verified bundle.
        graphs: its graphs, none of them open yet.
        tokenizer: its tokenizer.
        memory_limit: as ``from_pretrained``.
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: GraphPool,
        tokenizer: Tokenizer,
        *,
        memory_limit: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.tokenizer = tokenizer
        self.graphs = graphs
        self._one_run = OneRun()
        self._planner = Planner(bundle, graphs, limit=memory_limit)

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        memory_limit: int | None = None,
        preload: bool = True,
        **options: Unpack[OpenOptions],
    ) -> TextToVideoPipeline:
        """Verify a bundle and open its graphs.

        Args:
            path: bundle folder; None is the built-in bundle, which draws simple moving shapes.
            memory_limit: bytes that this process may hold in all; None asks the system. What a
                plan says will not fit is refused, on the CPU provider.
            preload: open the graphs that every run needs now; False leaves it to ``load``, or
                to the first call.
            **options: providers, threads, memory and style, see ``opening.OpenOptions``.

        Raises:
            InputError, IntegrityError, ResourceError: ``bundle.*``, ``provider.*``,
                ``tokenizer.invalid``, ``adapter.*``, ``memory.not_enough``.
            UsageError: ``provider.*``, ``session.threads``, ``request.type``.
        """
        pipe = cls(*open_parts(path, **options), memory_limit=memory_limit)
        if preload:
            pipe.load()
        return pipe

    def load(self) -> None:
        """Open the graphs that every run needs, those not open yet; for ``preload=False``.

        Raises:
            HummingbirdError: as ``from_pretrained``.
        """
        if self.graphs.on_cpu:
            self._planner.require_open()
        self.graphs.preload()

    def plan(
        self,
        prompt: str | None = None,
        *,
        available: int | None = None,
        **options: Unpack[Options],
    ) -> Plan:
        """What a call would hold in memory, stage by stage, and whether it fits; draws nothing.

        Args:
            prompt: changes nothing, and may be left out.
            available: bytes that the process may hold in all; None is the ``memory_limit``.
            **options: as of a call; errors too.
        """
        if prompt is None and options.get("prompt_embeds") is None:
            prompt = ""
        return self._planner.plan(self._check(prompt, options)[0], available=available)

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
                ``runtime.decoder_shape``, ``runtime.upscaler_shape``, ``resource.memory``,
                ``memory.not_enough``, ``checkpoint.*``.
        """
        if not isinstance(prompt, list | tuple):
            return _result(self.stream(prompt, **options))
        refuse_shared(options.get("checkpoint"), len(prompt))
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

        The arguments and the memory are checked at once, the work starts with the first ``next``.
        Closing the generator cancels the run. A ``checkpoint`` is deleted when the stream is taken
        past ``Done``. Arguments and errors are those of ``pipe(prompt, ...)``.
        """
        request, warnings = self._check(prompt, options)
        plan = (self._planner.require if self.graphs.on_cpu else self._planner.plan)(request)
        path, style = options.get("checkpoint"), self.graphs.style
        cancel = options.get("cancel") or CancelToken()
        run = generate(
            self.bundle,
            self.graphs,
            self.tokenizer,
            request,
            warnings=warnings,
            cancel=cancel,
            on_step=options.get("callback_on_step_end"),
            decode_chunk=plan.decode_chunk,
            checkpoint=None if path is None else Checkpoint(path, request, self.bundle, style),
        )
        return self._one_run.guard(run, cancel)

    def _check(self, prompt: object, options: Options) -> tuple[Request, tuple[Warning, ...]]:
        return check_request(
            self.bundle.manifest.model,
            self.bundle.scheduler,
            prompt=prompt,
            graphs=self.bundle.manifest.graphs,
            options=options,
        )

    def close(self) -> None:
        """Cancel a run that is under way, wait for its current graph, free the graphs."""
        self._one_run.cancel()
        self.graphs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _result(events: Generator[Event, None, None]) -> Video | NDArray[np.float32]:
    """Run to the end, past ``Done``, and give back what it carries."""
    with closing(events):
        (result,) = (event.video for event in events if isinstance(event, Done))
        return result
