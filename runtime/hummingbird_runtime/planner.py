"""The memory of a clip before it is drawn: what each stage will hold, and whether it fits.

A stage holds what the process held before its graphs were opened, the open graphs, what earlier
runs left in their arenas, and one run at its worst moment. All figures are of the whole process.
The count of one graph is in graph_memory.py, what the system grants in system_memory.py.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from hummingbird_runtime import graph_memory
from hummingbird_runtime.arguments import whole_number
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.errors import ResourceError
from hummingbird_runtime.fixed_sizes import fixed_axes
from hummingbird_runtime.graph_memory import Latent
from hummingbird_runtime.graphs import GraphPool
from hummingbird_runtime.manifest import UPSCALE, UPSCALER
from hummingbird_runtime.memory_plan import Plan, StageMemory, shown, what_fits
from hummingbird_runtime.network_shapes import graph_bytes
from hummingbird_runtime.request import Request
from hummingbird_runtime.stages import UPSCALE_CHUNK
from hummingbird_runtime.system_memory import read_memory

__all__ = ["Plan", "Planner", "StageMemory"]

LIBRARIES = 22_000_000
"""Bytes that importing ONNX Runtime adds."""
FIRST_SESSION = 10_000_000
"""Bytes of ONNX Runtime's code that the first session touches."""


class Planner:
    """Plans the runs of one pipeline. Make it before the graphs are opened.

    Args:
        bundle: what draws.
        graphs: how its graphs are opened, which of them stay open, and the style.
        limit: bytes that the process may hold in all; None asks the system at every plan.
    """

    def __init__(
        self,
        bundle: Bundle,
        graphs: GraphPool,
        *,
        limit: int | None = None,
    ) -> None:
        self._bundle, self._graphs, self._kept = bundle, graphs, graphs.kept
        self._limit = None if limit is None else whole_number("memory_limit", limit)
        held = read_memory().held or 0
        libraries = 0 if "onnxruntime" in sys.modules else LIBRARIES
        self.base = held + libraries + FIRST_SESSION
        """Bytes of the process without any graph."""

    def available(self) -> int | None:
        """What the process may hold in all, now."""
        return read_memory().available if self._limit is None else self._limit

    def plan(self, request: Request, *, available: int | None = None) -> Plan:
        """Predict a run.

        Args:
            request: checked.
            available: bytes that the process may hold in all; None asks the system.
        """
        there = self.available() if available is None else available
        for chunk in self._chunks(request):
            stages = tuple(self._stages(request, chunk))
            plan = Plan(stages, max(stage.bytes for stage in stages), there, chunk)
            # a smaller chunk helps only where decoding is what does not fit
            if plan.fits or plan.worst.name != "decode":
                return plan
        return plan

    def require(self, request: Request) -> Plan:
        """The plan of a run that fits.

        Raises:
            ResourceError: ``memory.not_enough``, with what is needed, what there is, and what of
                this kind would fit.
        """
        plan = self.plan(request)
        if not plan.fits:
            raise self._not_enough(plan, request)
        return plan

    def require_open(self) -> None:
        """Refuse to open the graphs that stay open where they do not fit.

        Raises:
            ResourceError: ``memory.not_enough``.
        """
        there, needed, opened = self.available(), self.base, self.base
        for role in self._kept:
            opening, stays = self._weights(role)
            needed = max(needed, opened + opening)
            opened += stays
        if there is not None and max(needed, opened) > there:
            raise ResourceError(
                "memory.not_enough",
                f"opening the graphs: needs about {shown(max(needed, opened))}, got {shown(there)}",
                hint="open with low_memory=True, use a smaller bundle, or close other programs",
            )

    def _chunks(self, request: Request) -> Iterator[int]:
        chunk = self._bundle.manifest.model.decode_chunk
        if self._fixed(request.decoder, "latent_sample"):
            yield chunk
            return
        chunk = min(chunk, request.num_frames)
        while chunk > 1:
            yield chunk
            chunk = -(-chunk // 2)
        yield 1

    def _fixed(self, role: str, name: str) -> int:
        return fixed_axes(self._bundle.graph(role), name, "N").get("N", 0)

    def _weights(self, role: str) -> tuple[int, int]:
        opening, stays = graph_memory.weights(self._bundle, role, self._graphs.settings(role))
        if self._graphs.style is not None and self._graphs.style.role == role:
            merged = sum(graph_bytes(self._bundle, role))
            opening, stays = opening + merged, stays + merged
        return opening, stays

    def _run(self, role: str, latent: Latent, frames: int, runs: int) -> int:
        """One run of a graph; a second of equal sizes adds the block that patterns ask for."""
        taken = graph_memory.run_bytes(self._bundle, role, latent, frames)
        patterns = self._graphs.settings(role).memory_pattern is not False
        return 2 * taken if patterns and runs > 1 else taken

    def _stages(self, request: Request, chunk: int) -> Iterator[StageMemory]:
        facts = self._bundle.manifest.model
        cell = facts.vae_scale_factor
        rows, columns = request.height // cell, request.width // cell
        latent = Latent(request.num_frames, rows, columns)
        passes = 2 if facts.guidance.kind == "cfg" else 1
        arrays = 48 * facts.latent_channels * request.num_frames * rows * columns
        runs = {
            "text": [("text_encoder", latent, 1, passes)],
            "denoise": [("unet", latent, 1, passes * request.num_inference_steps)],
        }
        pixels = request.height * request.width
        if request.output_type != "latent":
            chunks = -(-request.num_frames // chunk)
            runs["decode"] = [(request.decoder, latent, chunk, chunks)]
            if request.upscale:
                part = self._fixed(UPSCALER, "sample") or UPSCALE_CHUNK
                size = Latent(request.num_frames, request.height, request.width)
                runs["decode"].append((UPSCALER, size, part, request.num_frames))
        held = self.base + sum(self._weights(role)[1] for role in self._kept)
        for name, graphs in runs.items():
            new = [role for role, *_ in graphs if role not in self._kept]
            stays = sum(self._weights(role)[1] for role in new)
            opening = stays + max((o - s for o, s in map(self._weights, new)), default=0)
            taken = sum(self._run(*run) for run in graphs)
            if name == "decode":
                scale = UPSCALE**2 if request.upscale else 1
                clip = 3 * scale * pixels * request.num_frames
                arrays += clip * (5 if request.output_type == "np" else 1)
                shown_at_once = max(chunk, scale * UPSCALE_CHUNK if request.upscale else 0)
                arrays += 30 * pixels * shown_at_once
            yield StageMemory(name, held + max(opening, stays + taken) + arrays)
            if self._kept:
                held += stays + taken  # arenas keep what they have

    def _not_enough(self, plan: Plan, request: Request) -> ResourceError:
        smaller = what_fits(self.plan, request, self._bundle.manifest.model)
        hint = smaller or "use a smaller bundle, or close other programs"
        if self._kept:
            hint += "; low_memory=True opens one graph at a time"
        size = f"{request.num_frames} frames of {request.height} x {request.width}"
        return ResourceError(
            "memory.not_enough",
            f"{size}: needs about {shown(plan.peak_bytes)} ({plan.worst.name}), "
            f"got {shown(plan.available_bytes or 0)}",
            hint=hint,
        )
