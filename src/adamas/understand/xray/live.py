"""`XRay`: what weight decay does to every layer of a running training, measured every so many steps."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Optimizer

import adamas.torch
from adamas.language import chosen
from adamas.scalars import number
from adamas.understand.xray import columns, writers
from adamas.understand.xray.capture import Capture, Member
from adamas.understand.xray.elements import Place
from adamas.understand.xray.figures import Reading, read
from adamas.understand.xray.groups import base_lr_of, hyper_of
from adamas.understand.xray.momentum import DecayMomentum, counts, steps_to_forget
from adamas.understand.xray.predict import Windows, predict_windows

Names = nn.Module | Mapping[str, Tensor] | Iterable[tuple[str, Tensor]] | None
KEPT = 512  # of the samples: with more, every second one is dropped, so that long runs keep an even history


class XRay:
    """Measures what weight decay does to every layer, beside any training loop, and changes nothing in it.

    Every `every` steps it reads up to about 1,024 weights of each layer, spread evenly, with their moments. Docs page
    "X-ray" explains the figures.

    ```
    rate_i = (decay part of the step of weight i) / theta_i
           = lr * weight_decay                           decoupled, decay="lr"
           = lr * mhat_decay_i / (sqrt(vhat_i) + eps) / theta_i    L2, where m = m_gradient + m_decay
    ```

    Under L2, m_decay is kept over the last 7 / (1 - beta1) steps before each sample. It is exact where samples lie at
    most 1.9 / (1 - beta1) steps apart. Otherwise only every eighth of the older steps counts: see the docs page.

    Args:
        optimizer: an Adam or AdamW of adamas.torch or torch.optim.
        names: the model, or names with parameters as a dict or pairs; None takes the names from the groups, or counts.
        every: how many steps lie between samples, >= 1.
        steps_per_epoch: the number of optimizer steps in an epoch, for timescales in epochs.
        writer: a TensorBoard SummaryWriter that gets every sample at once.

    Raises:
        TypeError: `optimizer` is no Adam or AdamW.
        ValueError: `every` or `steps_per_epoch` is out of range; the optimizer steps inside of backward.

    Example:
        >>> import torch
        >>> from adamas.torch import AdamW
        >>> model = torch.nn.Linear(20, 10)
        >>> optimizer = AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
        >>> with XRay(optimizer, names=model, every=5) as xray:
        ...     for _ in range(10):
        ...         optimizer.zero_grad()
        ...         model(torch.randn(32, 20)).square().mean().backward()
        ...         optimizer.step()
        >>> [(row["layer"], round(row["rate_p50"], 6)) for row in xray.to_dicts()[-3:]]
        [('all layers', 0.001), ('weight', 0.001), ('bias', 0.001)]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        names: Names = None,
        every: int = 100,
        *,
        steps_per_epoch: float | None = None,
        writer: writers.ScalarWriter | None = None,
    ) -> None:
        _check(optimizer, every, steps_per_epoch)
        self.optimizer, self.every, self.steps_per_epoch = optimizer, int(every), steps_per_epoch
        self._names = _names_of(names)
        self._decoupled = isinstance(optimizer, torch.optim.AdamW)  # where groups of an older torch do not say so
        self._writer = writer
        self._calls, self._longest = 0, 0  # steps seen; steps before a sample in which anything is due
        self._readings: list[Reading] = []
        self._places: dict[Tensor, Place] = {}
        self._momenta: dict[int, DecayMomentum] = {}  # of each group with L2, in the steps before a sample
        self._pending: Capture | None = None
        self._hooks = [optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)]

    def __enter__(self) -> XRay:
        """Return the X-ray, which is attached since it was made."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach the X-ray from the optimizer."""
        self.detach()

    def detach(self) -> None:
        """Remove the hooks from the optimizer. The samples stay."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._pending = [], None
        self._momenta, self._places = {}, {}

    @property
    def readings(self) -> tuple[Reading, ...]:
        """The samples so far; with more than 512, every second of the older ones is dropped."""
        return tuple(self._readings)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dict for each sample and layer, with the keys of the table in the docs; unknown is None."""
        return [row for reading in self._readings for row in columns.dicts(reading, self.steps_per_epoch)]

    def table(self, *, lang: str | None = None) -> Table:
        """Return the last sample as a table to print with Rich.

        Args:
            lang: "en" or "zh"; None takes the language of the locale.

        Raises:
            ValueError: there is no sample yet, or the language is not one of these two.
        """
        return writers.table(columns.dicts(self._last(), self.steps_per_epoch), columns.texts(chosen(lang)))

    def report(self, path: str | os.PathLike[str], *, lang: str | None = None) -> Path:
        """Write all samples as an HTML page that works offline, and return its path.

        Args:
            path: a folder, which gets an index.html, or an .html file.
            lang: "en" or "zh"; None takes the language of the locale.

        Raises:
            ValueError: there is no sample yet, or the language is not one of these two.
        """
        from adamas.understand.xray.report import write_report

        self._last()
        what = type(self.optimizer).__name__
        return write_report(Path(path), self._readings, what, self.steps_per_epoch, lang=lang)

    def write_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write all samples to a CSV file, one line for each sample and layer, and return its path."""
        writers.write_csv(Path(path), self.to_dicts())
        return Path(path)

    def write_tensorboard(self, writer: writers.ScalarWriter) -> None:
        """Record all samples so far in a TensorBoard SummaryWriter. `XRay(writer=...)` records each at once."""
        writers.write_scalars(writer, self.to_dicts())

    def predict(self, epochs: float, steps_per_epoch: float | None = None, lr: float | None = None) -> Windows:
        """Predict where the weight decays of AdamW and of L2 lie that are worth a try, from the samples so far.

        Args:
            epochs: the number of epochs of the run to predict for.
            steps_per_epoch: the number of optimizer steps in an epoch; None for the X-ray's.
            lr: the learning rate; None for the one that the schedule of the first group starts from.

        Raises:
            ValueError: there is no sample yet, or a number is missing or not > 0.
        """
        self._last()
        per_epoch = self.steps_per_epoch if steps_per_epoch is None else steps_per_epoch
        rate = base_lr_of(self.optimizer.param_groups[0]) if lr is None else lr
        return predict_windows([reading.roots for reading in self._readings], rate, per_epoch, epochs)

    def _last(self) -> Reading:
        if not self._readings:
            raise ValueError(
                f"no sample yet: {self._calls} steps were taken since the X-ray was attached, and every={self.every} "
                "takes the first sample at that step. Give a smaller `every`"
            )
        return self._readings[-1]

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Before a step: count the weights of groups with L2, and keep those of a sample."""
        self._calls += 1
        remaining = -self._calls % self.every
        if remaining == self.every - 1:
            self._longest = max(steps_to_forget(float(group["betas"][0])) for group in optimizer.param_groups)
        if remaining <= self._longest:
            with torch.no_grad():
                self._look(optimizer, remaining)

    def _look(self, optimizer: Optimizer, remaining: int) -> None:
        """Do what is due this many steps before a sample."""
        for index, group in enumerate(optimizer.param_groups):
            coupled = group["weight_decay"] and not group.get("decoupled_weight_decay", self._decoupled)
            if coupled:
                self._count(index, group, remaining)
        if remaining == 0:
            _refuse_release(optimizer)
            self._pending = Capture(self._members(), optimizer.state)

    def _count(self, index: int, group: dict[str, Any], remaining: int) -> None:
        """Add a step to the average of lambda * theta of a group, if it is due before the next sample."""
        beta1 = float(group["betas"][0])
        window = steps_to_forget(beta1)
        if remaining > window:
            return
        momentum = self._momenta.get(index)
        if momentum is None or remaining == window or momentum.size != len(group["params"]):
            params = [param for param in group["params"] if param.numel()]
            places = [self._place(param) for param in params]
            momentum = DecayMomentum(params, places, self.optimizer.state, len(group["params"]))
            self._momenta[index] = momentum
        if counts(remaining, beta1):
            momentum.add(hyper_of(group, self._decoupled))
        else:
            momentum.pass_by()

    def _members(self) -> list[Member]:
        """Return all parameters with their names and hyperparameters."""
        found: list[Member] = []
        for index, group in enumerate(self.optimizer.param_groups):
            hyper, base_lr = hyper_of(group, self._decoupled), base_lr_of(group)
            named = group.get("param_names") or []
            for place, param in enumerate(group["params"]):
                own = named[place] if place < len(named) else f"group {index}, parameter {place}"
                if param.numel():
                    name = self._names.get(id(param), own)
                    found.append(Member(name, param, self._place(param), hyper, base_lr))
        return found

    def _place(self, param: Tensor) -> Place:
        if param not in self._places:
            self._places[param] = Place(param)
        return self._places[param]

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """After a step: take the sample that is due."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        with torch.no_grad():
            sample = pending.sample(self._momenta.values())
        # An average that is kept for every step goes on; the others begin again before the next sample.
        self._momenta = {index: each for index, each in self._momenta.items() if each.window >= self.every}
        if sample is None:
            return
        reading = read(sample)
        self._readings.append(reading)
        if len(self._readings) > KEPT:
            self._readings = self._readings[::2]
        if self._writer is not None:
            writers.write_scalars(self._writer, columns.dicts(reading, self.steps_per_epoch))


def _check(optimizer: Any, every: Any, steps_per_epoch: Any) -> None:
    """Raise unless an X-ray with these arguments is possible."""
    if not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW | adamas.torch.Adam):
        raise TypeError(
            f"optimizer is a {type(optimizer).__name__}, and must be an Adam or AdamW of adamas.torch or torch.optim: "
            "the X-ray knows the rules of these. Give one of them, without a wrapper around it"
        )
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every={every!r} must be an integer >= 1: the number of steps from sample to sample")
    if steps_per_epoch is not None and not number(steps_per_epoch) > 0:
        raise ValueError(f"steps_per_epoch={steps_per_epoch!r} must be > 0, or None for timescales in steps")
    _refuse_release(optimizer)


def _refuse_release(optimizer: Any) -> None:
    """Raise ValueError where the optimizer steps inside of backward: no hook sees the weights before the step."""
    conductor = getattr(optimizer, "_conductor", None)
    if conductor is not None and conductor.release is not None:
        raise ValueError(
            "release_gradients steps inside of backward, before any hook: an X-ray cannot see the weights before a "
            "step. Remove the handle of release_gradients for the run that you look at"
        )


def _names_of(names: Names) -> dict[int, str]:
    """Return the given names by the identity of the parameter."""
    if names is None:
        return {}
    pairs = names.named_parameters() if isinstance(names, nn.Module) else names
    pairs = pairs.items() if isinstance(pairs, Mapping) else pairs
    return {id(param): str(name) for name, param in pairs}
