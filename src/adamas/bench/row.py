"""A finished comparison: one scenario beside one peer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adamas.bench.neighbours import TOLERABLE
from adamas.bench.scenario import MEMORY, Scenario


@dataclass(frozen=True)
class Side:
    """One implementation.

    Attributes:
        seconds: a call, median of the rounds.
        error_ulps: of the parameters against the float64 rule, see `adamas.bench.rule.error_ulps`.
        state_bytes: a parameter, beyond the parameter and its gradient; a phase's average of the weights included.
    """

    seconds: float
    error_ulps: float
    state_bytes: float


@dataclass(frozen=True)
class Figures:
    """What was measured: both sides, and ratios of our time taken round by round.

    Attributes:
        ours: Adamas.
        peer: the other.
        ratio: ours to the peer's, median of the rounds.
        lowest: of the rounds.
        highest: of the rounds.
        memory_ratio: ours to the time of moving the same bytes; see `adamas.bench.memory`.
        others: share of the machine's processor time that went to other processes meanwhile; None where unknown.
    """

    ours: Side
    peer: Side
    ratio: float
    lowest: float
    highest: float
    memory_ratio: float
    others: float | None = None


@dataclass(frozen=True)
class Row:
    """One scenario beside one peer: figures, or the reason why there are none.

    Attributes:
        scenario: its name.
        work: "step" or "phase".
        dtype: of the parameters.
        tensors: how many.
        parameters: how many weights in them.
        peer: its name.
        versions: of what the peer is made of.
        limit: highest allowed ratio, where there is one.
        memory_limit: highest allowed memory ratio, where there is one.
        figures: None where the peer could not be measured.
        reason: why not.
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

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        peer: str,
        versions: dict[str, str],
        figures: Figures | None = None,
        reason: str | None = None,
    ) -> Row:
        """A row for a scenario and a peer."""
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
            figures=figures,
            reason=reason,
        )

    @property
    def within(self) -> bool | None:
        """Whether the ratios keep to the limits; None where there is nothing to keep to."""
        if self.figures is None or (self.limit is None and self.memory_limit is None):
            return None
        pairs = ((self.figures.ratio, self.limit), (self.figures.memory_ratio, self.memory_limit))
        return all(limit is None or ratio <= limit for ratio, limit in pairs)

    @property
    def disturbed(self) -> bool:
        """Whether other processes took enough of the machine to make the figures doubtful."""
        return self.figures is not None and (self.figures.others or 0.0) > TOLERABLE

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """From plain data."""
        fields = dict(data)
        if fields["figures"] is not None:
            figures = dict(fields["figures"])
            figures |= {side: Side(**figures[side]) for side in ("ours", "peer")}
            fields["figures"] = Figures(**figures)
        return cls(**fields)
