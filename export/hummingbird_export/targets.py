"""Targets as data: for which machine a bundle is made, and what that asks of its graphs.

Form and chunks choose how the U-Net is written (lowering), precision and sizes what is exported,
operators and limits what is refused, settings how the runtime opens each graph. Nothing here needs
the machine. docs/targets.md gives the reasons.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import Literal

from hummingbird_export.lowering.form import PORTABLE, Form
from hummingbird_runtime.errors import UsageError
from hummingbird_runtime.manifest import Precision, SessionSettings
from hummingbird_runtime.operators import ALLOWED_OPERATORS
from hummingbird_train.models.unet import UNetConfig

OPSET = 18
"""Of every target: the newest that all providers read."""

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes of one ``model.onnx``, everywhere; weights beyond it are external."""

STANDARD = frozenset(op for op in ALLOWED_OPERATORS if op.startswith("ai.onnx:"))
"""Operators of the ONNX standard that the runtime takes."""

NBITS = frozenset({"com.microsoft:MatMulNBits"})
"""What weight-only 4 and 8 bit matrices need."""

CPU_PROVIDER = "CPUExecutionProvider"

LARGEST_PIECE = {
    "none": 2**62,
    "cpu": 90_000_000,
    "cpu-lowmem": 26_000_000,
    "gpu": 2**29,
    "web": 2**27,
}
"""Bytes of the largest activation inside a block of the U-Net, by how it is cut."""

FLOATS: tuple[Precision, ...] = ("fp32", "fp16-storage")
QUANTIZED: tuple[Precision, ...] = ("int8", "int8-dynamic", "w8", "w4", "mixed")


@dataclass(frozen=True)
class IoTypes:
    """Number formats of a graph's inputs and outputs."""

    floats: Literal["float32", "float16"] = "float32"
    """Latents, contexts, pixels. Graphs that compute in float16 convert inside."""
    integers: Literal["int64", "int32"] = "int64"
    """Token ids, timestep, frame rate."""


@dataclass(frozen=True)
class FileLimits:
    """What the machine can take in one piece; None is no limit of its own."""

    largest_file: int | None = None
    """Bytes of one file of the bundle; ``model.onnx`` also has ``PROTOBUF_LIMIT``."""
    largest_tensor: int | None = None
    """Bytes of one initializer or activation."""


@dataclass(frozen=True)
class SettingsRule:
    """Session settings of some graphs; later rules win over earlier ones."""

    settings: SessionSettings
    roles: tuple[str, ...] = ()
    """Graphs it is for; () is all."""
    precisions: tuple[Precision, ...] = ()
    """Precisions it is for; () is all."""

    def applies(self, role: str, precision: Precision) -> bool:
        """Whether it is for a graph."""
        return role in (self.roles or (role,)) and precision in (self.precisions or (precision,))


