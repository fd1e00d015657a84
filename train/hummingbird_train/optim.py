"""Optimisers over named parameters: Muon for matrices with Adam for the rest, and torch's AdamW.

Muon (Jordan et al. 2024) replaces a matrix's momentum by the nearest semi-orthogonal matrix, found
by a few Newton-Schulz iterations; the update is scaled by 0.2 sqrt(max(m, n)) so that its RMS
equals Adam's and both share one learning rate (Liu et al. 2025, "Muon is scalable", section 2.2).
The Newton-Schulz work is split over the ranks; sharded weights have no whole matrices, so they take
AdamW. State is a flat dict of tensors for safetensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from hummingbird_runtime.errors import UsageError
from hummingbird_train import parallel

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Quintic coefficients chosen for slope at zero; singular values end in about [0.7, 1.2]."""

EDGE_LAYERS = (
    "embedding.weight",
    "positional_embedding",
    "conv_in.weight",
    "conv_out.weight",
    "input_blocks.0.0.weight",
    "out.2.weight",
)


@dataclass(frozen=True)
class OptimizerConfig:
    """Hyper-parameters shared by every stage; the learning rate comes with each step."""

    kind: Literal["muon", "adamw"] = "muon"
    """muon: ``MuonAdam``; adamw: torch's AdamW for every parameter, the only one when sharded."""
    momentum: float = 0.95
    """Of Muon."""
    newton_schulz_steps: int = 4
    """Of Muon."""
    adam_betas: tuple[float, float] = (0.9, 0.99)
    """Of Adam."""
    weight_decay: float = 0.0
    """Decoupled; muon: of the matrices, adamw: of everything."""
    clip_norm: float = 1.0
    """Largest norm of all gradients together; longer ones are scaled down to it."""


def orthogonalize(matrices: Tensor, steps: int) -> Tensor:
    """Nearest semi-orthogonal matrices of a batch, approximately.

    Args:
        matrices: float32 [n, rows, columns].
        steps: Newton-Schulz iterations.

    Returns:
        float32 of the same shape with singular values near one.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.transpose(1, 2) if tall else x


def is_matrix(name: str, parameter: Tensor) -> bool:
    """True for hidden matrices and convolutions; embeddings, norms and edge layers go to Adam."""
    if parameter.ndim < 2 or min(parameter.shape[0], parameter[0].numel()) < 2:
        return False
    return not name.endswith(EDGE_LAYERS)


@torch.no_grad()
def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Norm of all gradients together, over all ranks where they are sharded; nan or inf if any is.

    Every rank must ask.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        return 0.0
    norm = torch.linalg.vector_norm(torch.stack([parallel.local(g).norm() for g in grads]))
    if isinstance(grads[0], DTensor):
        square = norm.square()
        dist.all_reduce(square)
        norm = square.sqrt()
    return float(norm)


@torch.no_grad()
def scale_gradients(parameters: Iterable[Tensor], factor: float) -> None:
    """Multiply all gradients."""
    grads = [parallel.local(p.grad) for p in parameters if p.grad is not None]
    if grads and factor != 1.0:
        torch._foreach_mul_(grads, factor)


def make_optimizer(
    named_parameters: Sequence[tuple[str, nn.Parameter]], config: OptimizerConfig
) -> MuonAdam | NamedAdamW:
    """The optimiser of a configuration.

    Raises:
        UsageError: ``train.optimizer`` for an unknown kind, ``train.sharded_muon`` for Muon over
            sharded parameters.
    """
    if config.kind not in ("muon", "adamw"):
        raise UsageError(
            "train.optimizer",
            f"optimiser, got {config.kind!r}, expected 'muon' or 'adamw'",
            hint="correct `kind` in the recipe",
        )
    if config.kind == "adamw":
        return NamedAdamW(named_parameters, config)
    if any(isinstance(p, DTensor) for _, p in named_parameters):
        raise UsageError(
            "train.sharded_muon",
            "optimiser muon with sharded weights, expected adamw: Muon needs whole matrices",
            hint='set kind = "adamw" for the optimiser, or launch without sharding',
        )
    return MuonAdam(named_parameters, config)


class NamedAdamW:
    """torch's AdamW (Loshchilov and Hutter 2019) with state by parameter name.

    Args:
        named_parameters: the trained parameters; names must be unique; sharded or not.
        config: betas and weight decay.
    """

    def __init__(
        self, named_parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig
    ) -> None:
        self.parameters = {n: p for n, p in named_parameters if p.requires_grad}
        self.inner = torch.optim.AdamW(
            list(self.parameters.values()),
            lr=0.0,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
        )

    def step(self, learning_rate: float) -> None:
        """Apply one update from ``.grad``; parameters without one stay as they are."""
        self.inner.param_groups[0]["lr"] = learning_rate
        self.inner.step()

    def state(self) -> dict[str, Tensor]:
        """Flat tensors that ``load_state`` takes back bit for bit; sharded ones stay sharded."""
        tensors = {}
        for name, parameter in self.parameters.items():
            held = self.inner.state.get(parameter)
            if held:
                tensors[f"first.{name}"] = held["exp_avg"]
                tensors[f"second.{name}"] = held["exp_avg_sq"]
                tensors[f"steps.{name}"] = held["step"]
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` gave from whole tensors."""
        for name, parameter in self.parameters.items():
            if f"steps.{name}" not in tensors:
                continue  # never had a gradient
            held = {"step": tensors[f"steps.{name}"].clone()}
            for key, kind in (("exp_avg", "first"), ("exp_avg_sq", "second")):
                held[key] = torch.zeros_like(parameter.detach())
                parallel.assign(held[key], tensors[f"{kind}.{name}"])
            self.inner.state[parameter] = held


