"""Runs a bundle's graphs under ONNX Runtime's profiler, for the roofline.

Each graph runs twice in a clip of two steps, so that its last run is a warm one; then once more
with prepacking off, whose profile alone tells the sizes of packed weights.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hummingbird_bench.peaks import Peaks
from hummingbird_bench.roofline import GraphProfile, read_profile
from hummingbird_bench.workload import Workload
from hummingbird_runtime.cancel import CancelToken
from hummingbird_runtime.manifest import DECODERS, Tensor
from hummingbird_runtime.native_options import native_options
from hummingbird_runtime.pipeline import TextToVideoPipeline
from hummingbird_runtime.session import Feeds, Session, SessionOptions
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.signature import declared_tensor


class ProfilingBackend:
    """Opens graphs with the profiler on; each leaves ``ROLE.json`` in a folder when closed.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Open one graph file of a verified bundle."""
        import onnxruntime as ort

        native_settings, kept = native_options(ort, options)
        native_settings.enable_profiling = True
        native_settings.profile_file_prefix = os.fspath(self._folder / path.parent.name)
        native = ort.InferenceSession(
            os.fspath(path.absolute()),
            native_settings,
            providers=list(options.providers),
            disabled_optimizers=list(options.settings.disabled_optimizers),
        )
        return _ProfiledSession(native, self._folder / f"{path.parent.name}.json", kept)


class _ProfiledSession:
    """A graph held by ONNX Runtime with its profiler on; it cannot be cancelled within a run."""

    def __init__(self, native: Any, profile: Path, kept: object) -> None:
        self._native = native
        self._profile = profile
        self._kept = kept
        self.inputs: tuple[Tensor, ...] = tuple(map(declared_tensor, native.get_inputs()))
        self.outputs: tuple[Tensor, ...] = tuple(map(declared_tensor, native.get_outputs()))

    def run(self, feeds: Feeds, *, cancel: CancelToken | None = None) -> dict[str, Any]:
        """Run the graph."""
        values = self._native.run(None, dict(feeds))
        return {tensor.name: v for tensor, v in zip(self.outputs, values, strict=True)}

    def close(self) -> None:
        """Write the profile and drop the graph; closing twice is fine."""
        if self._native is not None:
            os.replace(self._native.end_profiling(), self._profile)
        self._native = self._kept = None


def profile_clip(work: Workload, peaks: Peaks) -> tuple[GraphProfile, ...]:
    """Profiles of the U-Net and of the decoder of one workload of our own runtime.

    Args:
        work: sizes, threads and bundle; two steps are run.
        peaks: of this machine at as many threads.

    Raises:
        HummingbirdError: as ``TextToVideoPipeline``.
    """
    roles = ("unet", DECODERS[work.decoder])
    folder = Path(tempfile.mkdtemp(prefix="hummingbird-profile-"))
    try:
        for name, packed in (("timed", None), ("unpacked", False)):
            (folder / name).mkdir()
            settings = SessionSettings(prepacking=packed)
            with TextToVideoPipeline.from_pretrained(
                work.bundle,
                threads=work.threads,
                backend=ProfilingBackend(folder / name),
                session_settings=settings,
            ) as pipe:
                precisions = {role: pipe.bundle.graph(role).precision for role in roles}
                for _ in range(2):
                    pipe(
                        work.prompt,
                        num_frames=work.frames,
                        height=work.height,
                        width=work.width,
                        num_inference_steps=min(work.steps, 2),
                        seed=work.seed,
                        decoder="tiny" if work.decoder == "tiny" else "full",
                        output_type="np",
                    )
        size = f"{work.frames} frames of {work.height} × {work.width}"
        found = []
        for role in roles:
            what = f"{size}, {precisions[role]}"
            seconds, operators = read_profile(
                folder / "timed" / f"{role}.json", folder / "unpacked" / f"{role}.json"
            )
            found.append(GraphProfile(role, what, seconds, peaks, operators))
        return tuple(found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
