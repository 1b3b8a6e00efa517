"""The cases that every kernel is held to: options x dtypes x layouts. A new option or layout is a line."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from adamas.kernels.bucket import Bucket, moment_dtype, state_names
from adamas.scalars import Hyper, StepScalars
from adamas.torch.dispatch import KERNELS
from tests.conftest import INTERPRETED


@dataclass(frozen=True)
class Case:
    """Hyperparameters with a name."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def hyper(self) -> Hyper:
        return Hyper(**self.values)

    @property
    def amsgrad(self) -> bool:
        return self.hyper.amsgrad != "off"

    @property
    def averages(self) -> bool:
        return self.hyper.ema_decay is not None


CAUTIOUS = {"decay": "lr", "cautious_decay": True}
CASES = [
    Case("plain"),
    Case("l2", {"weight_decay": 0.1}),
    Case("decoupled", {"weight_decay": 0.1, "decay": "lr"}),
    Case("independent", {"weight_decay": 1e-3, "decay": "independent", "base_lr": 2e-3}),
    Case("corrected", {"weight_decay": 0.1, "decay": "corrected", "base_lr": 4e-3}),
    Case("cautious", {"weight_decay": 0.1, **CAUTIOUS}),
    Case("cautious-corrected", {"lr": 0.5, "weight_decay": 0.5, **CAUTIOUS, "decay": "corrected", "base_lr": 2.0}),
    Case("cautious-amsgrad", {"amsgrad": "raw", "weight_decay": 0.1, **CAUTIOUS}),
    Case("cautious-average", {"ema_decay": 0.99, "weight_decay": 0.1, **CAUTIOUS}),
    Case("undecayed", {"weight_decay": 0.1, "decay": "none"}),
    Case("amsgrad", {"amsgrad": "raw"}),
    Case("amsgrad-l2", {"amsgrad": "raw", "weight_decay": 0.1}),
    Case("amsgrad-decoupled", {"amsgrad": "raw", "weight_decay": 0.1, "decay": "lr"}),
    Case("amsgrad-corrected", {"amsgrad": "corrected"}),
    Case("maximize", {"maximize": True, "weight_decay": 0.1}),
    Case("hat", {"eps_mode": "hat", "eps": 1e-7}),
    Case("eps-root", {"eps_root": 1e-4}),
    Case("large-eps", {"eps": 0.1}),
    Case("uncorrected", {"bias_correction": False}),
    Case("no-momentum", {"beta1": 0.0}),
    Case("no-memory", {"beta1": 0.0, "beta2": 0.0}),
    Case("long-memory", {"beta1": 0.99, "beta2": 0.99999}),
    Case("average", {"ema_decay": 0.99, "weight_decay": 0.1, "decay": "lr"}),
    Case("short-average", {"ema_decay": 0.3}),
    Case("average-lr-zero", {"ema_decay": 0.99, "lr": 0.0}),
    Case("lr-zero", {"lr": 0.0, "weight_decay": 0.1, "decay": "lr"}),
    Case("lr-large", {"lr": 1.0, "weight_decay": 0.5, "decay": "lr"}),
]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Around every vector width and its unrolled multiples, where a loop's tail begins; the Triton kernel's width is 256.
LENGTHS = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 4097)
LENGTHS = (0, 1, 97, 255, 256, 257) if INTERPRETED else LENGTHS
SIZES: list[tuple[int, ...]] = [(), (3, 5, 7), *((length,) for length in LENGTHS)]


def _contiguous(values: Tensor) -> Tensor:
    return values.clone()


def _misaligned(values: Tensor) -> Tensor:
    """One element past an allocation's start: no vector load is aligned."""
    room = torch.empty(values.numel() + 1, dtype=values.dtype)
    return room[1:].view(values.shape).copy_(values)


def _transposed(values: Tensor) -> Tensor:
    """The same values with the dimensions' strides in reverse order."""
    reverse = list(range(values.ndim))[::-1]
    return values.permute(reverse).contiguous().permute(reverse) if values.ndim else values.clone()


def _strided(values: Tensor) -> Tensor:
    """Every second element of a wider tensor: gaps between elements."""
    room = torch.full((*values.shape, 2), 7.0).to(values.dtype)
    return room[..., 0].copy_(values)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": _contiguous,
    "misaligned": _misaligned,
    "transposed": _transposed,
    "strided": _strided,
}


