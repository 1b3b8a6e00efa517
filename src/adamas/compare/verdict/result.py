"""What a finished study says: figures of each arm, differences, verdict, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from adamas import user_code
from adamas.compare.search.record import Record
from adamas.compare.search.selection import Winner
from adamas.compare.study.arms import ARMS, JUDGED, Arm
from adamas.compare.study.errors import NoScaleError
from adamas.compare.study.margin import Margin
from adamas.compare.study.run import Outcome
from adamas.compare.verdict.decision import Verdict, decide
from adamas.compare.verdict.statistics import Difference, mean_and_sd, paired_difference
from adamas.compare.verdict.warnings import cautions
from adamas.compare.verdict.wording import TIMES, words
from adamas.decay import timescale_epochs, to_independent


@dataclass(frozen=True)
class Finding:
    """What a workload was expected to show, what it shows, and whether that is it; None where it cannot be told."""

    expected: str
    measured: str
    holds: bool | None


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
        arm: whose.
        winner: the cell.
        trials: runs spent on finding it.
        infeasible: how many of these, and of its finalists, have no figure: they diverged or were given up.
        given_up: how many of these were given up.
        validation: the primary metric of the finalists.
        test: every test figure of the finalists by name; empty where one of them diverged.
        pull: D of the cell; for L2 the mean over weights is estimated by dividing by the pilot's median sqrt(v_hat).
            None without a pilot.
        timescale: tau, the epochs over which AdamW's weights average their updates; None for other arms.
        seconds: mean wall time of a finalist.
    """

    arm: Arm
    winner: Winner
    trials: int
    without_figures: int
    pruned: int
    validation: Figures
    test: dict[str, Figures]
    pull: float | None
    timescale: float | None
    seconds: float

    @property
    def lr(self) -> float:
        """The chosen learning rate."""
        return self.winner.lr

    @property
    def weight_decay(self) -> float:
        """The chosen weight decay in torch's convention."""
        return self.winner.weight_decay

    @property
    def weight_decay_paper(self) -> float:
        """The chosen decay in the paper's convention."""
        return to_independent(self.winner.weight_decay, self.winner.lr)


@dataclass(frozen=True)
class Summary:
    """Everything the table, the JSON and the page show.

    Attributes:
        record: the study.
        arms: by name.
        difference: AdamW minus Adam with L2 on the test split; None where a finalist diverged.
        over_none: each arm with decay minus Adam without.
        verdict: what to do.
        warnings: what to keep in mind about it, a sentence each.
        findings: what the workload was expected to show, and whether it does.
    """

    record: Record
    arms: dict[str, ArmResult]
    difference: Difference | None
    over_none: dict[str, Difference]
    verdict: Verdict
    warnings: list[str]
    findings: list[Finding] = field(default_factory=list)

    @property
    def settings_sentence(self) -> str:
        """The chosen arms' learning rate and weight decay, in both conventions."""
        return " ".join(prescription(self.arms[arm]) for arm in self.chosen)

    @property
    def chosen(self) -> list[str]:
        """The arm that the verdict chooses, or both where it does not choose."""
        return {"switch": ["adamw"], "keep": ["adam_l2"], "no_decay": ["none"]}.get(self.verdict.kind, list(JUDGED))

    @property
    def code(self) -> list[str]:
        """The lines to paste that follow from the verdict: one, or both arms' where it does not choose."""
        groups = self.record.settings.workload.groups
        chosen = (self.arms[arm] for arm in self.chosen)
        return [each.arm.code(each.winner.lr, each.winner.weight_decay, groups) for each in chosen]


