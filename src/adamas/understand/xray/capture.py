"""Take the sample of one live step: keep the weights before it, and read weights and moments after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adamas.scalars import Hyper
from adamas.understand.xray.elements import Place, States, joined, size, steps
from adamas.understand.xray.momentum import DecayMomentum
from adamas.understand.xray.sample import Array, Layer, Sample


@dataclass(frozen=True)
class Member:
    """One parameter of the optimizer before a step."""

    name: str
    param: Tensor
    place: Place
    hyper: Hyper
    base_lr: float


class Capture:
    """The weights before a step, from which `sample` makes the sample after it."""

    def __init__(self, members: list[Member], states: States) -> None:
        self._members, self._states = members, states
        self._steps = [steps(member.param, states) for member in members]
        self._weights = self._weights_of(members)

    def sample(self, momenta: Iterable[DecayMomentum]) -> Sample | None:
        """Return the sample of the step that was taken since; None where no parameter was stepped."""
        pairs = list(zip(self._members, self._steps, self._weights, strict=True))
        stepped = [pair for pair in pairs if steps(pair[0].param, self._states) == pair[1] + 1]
        if not stepped:
            return None
        members = [member for member, _, _ in stepped]
        averages = _averages(momenta)
        now = self._weights_of(members)
        before, after = _array([old for _, _, old in stepped]), _array(now)
        moments = [m.place.moments(m.param, self._states[m.param], m.hyper.amsgrad != "off") for m in members]
        layers = [
            Layer(m.name, m.place.elements, m.hyper, begun + 1, m.base_lr, averages.get(m.param, (None, False))[1],
                  *size(m.param, m.place, weights))
            for (m, begun, _), weights in zip(stepped, now, strict=True)
        ]  # fmt: skip
        unknown = [torch.zeros(m.place.count) for m in members]
        parts = [averages.get(m.param, (zeros, False))[0] for m, zeros in zip(members, unknown, strict=True)]
        return Sample(
            layers,
            np.array([member.place.count for member in members]),
            _array([first for first, _ in moments]),
            np.sqrt(_array([second for _, second in moments])),
            before,
            after,
            _array(parts) if averages else None,
            before == after,
        )

    def _weights_of(self, members: list[Member]) -> list[Tensor]:
        """Return copies of the sampled weights of each parameter."""
        whole = joined(member.place.weight(member.param, self._states) for member in members)
        return list(whole.split([member.place.count for member in members]))


def _averages(momenta: Iterable[DecayMomentum]) -> Mapping[Tensor, tuple[Tensor, bool]]:
    """Return for each parameter the part of its first moment that comes from L2, and whether that is exact."""
    return {
        param: (average, exact)
        for momentum in momenta
        for param, average, exact in zip(momentum.params, *momentum.read(), strict=True)
    }


def _array(tensors: Iterable[Tensor]) -> Array:
    return joined(tensors).double().cpu().numpy()
