"""Choose the kernel that steps a parameter, with the reason: a pure function."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from torch import Tensor

from adamas.kernels.bucket import Traits, param_traits
from adamas.state.format import storage_of
from adamas.state.shards import local
from adamas.torch.tracing import is_tracing

NAMES = ("native", "triton", "eager")  # in the order they are tried


class _Kernels(dict[str, ModuleType]):
    """The kernels by name, each imported at its first use."""

    def __missing__(self, name: str) -> ModuleType:
        self[name] = module = import_module(f"adamas.kernels.{name}")
        return module


KERNELS = _Kernels()


class Request(NamedTuple):
    """The user's wishes: None leaves the choice to Adamas, True demands a kernel, False excludes it."""

    kernel: str | None = None  # the name of a kernel
    fused: bool | None = None  # torch's flag for a kernel that does the whole step in one pass
    foreach: bool | None = None  # torch's flag for its list operations


class Choice(NamedTuple):
    """A kernel's name and the reason for the choice."""

    kernel: str
    reason: str


def check_request(request: Request) -> None:
    """Raise ValueError on an unknown kernel, or on wishes that contradict each other."""
    if request.kernel is not None and request.kernel not in NAMES:
        known = ", ".join(map(repr, NAMES))
        raise ValueError(f"kernel={request.kernel!r} must be None (automatic) or one of {known}")
    if request.kernel not in (None, "eager") and (request.foreach or request.fused is False):
        raise ValueError(f"kernel={request.kernel!r} contradicts foreach=True and fused=False: leave them at None")
    if request.kernel == "eager" and request.fused:
        raise ValueError("kernel='eager' contradicts fused=True: leave one of them at None")


def choose(traits: Traits, request: Request) -> Choice:
    """Choose the first kernel that the request allows and that can step a parameter with these traits.

    Raises:
        RuntimeError: a demanded kernel cannot step the parameter. No other kernel silently replaces it.

    Example:
        >>> import torch
        >>> traits = Traits("cpu", torch.complex64, torch.complex64, plain=True, dense=True, host_scalars=True)
        >>> choose(traits, Request()).kernel
        'eager'
    """
    fused = "triton" if traits.device == "cuda" else "native"
    demanded = request.kernel or (fused if request.fused else None)
    if demanded is not None:
        what = f"kernel={demanded!r}" if request.kernel else "fused=True"
        refusal = KERNELS[demanded].refuses(traits)
        if refusal:
            raise RuntimeError(f"{what} cannot be met: {refusal}. Leave it at None to let Adamas choose")
        return Choice(demanded, f"asked for by {what}")
    if request.foreach:
        alone = "" if traits.storage.plain else "; with state or weights in fewer bits each parameter is stepped alone"
        return Choice("eager", f"asked for by foreach=True{alone}")
    if request.fused is False:
        return Choice("eager", f"fused=False excludes {fused}")
    refusal = KERNELS[fused].refuses(traits)
    if refusal:
        return Choice("eager", refusal)
    reason = f"{traits.dtype} on {traits.device}".replace("torch.", "")
    return Choice(fused, f"{reason}, {KERNELS[fused].isas()[0]}" if fused == "native" else reason)


def choose_for(param: Tensor, group: dict[str, Any]) -> Choice:
    """Choose the kernel for a parameter with its present gradient; a missing one counts as like the parameter."""
    grad, storage = param if param.grad is None else param.grad, storage_of(param, group)
    if not group["differentiable"]:  # kernels step the shards of DTensors; autograd records whole ones
        param, grad = local(param), local(grad)
    host_scalars = not (group["capturable"] or group["differentiable"])
    traits = param_traits(param, grad, host_scalars, storage, bool(group["differentiable"]))
    if is_tracing(param):
        traits = traits._replace(plain=False)
    return choose(traits, Request(group["kernel"], group["fused"], group["foreach"]))
