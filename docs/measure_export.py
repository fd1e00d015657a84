"""Seconds and peak memory of exporting published-size U-Nets in float32: write, save, verify.

    python docs/measure_export.py [07b:portable 07b:cpu vc2:portable]

Each row is a process of its own: weights from a safetensors file (random ones, made first and not
timed), the graph written, saved with its data, run by ONNX Runtime in a child process and compared
with torch at 4x16x16 and 8x24x32 latents, in the target's fewest frames at least.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = ("07b:portable", "07b:cpu", "vc2:portable")


def main() -> None:
    """Run every row."""
    if sys.argv[1:2] == ["row"]:
        row(sys.argv[2], Path(sys.argv[3]))
        return
    print("| U-Net, target | seconds | peak GB, exporter | peak GB, child |")
    print("|---|---|---|---|", flush=True)
    for name in sys.argv[1:] or ROWS:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            for stage in ("weights", "row"):
                command = [sys.executable, __file__, stage, name, folder]
                if stage == "weights":
                    command = [sys.executable, "-c", WEIGHTS, name.partition(":")[0], folder]
                subprocess.run(command, check=True)


WEIGHTS = """
import sys
from pathlib import Path
from hummingbird_export.random_models import preset, random_unet
from hummingbird_train.models.weights import save_model
unet = random_unet(preset(sys.argv[1]).unet, seed=0)
save_model(Path(sys.argv[2], "unet.safetensors"), unet, unet.config)
"""


def row(name: str, folder: Path) -> None:
    """Export one U-Net from its weights."""
    start = time.perf_counter()
    import numpy as np

    from hummingbird_export.compile import Job, compile_graph
    from hummingbird_export.facts import narrow
    from hummingbird_export.random_models import preset
    from hummingbird_export.simplify import Simplifier
    from hummingbird_export.targets import find_target
    from hummingbird_export.wrappers import unet_graph
    from hummingbird_runtime.manifest import Graph, ModelFacts
    from hummingbird_runtime.probe_cases import CONTEXT, probe_cases
    from hummingbird_runtime.strict_json import record
    from hummingbird_train.models.unet import VideoUNet
    from hummingbird_train.models.weights import load_model

    config, _, target_name = name.partition(":")
    target, size = find_target(target_name), (26, 40, 64)
    unet = load_model(folder / "unet.safetensors")
    assert isinstance(unet, VideoUNet)
    shapes = preset(config)
    table = dict(
        shapes.facts,
        latent_channels=4,
        vae_scale_factor=8,
        timestep_cond_dim=unet.config.time_cond_proj_dim,
        scaling_factor=0.18215,
        latent_rgb=[[0.0] * 5] * 3,
    )
    for side in ("height", "width"):
        table[side] = {"multiple_of": 64, **table[side]}
    facts = record(ModelFacts, table, "facts")
    fewest = target.form_for(unet.config, size).fewest_frames
    module, signature = unet_graph(unet, tokens=77)
    draft = Graph("unet/model.onnx", 18, signature.inputs, signature.outputs, ())
    facts = narrow(facts, {}, fewest_frames=fewest)
    probes = probe_cases("unet", draft, facts, tokens=77, vocabulary=49408)
    bundle = folder / "bundle"
    bundle.mkdir()
    job = Job(bundle, target, Simplifier(), "00000000-0000-4000-8000-000000000000", size)
    embedding = np.random.default_rng(0).standard_normal((1, 77, 1024), np.float32)
    arrays = {CONTEXT: embedding}
    compiled = compile_graph(job, unet, module, signature, "fp32", probes=probes, arrays=arrays)
    seconds = time.perf_counter() - start
    own, child = (
        resource.getrusage(who).ru_maxrss * 1024 / 1e9
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(f"| {config}, {target_name} | {seconds:.1f} | {own:.2f} | {child:.2f} |", flush=True)
    error = compiled.graph.parity["relative_l2"]
    print(f"relative L2 error {error:.1e}, {len(compiled.model.graph)} nodes", file=sys.stderr)


if __name__ == "__main__":
    main()
