"""The rows: one scenario beside one peer, with its figures or with the reason why nothing was measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adamas.bench.clock import TOLERABLE
from adamas.bench.scenario import FIRST, MEMORY, PEAKS, Scenario

# Keys that a file has only where there is something to say: most of them are facts about a GPU.
LEFT_OUT_IF_NONE = {"format", "peer_dtype", "device_seconds", "first_seconds", "first_limit", "kernel", "peak"}


@dataclass(frozen=True)
class Side:
    """The figures of one implementation.

    Attributes:
        seconds: seconds of a call, the median of the rounds.
        error_ulps: error of the parameters after the checked steps, see `adamas.bench.rule.error_ulps`.
        state_bytes: bytes a parameter beyond the parameter and its gradient, a phase's average of the weights included.
        device_seconds: seconds of a call on the GPU alone, where `seconds` is by the host's clock.
        first_seconds: seconds of the first call on the tensors of the check, with all that is compiled then; None on a
            CPU where nothing is compiled.
        kernel: names of our kernels that stepped on a GPU.
    """

    seconds: float
    error_ulps: float
    state_bytes: float
    device_seconds: float | None = None
    first_seconds: float | None = None
    kernel: str | None = None


@dataclass(frozen=True)
class Figures:
    """The measured figures of both implementations; ratios of our time are taken round by round.

    Attributes:
        ours: figures of Adamas.
        peer: figures of the peer.
        ratio: our time to the peer's, the median of the rounds.
        lowest: lowest ratio of all rounds.
        highest: highest ratio of all rounds.
        memory_ratio: our time to that of moving the same bytes, see `adamas.bench.memory`; the median of the rounds.
        others: share of the machine's processor time that other processes took meanwhile; None where it is unknown.
    """

    ours: Side
    peer: Side
    ratio: float
    lowest: float
    highest: float
    memory_ratio: float
    others: float | None = None

    @property
    def first_ratio(self) -> float | None:
        """The time of our first call to that of the peer's; None where these were not measured."""
        ours, theirs = self.ours.first_seconds, self.peer.first_seconds
        return None if ours is None or theirs is None else ours / theirs


@dataclass(frozen=True)
class Peak:
    """Bytes a parameter of parameters, gradients, state and all that a step takes for itself.

    Attributes:
        first: the most during the first step, which makes the state.
        later: the most during a later step.
        resident: the bytes that stay after a step.
    """

    first: float
    later: float
    resident: float


@dataclass(frozen=True)
class Row:
    """One scenario beside one peer, or the memory that one implementation takes.

    Attributes:
        scenario: name of the scenario.
        work: what was measured, see `Scenario.work`.
        dtype: dtype of our parameters.
        tensors: number of tensors.
        parameters: number of weights in all tensors.
        peer: name of the peer; for memory, name of the implementation.
        versions: versions of the packages that the peer is made of.
        limit: highest allowed ratio, or bytes a parameter at the peak; None where there is no limit.
        memory_limit: highest allowed memory ratio; None where there is no limit.
        figures: figures of time; None where none were measured.
        reason: why nothing was measured; None where something was.
        format: name of our storage; None where the dtype says it.
        peer_dtype: dtype of the peer's parameters; None where it is ours.
        peak: figures of memory; None where none were measured.
        first_limit: highest allowed ratio of the first calls; None where there is no limit.
    """

    scenario: str
    work: str
    dtype: str
    tensors: int
    parameters: int
    peer: str
    versions: dict[str, str]
    limit: float | None
    memory_limit: float | None
    figures: Figures | None = None
    reason: str | None = None
    format: str | None = None
    peer_dtype: str | None = None
    peak: Peak | None = None
    first_limit: float | None = None

    @classmethod
    def of(cls, scenario: Scenario, peer: str, versions: dict[str, str], reason: str | None = None) -> Row:
        """Return a row without figures."""
        return cls(
            scenario=scenario.name,
            work=scenario.work,
            dtype=scenario.dtype,
            tensors=len(scenario.shapes),
            parameters=scenario.parameters,
            peer=peer,
            versions=versions,
            limit=scenario.limits.get(peer),
            memory_limit=scenario.limits.get(MEMORY),
            reason=reason,
            format=scenario.format,
            peer_dtype=scenario.peer_dtype,
            first_limit=scenario.limits.get(FIRST),
        )

    @property
    def verdicts(self) -> dict[str, bool]:
        """Whether each limit is kept, by its name; empty where nothing was measured."""
        pairs: dict[str, tuple[float, float | None]] = {}
        if self.peak is not None:
            pairs["peak"] = (max(self.peak.first, self.peak.later), self.limit)
        if self.figures is not None:
            pairs["ratio"] = (self.figures.ratio, self.limit)
            pairs[MEMORY] = (self.figures.memory_ratio, self.memory_limit)
            if self.figures.first_ratio is not None:
                pairs[FIRST] = (self.figures.first_ratio, self.first_limit)
        return {name: found <= limit for name, (found, limit) in pairs.items() if limit is not None}

    @property
    def within(self) -> bool | None:
        """Whether all limits are kept; None where there is no limit or nothing was measured."""
        return all(self.verdicts.values()) if self.verdicts else None

    @property
    def disturbed(self) -> bool:
        """Whether other processes took so much of the machine that the figures are doubtful."""
        return self.figures is not None and (self.figures.others or 0.0) > TOLERABLE

    @property
    def peer_label(self) -> str:
        """The peer's name, with the dtype that was chosen for its parameters where that is not float32."""
        return self.peer if self.peer_dtype in (None, "float32") else f"{self.peer} ({self.peer_dtype})"

    @property
    def heading(self) -> str:
        """The heading of the section that this row belongs to."""
        if self.work in PEAKS:
            return f"{self.scenario}: memory of a step, bytes a parameter"
        what = "ten steps in one call" if self.work == "ten steps" else f"a {self.work}"
        return f"{self.scenario}: {what}" + ("" if self.format else f" in {self.dtype}")

    @property
    def format_label(self) -> str:
        """The name of our storage, with our kernel where that is not the one for GPUs, and with released gradients."""
        kernel = None if self.figures is None else self.figures.ours.kernel
        said = (self.format or self.dtype) + ("" if kernel in (None, "triton") else f" ({kernel})")
        return f"{said}, gradients released" if self.work == "released peak" else said

    def __str__(self) -> str:
        which = "of" if self.work in PEAKS else "beside"
        return f"{self.scenario}, {self.work}, {self.format or self.dtype} {which} {self.peer_label}"

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data, without the optional keys that are None."""

        def kept(items: list[tuple[str, Any]]) -> dict[str, Any]:
            return {key: value for key, value in items if value is not None or key not in LEFT_OUT_IF_NONE}

        return asdict(self, dict_factory=kept)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """Return the row that `to_json` wrote."""
        fields = dict(data)
        if fields["figures"] is not None:
            figures = dict(fields["figures"])
            figures |= {side: Side(**figures[side]) for side in ("ours", "peer")}
            fields["figures"] = Figures(**figures)
        if "peak" in fields:
            fields["peak"] = Peak(**fields["peak"])
        return cls(**fields)
