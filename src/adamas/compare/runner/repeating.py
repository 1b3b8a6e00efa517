"""Repeat passes that were recorded, and hold them equal to the passes themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from adamas.compare.runner.recording import Recording, layout

Found = Sequence[Tensor | None]

log = logging.getLogger(__name__)


class RepetitionError(RuntimeError):
    """A pass cannot be watched, or no longer does what was recorded of it: the run so far may be wrong."""


class Repeater:
    """Runs a pass; from the third on with tensors of one layout, repeats what the second was recorded to do.

    The 1st, 2nd, 4th, 8th... repetition, the last step of the run and the last before tensors change their layout are
    compared with the pass, bit for bit: what depends on a counter, on the epoch or on Python's random numbers is found
    out. Where the first comparison fails, nothing was repeated yet and nothing will be. On a GPU nothing is: sums may
    come in another order each time.

    Args:
        run: the pass on a batch; it returns new tensors, or None where there is none.
        steps: of the whole run, a pass each.
        allowed: whether anything may be repeated.

    Raises:
        RepetitionError: a later comparison failed, or the second pass or a repetition raised; train anew, with nothing
            repeated, and an error of the job is raised where the job can be seen.
    """

    def __init__(self, run: Callable[[Any], Found], steps: int, allowed: bool = True) -> None:
        self._run = run
        self._steps = steps
        self._allowed = allowed
        self._passes = 0
        self._seen: set[Any] = set()
        self._recordings: dict[Any, Recording] = {}
        self._repeated: dict[Any, int] = {}
        self._unseen: tuple[Any, Any, Sequence[Tensor]] | None = None  # the last repetition, unless it was compared

    def __call__(self, batch: Any, weights: Sequence[Tensor], buffers: Sequence[Tensor]) -> Found:
        """The pass on a batch, with these weights; buffers may be written to."""
        self._passes += 1
        parts = tensors_of(batch) if self._allowed else None
        if parts is None:
            return self._run(batch)
        inputs = [*parts.values(), *weights, *buffers]
        kind = (*parts, *map(layout, inputs))
        if kind in self._recordings:
            return self._repeat(kind, batch, inputs)
        if kind not in self._seen:
            self._seen.add(kind)
            return self._run(batch)
        return self._record(kind, batch, inputs)

    def _record(self, kind: Any, batch: Any, inputs: Sequence[Tensor]) -> Found:
        """Run the pass and record it, if it can be."""
        if any(tensor.device.type != "cpu" for tensor in inputs):
            self._allowed = False
            return self._run(batch)
        try:
            recording = Recording(lambda: self._run(batch), inputs)
        except Exception as error:  # the pass's own, which it will raise again, or torch's, of watching it
            raise RepetitionError(f"a pass that was to be recorded raised {type(error).__name__}: {error}") from error
        if recording.obstacle is not None:
            self._refuse(recording.obstacle)
            return recording.found
        self._recordings[kind], self._repeated[kind] = recording, 0
        found, recording.found = recording.found, ()
        return found

    def _refuse(self, reason: str) -> None:
        """Repeat nothing from here on; too late if something was."""
        if any(count > 1 for count in self._repeated.values()):
            raise RepetitionError(f"at step {self._passes} {reason}")
        log.info("passes are not repeated: %s", reason)
        self._allowed = False

    def check(self) -> None:
        """Compare the last repetition, if it was not; to be called before tensors of another layout take over."""
        if self._unseen is None:
            return
        inputs = self._unseen[-1]
        before = copied(inputs)
        with torch.random.fork_rng(devices=[]):
            self._compare(*self._unseen)
        for tensor, value in zip(inputs, before, strict=True):
            if not agree(tensor, value):  # a buffer
                tensor.copy_(value)

    def _repeat(self, kind: Any, batch: Any, inputs: Sequence[Tensor]) -> Found:
        """Repeat the pass; where it is time to, compare."""
        self._repeated[kind] = count = self._repeated[kind] + 1
        if count & (count - 1) and self._passes != self._steps:
            self._unseen = kind, batch, inputs
            return self._again(kind, inputs)
        return self._compare(kind, batch, inputs)

    def _again(self, kind: Any, inputs: Sequence[Tensor]) -> Found:
        """Repeat the pass."""
        try:
            return self._recordings[kind].repeat(inputs)
        except Exception as error:
            raise RepetitionError(f"a repetition raised {type(error).__name__}: {error}") from error

    def _compare(self, kind: Any, batch: Any, inputs: Sequence[Tensor]) -> Found:
        """Repeat the pass on copies, and run it."""
        self._unseen, copies = None, copied(inputs)
        with torch.random.fork_rng(devices=[]):
            again = self._again(kind, copies)
        found = self._run(batch)
        if not same([*found, *inputs], [*again, *copies]):
            self._refuse("the loss does something else than in the steps before")
        return found


def tensors_of(batch: Any, path: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Tensor] | None:
    """The tensors of a batch by the way to each; None where it holds anything else.

    Example:
        >>> tensors_of({"x": torch.tensor(1), "y": [torch.tensor(2)]})
        {('x',): tensor(1), ('y', 0): tensor(2)}
        >>> tensors_of((torch.tensor(1), "train"))
    """
    if isinstance(batch, Tensor):
        return {path: batch}
    if not isinstance(batch, Mapping | list | tuple):
        return None
    found: dict[tuple[Any, ...], Tensor] = {}
    for key, part in batch.items() if isinstance(batch, Mapping) else enumerate(batch):
        tensors = tensors_of(part, (*path, key))
        if tensors is None:
            return None
        found.update(tensors)
    return found


def copied(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same values in memory of their own."""
    return [tensor.detach().clone() for tensor in tensors]


def same(some: Found, others: Found) -> bool:
    """Whether tensors agree in every value; NaN agrees with itself."""
    return all(map(agree, some, others))


def agree(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors, or neither, are there and hold the same."""
    if one is None or other is None:
        return one is other
    alike = torch.equal(one, other)
    return alike or (one.is_floating_point() and torch.allclose(one, other, rtol=0.0, atol=0.0, equal_nan=True))