@dataclass(frozen=True)
class Target:
    """One kind of machine."""

    name: str
    """As in the manifest and on the command line."""
    summary: str
    """One line for ``--help`` and the model card."""
    form: Literal["portable", "cpu"]
    """``portable``: standard operators. ``cpu``: with ONNX Runtime's fused ones."""
    chunks: Literal["none", "cpu", "cpu-lowmem", "gpu", "web"]
    """How far the U-Net works in pieces; see ``lowering.form``."""
    precisions: tuple[Precision, ...]
    """What it may be exported in, the default first."""
    providers: tuple[str, ...]
    """ONNX Runtime's execution providers, in order of preference."""
    static_sizes: bool = False
    """Frames, height and width must be fixed at export."""
    io: IoTypes = field(default_factory=IoTypes)
    opset: int = OPSET
    operators: frozenset[str] = STANDARD
    """``domain:Name`` of everything that its graphs may hold."""
    limits: FileLimits = field(default_factory=FileLimits)
    rules: tuple[SettingsRule, ...] = ()

    @property
    def default_precision(self) -> Precision:
        """What is exported when nothing is asked."""
        return self.precisions[0]

    def form_for(self, config: UNetConfig, size: tuple[int, int, int]) -> Form:
        """The form in which a U-Net is written.

        Args:
            config: of the U-Net.
            size: frames, rows and columns of the usual latent.
        """
        if self.chunks == "none":
            return PORTABLE
        largest = LARGEST_PIECE[self.chunks]
        return Form.in_pieces(config, size, largest, fused=self.form == "cpu")

    def settings(self, role: str, precision: Precision) -> SessionSettings:
        """How the runtime opens a graph of this target.

        Args:
            role: key of the graph in the manifest.
            precision: of that graph.
        """
        merged = SessionSettings()
        for rule in self.rules:
            if rule.applies(role, precision):
                merged = rule.settings.over(merged)
        return merged

    def check_precision(self, precision: Precision) -> Precision:
        """The precision, when this target takes it.

        Raises:
            UsageError: ``export.target_precision``.
        """
        if precision not in self.precisions:
            raise UsageError(
                "export.target_precision",
                f"target {self.name}: got precision {precision}, expected one of "
                f"{', '.join(self.precisions)}",
                hint=f"leave it out for {self.default_precision}, or take another target",
            )
        return precision


# Measured at 26x40x64 on two threads (docs/targets.md). Without reuse the planner frees each buffer
# after its last use instead of keeping one of every shape, and without patterns no second run
# allocates the peak of the first at once; the arena hands pages on without asking the system. Full
# optimization gives float convolutions their blocked layout, and integer kernels to quantized ones.
_CPU_RULES = (
    SettingsRule(
        SessionSettings(
            memory_reuse=False, memory_pattern=False, cpu_arena=True, optimization="all"
        )
    ),
)

# Without prepacking, weights stay in the mapped file, which the system can take back, and are
# packed anew in every pass; without constant folding, narrow ones stay narrow until used.
_LOWMEM_RULES = (
    *_CPU_RULES,
    SettingsRule(SessionSettings(prepacking=False)),
    SettingsRule(
        SessionSettings(disabled_optimizers=("ConstantFolding",)),
        precisions=("fp16-storage", "int8-storage"),
    ),
)

# OpenVINO rewrites the graph itself and asks for it untouched.
_UNTOUCHED_RULES = (SettingsRule(SessionSettings(optimization="disabled")),)

_GIB = 2**30

