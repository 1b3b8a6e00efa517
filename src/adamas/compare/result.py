"""What a finished study says: figures of each arm, differences, verdict, warnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from adamas.compare.arms import ARMS
from adamas.compare.cell import Outcome
from adamas.compare.selection import Winner
from adamas.compare.statistics import Difference, mean_and_sd, paired_difference
from adamas.compare.study import Record
from adamas.compare.verdict import Verdict, decide
from adamas.decay import to_independent

INERT = 0.1  # D below which a weight without gradient keeps over 90 % of itself: decay has hardly begun


@dataclass(frozen=True)
class Figures:
    """A figure over seeds."""

    mean: float
    sd: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Figures:
        """Summarise."""
        return cls(*mean_and_sd(values), tuple(values))


@dataclass(frozen=True)
class ArmResult:
    """An arm's chosen cell and its finalists.

    Attributes:
        winner: the cell.
        trials: runs spent on finding it.
        infeasible: how many of these, and of its finalists, diverged.
        validation: the primary metric of the finalists.
        test: every test figure of the finalists by name; empty where one of them diverged.
        pull: D of the cell; for L2 the mean over weights is estimated by dividing by the pilot's median sqrt(v_hat).
        seconds: mean wall time of a finalist.
    """

    winner: Winner
    trials: int
    infeasible: int
    validation: Figures
    test: dict[str, Figures]
    pull: float
    seconds: float

    @property
    def weight_decay_independent(self) -> float:
        """The chosen decay in the paper's convention."""
        return to_independent(self.winner.weight_decay, self.winner.lr)

    @property
    def code(self) -> str:
        """Ready to paste."""
        return ARMS[self.winner.arm].code(self.winner.lr, self.winner.weight_decay)


@dataclass(frozen=True)
class StudyResult:
    """Everything the table, the JSON and the page show.

    Attributes:
        record: the study.
        arms: by name.
        difference: AdamW minus Adam with L2 on the test split; None where a finalist diverged.
        over_none: each arm with decay minus Adam without.
        verdict: what to do.
        warnings: what to keep in mind about it, a sentence each.
    """

    record: Record
    arms: dict[str, ArmResult]
    difference: Difference | None
    over_none: dict[str, Difference]
    verdict: Verdict
    warnings: list[str]

    @property
    def code(self) -> list[str]:
        """The lines to paste that follow from the verdict: one, or both arms' where it does not choose."""
        chosen = {"switch": ["adamw"], "keep": ["adam_l2"], "no_decay": ["none"]}
        return [self.arms[arm].code for arm in chosen.get(self.verdict.kind, ["adamw", "adam_l2"])]


def summarise(record: Record) -> StudyResult:
    """Compute the figures, the differences and the verdict of a finished study."""
    metric, margin = record.settings.workload.metric, record.settings.margin
    arms = {arm: arm_result(record, arm) for arm in ARMS}
    diverged = [ARMS[name].title for name, arm in arms.items() if metric not in arm.test]
    if diverged:
        why = (
            f"the chosen cell of {' and of '.join(diverged)} diverged on a fresh seed, so there is no mean to compare."
        )
        return StudyResult(record, arms, None, {}, Verdict("undecided", "Undecided", why), cautions(record, arms))
    tests = {name: arm.test[metric].values for name, arm in arms.items()}
    difference = paired_difference(tests["adamw"], tests["adam_l2"], margin.relative)
    over_none = {
        name: paired_difference(tests[name], tests["none"], margin.relative)
        for name, arm in ARMS.items()
        if arm.decay != "none"
    }
    verdict = decide(difference, over_none, metric, margin)
    return StudyResult(record, arms, difference, over_none, verdict, cautions(record, arms))


def arm_result(record: Record, name: str) -> ArmResult:
    """Summarise an arm."""
    finals = record.finals(name)
    runs = [record.outcomes[cell] for cell in record.searched[name]]
    feasible = all(outcome.feasible for outcome in finals)
    metric = record.settings.workload.metric
    return ArmResult(
        winner=record.winners[name],
        trials=len(runs),
        infeasible=sum(not outcome.feasible for outcome in [*runs, *finals]),
        validation=Figures.of([outcome.validation[metric] for outcome in finals if outcome.feasible]),
        test={key: Figures.of([(o.test or {})[key] for o in finals]) for key in finals[0].test or {}}
        if feasible
        else {},
        pull=pull(record, name, finals[0]),
        seconds=fmean(outcome.seconds for outcome in finals),
    )


def pull(record: Record, arm: str, outcome: Outcome) -> float:
    """How much of a typical weight decay takes off in the run: D, for L2 over the median sqrt(v_hat)."""
    scale = record.pilot.gradient_scale[1] if ARMS[arm].decay == "coupled" else 1.0
    return outcome.total_decay / scale


def cautions(record: Record, arms: dict[str, ArmResult]) -> list[str]:
    """Warnings a reader should have: inert decay, edges of the grid, runs that diverged."""
    found: list[str] = []
    for name, arm in arms.items():
        title = ARMS[name].title
        if ARMS[name].decay != "none" and arm.pull < INERT:
            strongest = max(pull(record, name, record.outcomes[cell]) for cell in record.searched[name])
            tried = (
                f"although values up to D = {strongest:.3g} were tried: of these it does best with almost no decay"
                if strongest >= 1
                else "and no value tried could: the run is too short for decay to act, and a tie says nothing"
            )
            found.append(f"Decay is inert in {title}'s best cell (D = {arm.pull:.2g}, far below 1), {tried}.")
        if arm.winner.at_edge:
            found.append(f"{title}'s best cell has {arm.winner.at_edge}: a wider search may find a better one.")
        if arm.infeasible:
            found.append(f"{arm.infeasible} of {title}'s runs diverged; they count as tried and were never chosen.")
    return found


def finite(value: float) -> float | None:
    """A figure for JSON, which has neither infinity nor NaN."""
    return value if math.isfinite(value) else None
