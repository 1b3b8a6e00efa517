"""Answer `clip_grad_norm_` and `clip_grad_value_` for parameters that backward has stepped already.

Trainers clip through these two functions of `torch.nn.utils`. Without an answer they find no gradient, return 0, and
nothing is clipped. They are replaced only while a release is in use, and never change a gradient themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor
from torch.nn import utils

from adamas.torch.compiler import untraced


class Stepped(Protocol):
    """What a release tells about the backward since the last `optimizer.step()`."""

    seen: set[Tensor]  # the parameters that it stepped

    @property
    def clips_to(self) -> float | None: ...  # noqa: D102
    @property
    def norm(self) -> Any: ...  # noqa: D102


_releases: WeakSet[Any] = WeakSet()
_torch: dict[str, Callable[..., Any]] = {}  # torch's functions by name


def answer_for(release: Stepped) -> None:
    """Let the two functions know of a release, until `leave`."""
    _releases.update({release})
    for name, ours in _OURS.items():
        if getattr(utils, name) is not ours:
            _torch[name] = getattr(utils, name)
            setattr(utils, name, ours)


def leave(release: Stepped) -> None:
    """Forget a release. Without any, `torch.nn.utils` has its own functions again."""
    _releases.discard(release)
    for name, ours in _OURS.items():
        if not _releases and getattr(utils, name) is ours:
            setattr(utils, name, _torch[name])


@untraced
def clip_grad_norm_(
    parameters: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:
    """Clip as torch does; for stepped parameters return the norm, if backward clipped to this limit or a lower one."""
    parameters = _listed(parameters)
    stepped = _stepped(parameters)
    if not stepped:
        return _torch["clip_grad_norm_"](parameters, max_norm, norm_type, error_if_nonfinite, foreach)
    limits = [release.clips_to for release in stepped]
    if norm_type != 2:
        raise RuntimeError(f"{_GONE} only the 2-norm can be clipped to there: max_norm of the optimizer")
    if any(limit is None or limit > max_norm for limit in limits):
        raise RuntimeError(
            f"{_GONE} set optimizer.max_norm = {float(max_norm):g}, with which backward clips, and which makes this "
            "call return the norm (Lightning and transformers: `ReleaseGradients` of adamas.torch.trainers does so)"
        )
    norms = [torch.as_tensor(release.norm, dtype=torch.float32) for release in stepped]
    norm = norms[0] if len(norms) == 1 else utils.get_total_norm(norms)
    if error_if_nonfinite and not torch.isfinite(norm):
        raise RuntimeError(f"the norm of the gradients is {float(norm)}, and backward has stepped with them already")
    return norm


@untraced
def clip_grad_value_(parameters: Any, clip_value: float, *args: Any, **kwargs: Any) -> Any:
    """Clip as torch does, or raise for stepped parameters."""
    parameters = _listed(parameters)
    if _stepped(parameters):
        raise RuntimeError(
            f"{_GONE} single values cannot be clipped there. Clip the norm by max_norm of the optimizer, or step after "
            "backward: handle.remove()"
        )
    return _torch["clip_grad_value_"](parameters, clip_value, *args, **kwargs)


_OURS = {"clip_grad_norm_": clip_grad_norm_, "clip_grad_value_": clip_grad_value_}
_GONE = "clipping after release_gradients: backward has stepped with these gradients already, and they are gone;"


def _listed(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def _stepped(parameters: list[Tensor]) -> list[Stepped]:
    """The releases that stepped one of these parameters since their last `optimizer.step()`."""
    return [release for release in _releases if not release.seen.isdisjoint(parameters)]