@dataclass
class Operands:
    """Tensors of one step: parameters, gradients, moments and, where they are kept, averages of the weights."""

    params: list[Tensor]
    grads: list[Tensor]
    moments: list[list[Tensor]]
    emas: list[Tensor] = field(default_factory=list)

    @classmethod
    def drawn(
        cls, sizes: list[tuple[int, ...]], dtype: torch.dtype, amsgrad: bool, seed: int = 0, averages: bool = False
    ) -> Operands:
        """Random operands of many magnitudes, as after some steps: v of the size of g*g or smaller."""
        random = torch.Generator().manual_seed(seed)

        def draw(size: tuple[int, ...], low: float, high: float) -> Tensor:
            exponent = torch.rand(size, generator=random, dtype=torch.float64) * (high - low) + low
            return torch.randn(size, generator=random, dtype=torch.float64) * 10**exponent

        state = moment_dtype(torch.empty((), dtype=dtype))
        low = -4 if dtype == torch.float16 else -8
        params = [draw(size, -3, 1).to(dtype) for size in sizes]
        grads = [draw(size, low, 1).to(dtype) for size in sizes]
        first = [draw(size, low, 1).to(state) for size in sizes]
        second = [(draw(size, low, 1) ** 2).to(state) for size in sizes]
        maxima = [[(draw(size, low, 1) ** 2).to(state) for size in sizes]] if amsgrad else []
        emas = [draw(size, -3, 1).to(state) for size in sizes] if averages else []
        return cls(params, grads, [first, second, *maxima], emas)

    def laid_out(self, layout: Callable[[Tensor], Tensor]) -> Operands:
        """The same values, each tensor by itself in another layout."""

        def each(tensors: list[Tensor]) -> list[Tensor]:
            return [layout(tensor) for tensor in tensors]

        return Operands(
            each(self.params), each(self.grads), [each(moments) for moments in self.moments], each(self.emas)
        )

    def written(self) -> list[Tensor]:
        """Everything that a step writes."""
        return [*self.params, *itertools.chain.from_iterable(self.moments), *self.emas]

    def bucket(self, **options: Any) -> Bucket:
        """As a kernel takes them."""
        amsgrad, averages = len(self.moments) > 2, bool(self.emas)
        names = state_names(amsgrad, averages)
        tensors = [*self.moments, *([self.emas] if averages else [])]
        states = [dict(zip(names, each, strict=True)) for each in zip(*tensors, strict=True)]
        return Bucket(self.params, states, amsgrad=amsgrad, averages=averages, **options)

    def step(self, kernel: str, scalars: StepScalars, zero_grad: bool = False, **options: Any) -> None:
        """Step in place with a kernel, on the device that it is for."""
        module, there = KERNELS[kernel], self.on(device_of(kernel))
        prepared = module.prepare(there.bucket(**options))
        module.take(prepared, there.grads)
        module.step(prepared, [scalars], None, zero_grad)
        for mine, other in zip([*self.written(), *self.grads], [*there.written(), *there.grads], strict=True):
            mine.untyped_storage().copy_(other.untyped_storage())

    def squares(self, kernel: str) -> list[float]:
        """The kernel's sums of squared gradients, each gradient in a bucket of its own."""
        module, there, sums = KERNELS[kernel], self.on(device_of(kernel)), []
        for i in range(len(there.params)):
            alone = Operands([there.params[i]], [there.grads[i]], [[moment[i]] for moment in there.moments])
            prepared = module.prepare(alone.bucket())
            module.take(prepared, alone.grads)
            parts = [torch.as_tensor(x, dtype=torch.float64).flatten() for x in module.squares(prepared)]
            sums.append(float(torch.cat(parts).sum()))
        return sums

    def on(self, device: str) -> Operands:
        """The same tensors on a device: their memory whole, with gaps and offsets."""
        if device == "cpu":
            return self

        def each(tensors: list[Tensor]) -> list[Tensor]:
            return [
                torch.empty(0, dtype=x.dtype, device=device).set_(
                    x.untyped_storage().to(device=device), x.storage_offset(), x.shape, x.stride()
                )
                for x in tensors
            ]

        return Operands(
            each(self.params), each(self.grads), [each(moments) for moments in self.moments], each(self.emas)
        )


def device_of(kernel: str) -> str:
    """Where a kernel's tensors lie: triton's on the GPU, unless its interpreter runs it."""
    return "cuda" if kernel == "triton" and not INTERPRETED else "cpu"


def scalars(hyper: Hyper, step: int) -> StepScalars:
    return StepScalars.of(hyper, step)
