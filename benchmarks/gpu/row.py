"""A finished comparison, or a finished measurement of memory: figures against limits, or the reason for none."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Side:
    """One implementation.

    Attributes:
        seconds: a call, median of the rounds, by the clock that the row names.
        device_seconds: a call's work on the device alone, where `seconds` is by the host's clock.
        first_seconds: the first call in this process, with what is compiled then, on the few tensors of the check.
        error_ulps: the largest of a parameter after five steps against the rule in float64, in units of the last place
            of its dtype: see `adamas.bench.rule.error_ulps`. Measured on the same device and in the same format, but on
            tensors of together less than 1 M elements (`shapes.TWIN`), since float64 of all would take minutes.
        state_bytes: a parameter, beyond the parameter and its gradient; a phase's average of the weights included.
        bandwidth: share of the copy bandwidth of this run at which a call moves the bytes it has to: each parameter and
            all its state once in and once out, the gradient once in, in a phase twice.
        kernel: which of ours stepped; empty for a peer.
    """

    seconds: float
    device_seconds: float | None
    first_seconds: float
    error_ulps: float
    state_bytes: float
    bandwidth: float
    kernel: str = ""


@dataclass(frozen=True)
class Figures:
    """Both sides, and ratios of our time to the peer's, taken round by round.

    Attributes:
        ours: Adamas.
        peer: the other.
        ratio: the median of the rounds.
        lowest: of the rounds.
        highest: of the rounds.
    """

    ours: Side
    peer: Side
    ratio: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Row:
    """One of our formats beside a peer.

    Attributes:
        scenario: its name.
        work: "step" or "phase".
        tensors: how many.
        parameters: how many weights in them.
        format: how ours is stored.
        peer: its name.
        peer_dtype: of its parameters.
        clock: "device" between two events on it, or "host" with the device waited for.
        limits: "ratio", the highest allowed, and "bandwidth", the lowest of ours, where there are any.
        figures: None where the pair could not be measured.
        reason: why not.
    """

    scenario: str
    work: str
    tensors: int
    parameters: int
    format: str
    peer: str
    peer_dtype: str
    clock: str
    limits: dict[str, float] = field(default_factory=dict[str, float])
    figures: Figures | None = None
    reason: str | None = None

    @property
    def verdicts(self) -> dict[str, bool]:
        """Whether each limit holds; none without figures."""
        if self.figures is None:
            return {}
        held = {
            "ratio": lambda limit: self.figures.ratio <= limit,
            "bandwidth": lambda limit: self.figures.ours.bandwidth >= limit,
        }
        return {name: held[name](limit) for name, limit in self.limits.items()}

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the verdicts for readers of the file."""
        return {**asdict(self), "verdicts": self.verdicts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """From plain data."""
        fields = {key: value for key, value in data.items() if key != "verdicts"}
        if fields["figures"] is not None:
            figures = dict(fields["figures"])
            figures |= {side: Side(**figures[side]) for side in ("ours", "peer")}
            fields["figures"] = Figures(**figures)
        return cls(**fields)


@dataclass(frozen=True)
class PeakBytes:
    """Bytes a weight, of parameters, gradients, state and what the step itself takes.

    Attributes:
        first: the most during the first step, which makes the state.
        later: the most during a later step.
        resident: what stays after a step.
    """

    first: float
    later: float
    resident: float


@dataclass(frozen=True)
class PeakRow:
    """The memory of a training step without activations.

    Attributes:
        scenario: the name of the list of parameters.
        parameters: how many weights in it.
        who: "adamas" or a peer.
        format: how ours is stored, or the dtype of the peer's parameters.
        released: whether gradients were released in backward.
        limit: bytes a weight at the peak, where there is one.
        figures: None where it could not be measured.
        reason: why not.
    """

    scenario: str
    parameters: int
    who: str
    format: str
    released: bool
    limit: float | None = None
    figures: PeakBytes | None = None
    reason: str | None = None

    @property
    def verdicts(self) -> dict[str, bool]:
        """Whether the limit holds, in the first step too."""
        if self.figures is None or self.limit is None:
            return {}
        return {"peak": max(self.figures.first, self.figures.later) <= self.limit}

    def to_json(self) -> dict[str, Any]:
        """As plain data, with the verdicts for readers of the file."""
        return {**asdict(self), "verdicts": self.verdicts}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PeakRow:
        """From plain data."""
        fields = {key: value for key, value in data.items() if key != "verdicts"}
        if fields["figures"] is not None:
            fields["figures"] = PeakBytes(**fields["figures"])
        return cls(**fields)
