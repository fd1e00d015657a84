"""One training step on whatever the process has: device, ranks, number format, memory savers.

accelerate's `Accelerator` chooses the device, joins the ranks and wraps the step in DDP. The whole
loss is the forward of one module, so an objective may call its networks by any method, several
times or not at all, and DDP, FSDP2 and one process are the same code. Three things are done by
torch's own calls instead of accelerate's: sharding (accelerate shards on GPUs only; here two CPU
ranks are tested against one), fp16 loss scaling (accelerate refuses fp16 on a CPU, and its scaler
looks at one rank's share), and checkpointing of blocks (which must not rename tensors).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from hummingbird_train import parallel
from hummingbird_train.models.block_types import BLOCKS

if TYPE_CHECKING:
    from hummingbird_train.loop import Objective
    from hummingbird_train.recipe import Phase

Precision = Literal["fp32", "bf16", "fp16"]

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class LossScale:
    """Dynamic loss scale of fp16 (Micikevicius et al. 2018, section 3.2); 1 for other formats.

    Args:
        dynamic: whether to scale at all.
    """

    def __init__(self, dynamic: bool) -> None:
        self.dynamic = dynamic
        self.value = 2.0**16 if dynamic else 1.0
        self.good = 0

    def overflowed(self) -> bool:
        """Whether infinite gradients may be the scale's doing: then halve it."""
        if not self.dynamic or self.value <= 1.0:
            return False
        self.value, self.good = self.value / 2, 0
        return True

    def succeeded(self) -> None:
        """Count a good step; 2000 in a row double the scale."""
        if self.dynamic:
            self.good += 1
            if self.good == 2000:
                self.value, self.good = min(self.value * 2, 2.0**24), 0


@dataclass(frozen=True)
class Gradients:
    """What one backward pass over all micro-batches of this rank gave."""

    loss: float
    """Mean over the micro-batches; not over ranks."""
    numbers: Mapping[str, float]
    """Means of what the objective reported."""


class _Loss(nn.Module):
    """The objective's loss as a forward; its networks as submodules."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.trained = nn.ModuleDict(dict(objective.modules))
        self.loss = objective.loss

    def forward(
        self, phase: Phase, images: bool, rng: np.random.Generator
    ) -> tuple[Tensor, dict[str, float]]:
        return self.loss(phase, images, rng)


class Stepper:
    """Gradients of an objective, averaged over micro-batches and ranks.

    Args:
        objective: moved to the process's GPU if it has ``to``; stays on the CPU otherwise.
        seed: of the run.
        precision: number format of the networks' arithmetic; weights stay float32.
        checkpointing: compute blocks again in backward instead of keeping what they made.
        accumulate: micro-batches of this rank per step.
    """

    def __init__(
        self,
        objective: Objective,
        *,
        seed: int,
        precision: Precision,
        checkpointing: bool,
        accumulate: int,
    ) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        movable = hasattr(objective, "to")
        ddp = DistributedDataParallelKwargs(
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            find_unused_parameters=True,  # steps on single frames leave the temporal layers out
        )
        self.accelerator = Accelerator(
            cpu=not (movable and torch.accelerator.is_available()),
            mixed_precision="no",
            kwargs_handlers=[ddp],
        )
        self.device = self.accelerator.device
        if movable:
            objective.to(self.device)
        self.seed, self.accumulate = seed, accumulate
        self.precision, self.scale = precision, LossScale(precision == "fp16")
        self.sharded = parallel.sharded()
        self._blocks = _checkpoint_blocks(objective) if checkpointing else []
        self.step_module: nn.Module = _Loss(objective)
        if self.sharded:
            self._shard(self.step_module)
        else:
            self.step_module = self.accelerator.prepare_model(self.step_module)
        self.named = [
            (f"{m}.{n}", p) for m, module in objective.modules.items()
            for n, p in module.named_parameters() if p.requires_grad
        ]  # fmt: skip

    def _shard(self, module: nn.Module) -> None:
        mesh = init_device_mesh(self.device.type, (parallel.world_size(),))
        policy = MixedPrecisionPolicy()
        if self.precision in HALF:
            policy = MixedPrecisionPolicy(HALF[self.precision], reduce_dtype=torch.float32)
        for block in list(module.modules()):
            if isinstance(block, BLOCKS):
                fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(module, mesh=mesh, mp_policy=policy)

    def gradients(self, phase: Phase, images: bool, step: int) -> Gradients:
        """Leave averaged gradients, times the loss scale, in ``.grad`` of every trained parameter.

        Micro-batch m of rank r is drawn from the generator seeded (seed, step, r accumulate + m):
        ranks and accumulation are two ways to compute the same batch.
        """
        for _, parameter in self.named:
            parameter.grad = None
        losses: list[float] = []
        numbers: dict[str, list[float]] = {}
        for micro in range(self.accumulate):
            last = micro == self.accumulate - 1
            index = parallel.rank() * self.accumulate + micro
            rng = np.random.default_rng([self.seed, step, index])
            # Dropout draws from torch's own generator: seeded here, it needs no saving.
            torch.manual_seed(
                int(np.random.SeedSequence([self.seed, step, index, 1]).generate_state(1)[0])
            )
            alone = contextlib.nullcontext() if last or self.sharded else self._no_sync()
            with alone:
                with self._autocast():
                    loss, reported = self.step_module(phase, images, rng)
                (loss * (self.scale.value / self.accumulate)).backward()
            losses.append(float(loss.detach()))
            for name, value in reported.items():
                numbers.setdefault(name, []).append(value)
        means = {name: float(np.mean(values)) for name, values in numbers.items()}
        return Gradients(float(np.mean(losses)), means)

    def _no_sync(self) -> contextlib.AbstractContextManager[Any]:
        return self.accelerator.no_sync(self.step_module)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.precision not in HALF:
            return contextlib.nullcontext()
        both = contextlib.ExitStack()
        both.enter_context(torch.autocast(self.device.type, HALF[self.precision]))
        if self.device.type == "cpu":  # flash attention's backward in bf16: 12 times as long there
            both.enter_context(sdpa_kernel(SDPBackend.MATH))
        return both

    def close(self) -> None:
        """Give the objective's networks back as they were, short of sharding."""
        for block in self._blocks:
            del block.forward

    def save(self, objective: Objective, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """``objective.save`` on rank 0, with whole parameters in place of sharded ones.

        Args:
            objective: of this stepper.
            folder: for the model files.
            weights: whole averaged weights on the CPU; empty on other ranks.
        """
        if not self.sharded:
            if parallel.rank() == 0:
                objective.save(folder, weights)
            return
        live = parallel.wholes(
            {f"{m}.{n}": p for m, module in objective.modules.items()
             for n, p in module.named_parameters()}
        )  # fmt: skip
        if parallel.rank() == 0:
            with _replaced(objective.modules, live):
                objective.save(folder, weights)


def _checkpoint_blocks(objective: Objective) -> list[nn.Module]:
    found = [
        block for module in objective.modules.values()
        for block in module.modules() if isinstance(block, BLOCKS)
    ]  # fmt: skip
    for block in found:
        # An attribute of the object hides the method of its class; names of tensors stay.
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    return found


@contextlib.contextmanager
def _replaced(modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put other tensors in the place of all parameters for a while."""
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    for prefix, root in modules.items():
        for path, module in root.named_modules(prefix=prefix):
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    kept.append((module, name, parameter))
                    other = nn.Parameter(tensors[f"{path}.{name}"], parameter.requires_grad)
                    module._parameters[name] = other
    try:
        yield
    finally:
        for module, name, parameter in kept:
            module._parameters[name] = parameter
