"""Ranks on this machine or started by others: launching, who am I, tensors sharded over ranks.

`launch` starts local ranks itself: gloo on CPUs, NCCL with one GPU a rank where there are GPUs. A
process that `accelerate launch` or `torchrun` started is a rank already and runs the worker as it
is. Either way the same environment variables say how many ranks there are and whether weights are
sharded (FSDP2), so a committed file of train/accelerate/ means the same to both.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from hummingbird_runtime import errors
from hummingbird_runtime.errors import ExecutionError, HummingbirdError, InputError, UsageError

ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
"""Keeps freed activations in the process: 55 page faults a step, not 21,500; 7 % less CPU time."""

HARMLESS = (
    "FSDP2-wrapped module .* returned a view tensor",  # no network changes it in place
    "Grad strides do not match bucket view strides",  # 1x1 kernels in channels-last memory
    "`broadcast_buffers` is deprecated",  # accelerate has no name yet for what replaces it
)
"""Warnings of torch that say nothing about a run."""

_ERROR = "error.json"

_FSDP2 = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


@dataclass(frozen=True)
class Layout:
    """How many ranks, and whether each holds all weights."""

    processes: int = 1
    """Ranks on this machine."""
    sharding: Literal["none", "fsdp2"] = "none"
    """none: every rank holds every weight (DDP); fsdp2: each holds its share."""

    @classmethod
    def read(cls, path: Path) -> Layout:
        """Ranks and sharding of an accelerate configuration file.

        Raises:
            InputError: ``train.layout`` for an unreadable file, several machines, or FSDP1.
        """
        import yaml

        try:
            table = yaml.safe_load(path.read_text(encoding="utf-8"))
            kind, processes = str(table["distributed_type"]), int(table["num_processes"])
            machines = int(table.get("num_machines", 1))
            version = int((table.get("fsdp_config") or {}).get("fsdp_version", 1))
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise InputError(
                "train.layout",
                f"accelerate configuration {path}: {type(error).__name__}: {error}",
                hint="start from a file of train/accelerate/",
            ) from error
        sharded = kind == "FSDP"
        if machines != 1 or processes < 1 or (sharded and version != 2):
            raise InputError(
                "train.layout",
                f"accelerate configuration {path}, got {machines} machines, {processes} processes, "
                f"{kind}{f' version {version}' if sharded else ''}, expected one machine and FSDP2 "
                "or no sharding",
                hint="start several machines with `accelerate launch`",
            )
        return cls(processes, "fsdp2" if sharded else "none")


def default_processes() -> int:
    """One rank a GPU, or up to two on CPUs."""
    return torch.cuda.device_count() or min(2, os.cpu_count() or 1)


def launch(worker: Callable[..., None], layout: int | Layout, *arguments: Any) -> None:
    """Run ``worker(*arguments)`` in every rank and wait for all of them.

    Args:
        worker: a module-level function; it asks ``rank`` and ``world_size``.
        layout: ranks to start, each in a fresh process (one rank too, so that the allocator's
            settings apply). Not looked at inside a rank that another launcher started.
        arguments: picklable.

    Raises:
        UsageError: ``train.processes`` for more ranks than GPUs.
        ExecutionError: ``train.rank_died`` when a rank was killed.
        HummingbirdError: the typed error of a rank, as that rank raised it.
    """
    if "LOCAL_RANK" in os.environ:
        from accelerate import PartialState

        PartialState(cpu=not torch.cuda.is_available())  # joins the process group
        _together(worker, arguments)
        return
    layout = layout if isinstance(layout, Layout) else Layout(layout)
    gpus = torch.cuda.device_count()
    if gpus and layout.processes > gpus:
        raise UsageError(
            "train.processes",
            f"got {layout.processes} ranks, expected at most one for each of {gpus} GPUs",
            hint=f"pass --processes {gpus}",
        )
    os.environ.update(ALLOCATOR)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns of layers that are all in use
    with tempfile.TemporaryDirectory() as folder:
        try:
            mp.spawn(_entry, (layout, folder, worker, arguments), layout.processes)
        except (mp.ProcessRaisedException, mp.ProcessExitedException) as error:
            left = Path(folder) / _ERROR
            if left.exists():
                facts = json.loads(left.read_text(encoding="utf-8"))
                kind = getattr(errors, facts["kind"])
                raise kind(facts["code"], facts["message"], hint=facts["hint"]) from None
            if isinstance(error, mp.ProcessExitedException):
                raise ExecutionError(
                    "train.rank_died",
                    f"rank {error.error_index} of {layout.processes} ended without a word: {error}",
                    hint="run the command again: it goes on from the last state",
                ) from error
            raise


def _entry(
    rank: int, layout: Layout, folder: str, worker: Callable[..., None], arguments: Sequence[Any]
) -> None:
    try:
        _work(rank, layout, Path(folder) / "store", worker, arguments)
    except HummingbirdError as error:
        names = {"kind": type(error).__name__, "code": error.code}
        facts = {**names, "message": error.message, "hint": error.hint}
        partial = Path(folder) / f"{_ERROR}.{rank}"  # two ranks may fail at once: rename is atomic
        partial.write_text(json.dumps(facts), encoding="utf-8")
        partial.replace(Path(folder) / _ERROR)
        raise


def _work(
    rank: int, layout: Layout, store: Path, worker: Callable[..., None], arguments: Sequence[Any]
) -> None:
    world = layout.processes
    threads = max(1, (os.cpu_count() or 1) // world)
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if layout.sharding == "fsdp2":
        os.environ.update(_FSDP2)
    if world == 1 and layout.sharding == "none":
        worker(*arguments)
        return
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # or accelerate chooses, and warns
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"  # an objective may stay on the CPU
    dist.init_process_group(backend, init_method=store.as_uri(), rank=rank, world_size=world)
    _together(worker, arguments)


def _together(worker: Callable[..., None], arguments: Sequence[Any]) -> None:
    for message in HARMLESS:  # this process exists for the worker alone
        warnings.filterwarnings("ignore", message=message)
    try:
        worker(*arguments)
        dist.barrier()  # without it a rank that ends early aborts the other's last collective
    finally:
        dist.destroy_process_group()


_PARENT = os.getppid()


def orphaned() -> bool:
    """True once the launching process is gone: a killed run must not train on unseen."""
    return os.getppid() != _PARENT


def rank() -> int:
    """This process's rank; 0 when not distributed."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Number of ranks; 1 when not distributed."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sharded() -> bool:
    """Whether the launcher asked for sharded weights."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


def any_rank(flags: Sequence[bool], device: torch.device) -> list[bool]:
    """Each flag, raised if any rank raised it; one small collective."""
    if world_size() == 1:
        return list(flags)
    raised = torch.tensor([float(f) for f in flags], device=device)
    dist.all_reduce(raised, dist.ReduceOp.MAX)
    return [bool(f) for f in raised.tolist()]


def local(tensor: Tensor) -> Tensor:
    """This rank's share of a sharded tensor, sharing its memory; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, gathered if sharded; every rank must ask, in the same order."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor, the same on every rank, into a tensor that may be sharded."""
    if isinstance(target, DTensor):
        moved = value.to(target.device, target.dtype)
        mesh, placements = target.device_mesh, target.placements
        target.copy_(distribute_tensor(moved, mesh, placements, src_data_rank=None))
    else:
        target.copy_(value)


def wholes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``whole`` of each; other ranks than 0 get an empty dict and hold one tensor at a time."""
    gathered = {}
    for name, tensor in tensors.items():
        value = whole(tensor)
        if rank() == 0:
            gathered[name] = value
    return gathered