TARGETS: tuple[Target, ...] = (
    Target(
        name="portable",
        summary="standard operators and free sizes: any ONNX runtime, the source of all others",
        form="portable",
        chunks="none",
        precisions=("fp32", "fp16-storage", "int8", "int8-dynamic"),
        providers=(CPU_PROVIDER,),
    ),
    Target(
        name="cpu",
        summary="desktop and server CPUs: fused operators, work in pieces",
        form="cpu",
        chunks="cpu",
        precisions=("fp32", "fp16-storage", *QUANTIZED),
        providers=(CPU_PROVIDER,),
        operators=ALLOWED_OPERATORS,
        rules=_CPU_RULES,
    ),
    Target(
        name="cpu-lowmem",
        summary="CPUs with little memory: smaller pieces, weights left in the file, slower",
        form="cpu",
        chunks="cpu-lowmem",
        precisions=("int8", "fp32", "fp16-storage", "int8-dynamic", "w8", "w4", "mixed"),
        providers=(CPU_PROVIDER,),
        operators=ALLOWED_OPERATORS,
        rules=_LOWMEM_RULES,
    ),
    Target(
        name="igpu-webgpu",
        summary="any integrated GPU through Vulkan, Direct3D 12 or Metal (WebGPU plug-in)",
        form="portable",
        chunks="gpu",
        precisions=("fp16-storage", "fp32", "w8", "w4"),
        providers=("WebGpuExecutionProvider", CPU_PROVIDER),
        operators=STANDARD | NBITS,
        limits=FileLimits(largest_tensor=2 * _GIB - 1),
    ),
    Target(
        name="igpu-directml",
        summary="integrated GPUs on Windows through DirectML",
        form="portable",
        chunks="gpu",
        precisions=("fp16-storage", "fp32", "w4"),
        providers=("DmlExecutionProvider", CPU_PROVIDER),
        operators=STANDARD | NBITS,
        limits=FileLimits(largest_tensor=2 * _GIB),
        # The provider refuses sessions with memory patterns.
        rules=(SettingsRule(SessionSettings(memory_pattern=False)),),
    ),
    Target(
        name="igpu-openvino",
        summary="Intel GPUs and CPUs through OpenVINO",
        form="portable",
        chunks="gpu",
        precisions=("fp16-storage", "fp32", "int8", "w4"),
        providers=("OpenVINOExecutionProvider", CPU_PROVIDER),
        operators=STANDARD | NBITS,
        limits=FileLimits(largest_tensor=4 * _GIB - 1),
        rules=_UNTOUCHED_RULES,
    ),
    Target(
        name="igpu-migraphx",
        summary="AMD GPUs on Linux through MIGraphX; compiled for one size",
        form="portable",
        chunks="gpu",
        precisions=("fp16-storage", "fp32", "int8", "w4"),
        providers=("MIGraphXExecutionProvider", CPU_PROVIDER),
        static_sizes=True,
        operators=STANDARD | NBITS,
    ),
    Target(
        name="android-cpu",
        summary="Android phones on their CPU cores",
        form="cpu",
        chunks="cpu-lowmem",
        precisions=("int8", "fp32", "fp16-storage", "int8-dynamic", "w8", "w4", "mixed"),
        providers=(CPU_PROVIDER,),
        operators=ALLOWED_OPERATORS,
        limits=FileLimits(largest_file=2 * _GIB - 1),
        rules=_LOWMEM_RULES,
    ),
    Target(
        name="android-qnn",
        summary="Snapdragon NPUs (QNN HTP): one size, quantized",
        form="portable",
        chunks="gpu",
        precisions=("int8", "fp16-storage"),
        providers=("QNNExecutionProvider", CPU_PROVIDER),
        static_sizes=True,
        io=IoTypes(integers="int32"),
        limits=FileLimits(largest_file=2 * _GIB - 1),
    ),
    Target(
        name="ios-coreml",
        summary="iPhones, iPads and Macs through Core ML: one size",
        form="portable",
        chunks="gpu",
        precisions=("fp16-storage", "fp32"),
        providers=("CoreMLExecutionProvider", CPU_PROVIDER),
        static_sizes=True,
        io=IoTypes(integers="int32"),
    ),
    Target(
        name="web",
        summary="browsers: ONNX Runtime Web on WebGPU, WebAssembly where a node falls back",
        form="portable",
        chunks="web",
        precisions=("fp16-storage", "fp32", "w8", "w4"),
        providers=("WebGpuExecutionProvider", CPU_PROVIDER),
        io=IoTypes(integers="int32"),
        operators=STANDARD | NBITS,
        # Chrome's largest ArrayBuffer; the buffer binding that every WebGPU device guarantees.
        limits=FileLimits(largest_file=0x7FE00000, largest_tensor=128 * 2**20),
    ),
)


def target_names() -> tuple[str, ...]:
    """Names of all targets."""
    return tuple(target.name for target in TARGETS)


def find_target(name: str) -> Target:
    """The target of a name.

    Raises:
        UsageError: ``export.target``, naming the nearest.
    """
    for target in TARGETS:
        if target.name == name:
            return target
    near = difflib.get_close_matches(name, target_names(), n=1, cutoff=0.0)
    raise UsageError(
        "export.target",
        f"target, got {name[:60]!r}, expected one of {', '.join(target_names())}",
        hint=f"did you mean {near[0]}?",
    )