def summarise(record: Record) -> Summary:
    """Compute the figures, the differences and the verdict of a finished study."""
    metric, margin = record.settings.workload.metric, record.settings.margin
    arms = {arm: arm_result(record, arm) for arm in record.settings.arms}
    tests = {name: arm.test[metric].values for name, arm in arms.items() if metric in arm.test}
    difference, over_none = None, {}
    if lost := [arms[name].arm.title for name in JUDGED if name not in tests]:
        why = f"the chosen cell of {' and of '.join(lost)} diverged on a fresh seed, so there is no mean to compare."
        verdict = Verdict("undecided", "Undecided", why)
    else:
        relative = is_relative(tests, metric, margin)
        difference = paired_difference(tests["adamw"], tests["adam_l2"], relative)
        over_none = {
            name: paired_difference(values, tests["none"], relative)
            for name, values in tests.items()
            if "none" in tests and name != "none"
        }
        verdict = decide(difference, over_none, metric, margin)
    result = Summary(record, arms, difference, over_none, verdict, cautions(record, arms, verdict, over_none))
    return replace(result, findings=findings_of(result))


def is_relative(tests: Mapping[str, Sequence[float]], metric: str, margin: Margin) -> bool:
    """Whether differences can be fractions; nobody knew before the finalists were tested.

    Where every figure is 0 there is nothing to be a fraction of, and nothing to differ in.
    """
    if not margin.relative or not any(map(any, tests.values())):
        return False
    for name in ("adam_l2", "none"):
        if name in tests and fmean(tests[name]) <= 0:
            raise NoScaleError(
                f"margin={margin} is a fraction of the mean test {words(metric)} of {ARMS[name].title}, which is "
                f"{fmean(tests[name]):g} and must be above 0. Every run is kept: with a margin in the metric's own "
                "unit, as in --margin 0.002abs, the same command says the verdict at once"
            )
    return True


def arm_result(record: Record, name: str) -> ArmResult:
    """Summarise an arm."""
    finals = record.finals(name)
    searched = [record.outcomes[run] for run in record.searched[name]]
    ok = all(outcome.ok for outcome in finals)
    metric, arm, winner = record.settings.workload.metric, record.settings.arms[name], record.winners[name]
    return ArmResult(
        arm=arm,
        winner=winner,
        trials=len(searched),
        without_figures=sum(not outcome.ok for outcome in [*searched, *finals]),
        pruned=sum(outcome.pruned for outcome in searched),
        validation=Figures.of([outcome.validation[metric] for outcome in finals if outcome.ok]),
        test={key: Figures.of([(o.test or {})[key] for o in finals]) for key in finals[0].test or {}} if ok else {},
        pull=pull(record, name, next((outcome for outcome in finals if outcome.ok), finals[0])),
        timescale=timescale_epochs(winner.weight_decay, winner.lr, finals[0].steps_per_epoch)
        if arm.decoupled
        else None,
        seconds=fmean(outcome.seconds for outcome in finals),
    )


def pull(record: Record, name: str, outcome: Outcome) -> float | None:
    """How much of a typical weight decay takes off in the run: D, for L2 over the median sqrt(v_hat) of the pilot."""
    if record.settings.arms[name].decay != "l2":
        return outcome.total_decay
    return outcome.total_decay / record.pilot.gradient_scale[1] if record.pilot else None


def prescription(arm: ArmResult) -> str:
    """An arm's setting as a sentence."""
    if arm.arm.decay == "none":
        return f"{arm.arm.title}: lr {arm.winner.lr:.3g}."
    return (
        f"{arm.arm.title}: lr {arm.winner.lr:.3g}, weight_decay {arm.winner.weight_decay:.3g} as torch counts it, which"
        f" is lr {TIMES} weight_decay {arm.weight_decay_paper:.3g} in the paper's convention."
    )


def findings_of(result: Summary) -> list[Finding]:
    """Hold a study against what its workload was expected to show."""
    where = result.record.settings.workload.findings
    return user_code.function(where, "findings", "a list of Finding")(result) if where else []


def finite(value: float) -> float | None:
    """A figure for JSON, which has neither infinity nor NaN."""
    return value if math.isfinite(value) else None
