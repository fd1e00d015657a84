"""The memory planner: figures of the system, counts of graphs, plans, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors_file
import styled_bundle
import tiny_bundle
from fake_graphs import PROMPT, FakeBackend, pipeline

from hummingbird_runtime import TextToVideoPipeline, builtin_bundle, graph_memory, system_memory
from hummingbird_runtime.bundle import Bundle
from hummingbird_runtime.cli import main
from hummingbird_runtime.errors import HummingbirdError, ResourceError
from hummingbird_runtime.events import Frames
from hummingbird_runtime.facts import Side
from hummingbird_runtime.graph_memory import Latent, run_bytes, unet_floats, weights
from hummingbird_runtime.manifest_entries import FileEntry
from hummingbird_runtime.memory_plan import Plan, StageMemory, shown
from hummingbird_runtime.network_shapes import DecoderShape, UNetShape, decoder_shape, unet_shape
from hummingbird_runtime.session_settings import SessionSettings
from hummingbird_runtime.system_memory import Memory, read_memory

MIB = 1 << 20
linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the files of Linux")


def fake_root(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


PROC = {
    "proc/self/statm": "50000 10000 5000 1 0 20000 0\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemFree: 10 kB\nMemAvailable: 2000000 kB\n",
}


@linux
def test_the_system_says_what_is_held_and_free(tmp_path: Path) -> None:
    memory = read_memory(root=fake_root(tmp_path, PROC))
    import resource

    assert memory.held == 10000 * resource.getpagesize()
    assert (memory.free, memory.limit) == (2_000_000 << 10, "system")
    assert memory.available == memory.held + memory.free * 9 // 10


@linux
@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        (
            "0::/app/job\n",
            {
                "sys/fs/cgroup/app/job/memory.max": "max\n",
                "sys/fs/cgroup/app/job/memory.current": "1\n",
                "sys/fs/cgroup/app/memory.max": f"{300 * MIB}\n",
                "sys/fs/cgroup/app/memory.current": f"{200 * MIB}\n",
                "sys/fs/cgroup/app/memory.stat": f"anon 1\ninactive_file {50 * MIB}\n",
            },
        ),
        (
            "5:cpu,cpuacct:/\n4:memory:/job\n",
            {
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{300 * MIB}\n",
                "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{200 * MIB}\n",
                "sys/fs/cgroup/memory/job/memory.stat": f"total_inactive_file {50 * MIB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
            },
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_the_tightest_group_counts(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    root = fake_root(tmp_path, {**PROC, "proc/self/cgroup": cgroup, **files})
    memory = read_memory(root=root)
    assert (memory.free, memory.limit) == (150 * MIB, "control group")


@linux
def test_a_limit_of_the_process_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    root, page = fake_root(tmp_path, PROC), resource.getpagesize()
    for name, what, used in (("AS", "address space", 50000), ("DATA", "data segment", 20000)):
        limit = used * page + 100 * MIB
        monkeypatch.setattr(
            system_memory, "_process_limit", lambda n, m=limit, k=name: m if n.endswith(k) else None
        )
        memory = read_memory(root=root)
        assert (memory.free, memory.limit) == (100 * MIB, what)
        assert memory.available == memory.held + 75 * MIB


@linux
@pytest.mark.parametrize(
    "files", [{}, {"proc/meminfo": "nonsense"}, {"proc/self/statm": "", "proc/self/cgroup": "x"}]
)
def test_what_is_not_told_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    memory = read_memory(root=fake_root(tmp_path, files))
    assert memory.free is None
    assert memory.available is None


def test_this_machine_tells() -> None:
    memory = read_memory()
    assert memory.held is not None
    assert 1 * MIB < memory.held < 1 << 40
    system_memory.trim_heap()


def test_the_built_in_shapes_are_read() -> None:
    bundle = Bundle.open(builtin_bundle())
    config = json.loads((builtin_bundle() / "unet" / "config.json").read_text())
    shape = unet_shape(bundle)
    assert shape.model_channels == config["model_channels"]
    assert shape.channel_mult == tuple(config["channel_mult"])
    decoder = decoder_shape(bundle, "vae_decoder")
    assert decoder == DecoderShape((160,), 8, blocks="patch", attention=False)


@pytest.mark.parametrize(
    "config",
    [None, b"[]", b"{", b'{"model_channels": -1}', b'{"model_channels": 64, "channel_mult": 1}'],
)
def test_a_network_without_a_readable_shape_is_judged_by_its_weights(
    tmp_path: Path, config: bytes | None
) -> None:
    content = tiny_bundle.files()
    if config is not None:
        content["unet/config.json"] = config
    bundle = Bundle.open(tiny_bundle.write(tmp_path / "bundle", content))
    shape = unet_shape(bundle)
    assert shape.channel_mult == UNetShape().channel_mult
    assert shape.model_channels == 1  # of a few KB
    assert decoder_shape(bundle, "vae_decoder").widths == (1, 1, 1, 1)


def published(precision: str, graph: int, beside: int) -> SimpleNamespace:
    """What the planner reads of a bundle with the published 0.7 B U-Net, target cpu."""
    files = {"unet/model.onnx": graph, "unet/model.onnx_data": beside}
    entry = dataclasses.replace(tiny_bundle.graphs()["unet"], precision=precision)
    size = {"trained": 320, "multiple_of": 64, "allowed": (64, 1024)}
    facts = tiny_bundle.facts(
        frames=dataclasses.replace(tiny_bundle.facts().frames, default=26, allowed=(1, 104)),
        height=Side(default=320, **size),
        width=Side(default=512, **size),
    )
    manifest = SimpleNamespace(
        files={name: FileEntry("0" * 64, count) for name, count in files.items()},
        graphs={"unet": entry},
        target="cpu",
        model=facts,
    )
    return SimpleNamespace(manifest=manifest, graph=lambda role: entry)


@pytest.mark.parametrize(
    ("precision", "graph", "beside", "measured"),
    [("int8", 1_388_465, 788_148_736, 1.73e9), ("fp32", 844_719, 3_103_720_192, 3.86e9)],
)
def test_the_published_sizes_agree_with_what_was_measured(
    precision: str, graph: int, beside: int, measured: float
) -> None:
    """Peaks of a process at 26 x 40 x 64 in docs/log.md; 70 MB of them are Python and libraries."""
    bundle = published(precision, graph, beside)
    predicted = 70e6 + weights(bundle, "unet", SessionSettings())[1]
    predicted += run_bytes(bundle, "unet", Latent(26, 40, 64), 26)
    assert predicted == pytest.approx(measured, rel=0.1)


def test_weights_left_in_the_file_are_counted_once() -> None:
    bundle, lean = published("int8", 1_000_000, 800_000_000), SessionSettings(prepacking=False)
    packed, mapped = (weights(bundle, "unet", s)[1] for s in (SessionSettings(), lean))
    assert mapped < packed < 1.3 * mapped
    halves = published("fp16-storage", 1_000_000, 800_000_000)
    assert weights(halves, "unet", SessionSettings())[1] > 1_600_000_000  # read back to float32


def test_runs_grow_with_the_clip_and_shrink_with_pieces() -> None:
    shape, bundle = UNetShape(), published("fp32", 1, 1)
    base = unet_floats(shape, bundle, Latent(26, 40, 64))
    assert unet_floats(shape, bundle, Latent(52, 40, 64)) == pytest.approx(2 * base, rel=0.01)
    assert unet_floats(shape, bundle, Latent(26, 40, 128)) > 1.9 * base
    by_target = {}
    for target in ("cpu-lowmem", "cpu", "web", "portable"):
        bundle.manifest.target = target
        by_target[target] = unet_floats(shape, bundle, Latent(26, 40, 64))
    assert by_target["cpu-lowmem"] < by_target["cpu"] < by_target["web"] < by_target["portable"]
    # all pairs of 2560 cells, in 5 heads of 26 frames, twice: scores and their softmax
    assert by_target["portable"] > 2 * 26 * 5 * 2560**2


def test_every_target_of_the_exporter_is_known() -> None:
    targets = pytest.importorskip("hummingbird_export.targets")
    for target in targets.TARGETS:
        piece = targets.LARGEST_PIECE[target.chunks]
        known = graph_memory.LARGEST_PIECE.get(target.name)
        assert known == (None if target.chunks == "none" else piece), target.name
        assert (target.form == "cpu") == (target.name in graph_memory.FUSED), target.name


def planner(bundle: Path, kept: tuple[str, ...] = ()) -> TextToVideoPipeline:
    return TextToVideoPipeline.from_pretrained(bundle, backend=FakeBackend(), low_memory=not kept)


def test_a_plan_lists_the_stages_of_the_whole_process(tiny_bundle_path: Path) -> None:
    with planner(tiny_bundle_path) as pipe:
        plan = pipe.plan()
        assert [stage.name for stage in plan.stages] == ["text", "denoise", "decode"]
        assert plan.peak_bytes == max(stage.bytes for stage in plan.stages)
        assert plan.worst.bytes == plan.peak_bytes
        assert plan.peak_bytes > read_memory().held / 2
        assert plan.decode_chunk == 4
        assert pipe.plan(num_frames=2).decode_chunk == 2
        latent = pipe.plan(output_type="latent")
        assert [stage.name for stage in latent.stages] == ["text", "denoise"]


def test_more_of_anything_never_takes_less() -> None:
    with TextToVideoPipeline.from_pretrained(backend=FakeBackend(), preload=False) as pipe:
        clips = [{"num_frames": n} for n in (1, 8, 26, 104)]
        clips += [{"height": side, "width": side, "num_frames": 104} for side in (64, 96, 128)]
        peaks = [pipe.plan(**clip).peak_bytes for clip in clips]
        assert peaks == sorted(peaks)
        assert pipe.plan(output_type="np").peak_bytes > pipe.plan().peak_bytes
    staged = TextToVideoPipeline.from_pretrained(
        backend=FakeBackend(), preload=False, low_memory=True
    )
    assert staged.plan().peak_bytes < pipe.plan().peak_bytes


def test_less_memory_gives_smaller_chunks_then_no_fit() -> None:
    with TextToVideoPipeline.from_pretrained(
        backend=FakeBackend(), preload=False, low_memory=True
    ) as pipe:
        clip = {
            "num_frames": 104, "num_inference_steps": 1, "height": 128, "width": 128,
            "upscale": False,
        }  # fmt: skip
        wide = pipe.plan(**clip, available=1 << 40)
        assert (wide.fits, wide.decode_chunk) == (True, 26)
        # a pipeline whose decoder is what counts: the rest is left out
        pipe._planner._weights = lambda role: (0, 0)
        pipe._planner._run = lambda role, latent, frames, runs: (
            0 if role != "vae_decoder" else run_bytes(pipe.bundle, role, latent, frames)
        )
        full = pipe.plan(**clip, available=1 << 40)
        assert full.worst.name == "decode"
        chunks = []
        for available in np.linspace(full.peak_bytes, pipe._planner.base, 60).astype(int):
            plan = pipe.plan(**clip, available=int(available))
            assert plan.fits == (plan.peak_bytes <= available)
            chunks.append(plan.decode_chunk)
        assert chunks == sorted(chunks, reverse=True)
        assert set(chunks) == {26, 13, 7, 4, 2, 1}


def test_a_decoder_of_a_fixed_size_keeps_its_chunk(tmp_path: Path) -> None:
    graphs = tiny_bundle.graphs()
    tensor = dataclasses.replace(graphs["vae_decoder"].inputs[0], dims=(4, 4, "h", "w"))
    graphs["vae_decoder"] = dataclasses.replace(graphs["vae_decoder"], inputs=(tensor,))
    bundle = tiny_bundle.write(tmp_path / "fixed", graphs=graphs)
    with planner(bundle) as pipe:
        assert pipe.plan(available=1).decode_chunk == 4


def test_the_chosen_chunk_is_what_is_decoded(tiny_bundle_path: Path) -> None:
    with pipeline(tiny_bundle_path) as pipe:
        whole = pipe(PROMPT).frames
        pipe._planner._chunks = lambda request: iter([1])
        events = list(pipe.stream(PROMPT))
    assert [len(event.array) for event in events if isinstance(event, Frames)] == [1] * 6
    np.testing.assert_array_equal(events[-1].video.frames, whole)


def test_what_does_not_fit_is_refused_before_any_graph_opens(tiny_bundle_path: Path) -> None:
    backend = FakeBackend()
    pipe = TextToVideoPipeline.from_pretrained(
        tiny_bundle_path, backend=backend, preload=False, memory_limit=1_000_000
    )
    for call in (lambda: pipe.stream(PROMPT), lambda: pipe([PROMPT]), pipe.load):
        with pytest.raises(ResourceError) as caught:
            call()
        assert (caught.value.code, caught.value.exit_code) == ("memory.not_enough", 5)
        assert "got 1 MB" in caught.value.message
    assert backend.log == []


def test_the_refusal_names_a_clip_that_fits() -> None:
    with TextToVideoPipeline.from_pretrained(backend=FakeBackend(), preload=False) as pipe:
        clip = {"height": 128, "width": 128, "num_frames": 104}
        least = pipe.plan(**{**clip, "num_frames": 1}).peak_bytes
        pipe._planner._limit = (least + pipe.plan(**clip).peak_bytes) // 2
        needed = pipe.plan(**clip).peak_bytes  # in chunks as small as can be
        with pytest.raises(ResourceError) as caught:
            pipe.stream(PROMPT, **clip)
        words = caught.value.hint.split()
        frames, height, width = int(words[1]), int(words[3]), int(words[5])
        assert shown(needed) in caught.value.message
        assert 1 <= frames < 104
        assert (height, width) == (128, 128)
        assert pipe.plan(num_frames=frames, height=height, width=width).fits
        assert not pipe.plan(num_frames=frames + 1, height=height, width=width).fits
        # so little that one frame of this size is too much: smaller ones are named
        one = pipe.plan(num_frames=1, height=128, width=128).peak_bytes
        pipe._planner._limit = one - 1
        with pytest.raises(ResourceError, match=r"num_frames \d+ of (96|64|32) x"):
            pipe.stream(PROMPT, **clip)


def test_nothing_is_refused_where_nothing_is_known(
    tiny_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hummingbird_runtime.planner.read_memory", lambda: Memory(None, None))
    with pipeline(tiny_bundle_path) as pipe:
        plan = pipe.plan()
        assert (plan.available_bytes, plan.fits) == (None, True)
        assert len(pipe(PROMPT).frames) == 6


def test_plans_are_made_for_the_cpu_and_not_held_against_others(tiny_bundle_path: Path) -> None:
    with TextToVideoPipeline.from_pretrained(
        tiny_bundle_path, backend=FakeBackend(), provider="XyzExecutionProvider", memory_limit=1
    ) as pipe:
        assert not pipe.plan().fits
        assert len(pipe(PROMPT).frames) == 6


def test_bad_arguments_of_a_plan_are_those_of_a_call(tiny_bundle_path: Path) -> None:
    with pipeline(tiny_bundle_path) as pipe:
        with pytest.raises(HummingbirdError) as caught:
            pipe.plan(num_frames=1000)
        assert caught.value.code == "request.frames"
    with pytest.raises(HummingbirdError) as caught:
        TextToVideoPipeline.from_pretrained(tiny_bundle_path, memory_limit="2 GB")
    assert caught.value.code == "request.type"


def test_the_command_refuses_with_exit_5(
    tiny_bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["generate", PROMPT, "-o", str(tmp_path / "a.npz"), "--bundle", str(tiny_bundle_path)]
    assert main([*words, "-q", "--memory-limit", "1"]) == 5
    assert "error[memory.not_enough]: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_style_is_counted(tmp_path: Path) -> None:
    bundle = styled_bundle.write(tmp_path / "styled", "fp32")
    style = safetensors_file.write(
        tmp_path / "ink.safetensors", styled_bundle.factors(), styled_bundle.FORMAT
    )
    plain, styled = (
        TextToVideoPipeline.from_pretrained(bundle, preload=False, style=chosen)
        for chosen in (None, style)
    )
    data = (bundle / "unet" / "model.onnx_data").stat().st_size
    grown = styled._planner._weights("unet")[1] - plain._planner._weights("unet")[1]
    assert grown >= data > 0


def test_settings_of_the_caller_change_the_plan() -> None:
    """The second run of a graph takes its peak twice where memory patterns are on."""

    def run(**options) -> int:
        pipe = TextToVideoPipeline.from_pretrained(preload=False, **options)
        return pipe._planner._run("unet", Latent(26, 8, 8), 26, 4)

    off = SessionSettings(memory_pattern=False)
    assert run() == 2 * run(session_settings=off)
    assert run(low_memory=True) == run(session_settings=off)
    on = SessionSettings(memory_pattern=True)
    assert run(low_memory=True, session_settings=on) == run()


def test_a_plan_reads_well() -> None:
    plan = Plan((StageMemory("text", 5), StageMemory("denoise", 9)), 9, 8, 1)
    assert (plan.fits, plan.worst.name) == (False, "denoise")
    assert (shown(1_730_000_000), shown(139_400_000)) == ("1.73 GB", "139 MB")