class MuonAdam:
    """Optimiser over ``name -> parameter``.

    Args:
        named_parameters: the trained parameters; names must be unique.
        config: hyper-parameters.
        matrix: says which parameters Muon takes.
    """

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        config: OptimizerConfig = OptimizerConfig(),
        matrix: Callable[[str, Tensor], bool] = is_matrix,
    ) -> None:
        self.config = config
        self.parameters = {n: p for n, p in named_parameters if p.requires_grad}
        self.step_count = 0
        self.matrices = [n for n, p in self.parameters.items() if matrix(n, p)]
        matrices = set(self.matrices)
        self.others = [n for n in self.parameters if n not in matrices]
        self.momentum = {n: torch.zeros_like(self.parameters[n]) for n in self.matrices}
        self.first = {n: torch.zeros_like(self.parameters[n]) for n in self.others}
        self.second = {n: torch.zeros_like(self.parameters[n]) for n in self.others}
        by_shape: dict[tuple[int, int], list[str]] = {}
        for name in self.matrices:
            flat = self.parameters[name].flatten(1)
            by_shape.setdefault((flat.shape[0], flat.shape[1]), []).append(name)
        # Largest work first, dealt to the ranks in turn: both finish at about the same time.
        self._groups = sorted(by_shape.items(), key=lambda g: -min(g[0]) * g[0][0] * g[0][1])

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Apply one update from ``.grad``; parameters without one stay as they are."""
        grads = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        self.step_count += 1
        if self.config.weight_decay:
            decay = 1.0 - learning_rate * self.config.weight_decay
            torch._foreach_mul_([self.parameters[n] for n in self.matrices], decay)
        self._step_adam(grads, learning_rate)
        self._step_muon(grads, learning_rate)

    def _step_adam(self, grads: Mapping[str, Tensor], learning_rate: float) -> None:
        names = [n for n in self.others if n in grads]
        if not names:
            return
        beta1, beta2 = self.config.adam_betas
        g = [grads[n] for n in names]
        first, second = [self.first[n] for n in names], [self.second[n] for n in names]
        torch._foreach_lerp_(first, g, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, g, g, 1 - beta2)
        denominator = torch._foreach_sqrt(second)
        torch._foreach_div_(denominator, (1 - beta2**self.step_count) ** 0.5)
        torch._foreach_add_(denominator, 1e-8)
        size = -learning_rate / (1 - beta1**self.step_count)
        torch._foreach_addcdiv_([self.parameters[n] for n in names], first, denominator, size)

    def _step_muon(self, grads: Mapping[str, Tensor], learning_rate: float) -> None:
        momentum = self.config.momentum
        updates = []
        for name in self.matrices:
            grad = grads.get(name)
            if grad is None:  # a layer this step did not use keeps its momentum and its weights
                updates.append(None)
                continue
            self.momentum[name].mul_(momentum).add_(grad)
            updates.append(grad.add(self.momentum[name], alpha=momentum))
        raw = dict(zip(self.matrices, updates, strict=True))
        rank, world = parallel.rank(), parallel.world_size()
        jobs = [(s, [n for n in names if raw[n] is not None]) for s, names in self._groups]
        jobs = [(s, names) for s, names in jobs if names]
        total = sum(s[0] * s[1] * len(names) for s, names in jobs)
        if not total:
            return
        flat = torch.zeros(total, device=self.parameters[self.matrices[0]].device)
        offset = 0
        spans = []
        dealt = 0
        for shape, names in jobs:
            size = shape[0] * shape[1]
            span = flat[offset : offset + size * len(names)].view(len(names), *shape)
            mine = [i for i in range(len(names)) if (dealt + i) % world == rank]
            dealt += len(names)
            if mine:
                stack = torch.stack([raw[names[i]].flatten(1) for i in mine])
                factor = 0.2 * max(shape) ** 0.5
                span[mine] = orthogonalize(stack, self.config.newton_schulz_steps) * factor
            spans.append((span, names))
            offset += size * len(names)
        if world > 1:
            dist.all_reduce(flat)
        for span, names in spans:
            for i, name in enumerate(names):
                parameter = self.parameters[name]
                parameter.add_(span[i].view_as(parameter), alpha=-learning_rate)

    def state(self) -> dict[str, Tensor]:
        """Flat tensors that ``load_state`` takes back bit for bit."""
        tensors = {f"momentum.{n}": t for n, t in self.momentum.items()}
        tensors |= {f"first.{n}": t for n, t in self.first.items()}
        tensors |= {f"second.{n}": t for n, t in self.second.items()}
        return tensors | {"step_count": torch.tensor(self.step_count)}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what ``state`` gave; a missing or mis-shaped tensor raises."""
        for kind, table in (
            ("momentum", self.momentum), ("first", self.first), ("second", self.second)
        ):  # fmt: skip
            for name, tensor in table.items():
                tensor.copy_(tensors[f"{kind}.{name}"])
        self.step_count = int(tensors["step_count"])
