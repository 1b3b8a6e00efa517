"""The results of a finished study: the figures of each arm, differences, the verdict, warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import fmean

from adamas import user_code
from adamas.compare.search.candidates import Candidates
from adamas.compare.search.record import Record
from adamas.compare.search.selection import Winner
from adamas.compare.study.arms import ARMS, JUDGED, Arm
from adamas.compare.study.errors import NoScaleError
from adamas.compare.study.margin import Margin
from adamas.compare.study.run import Config
from adamas.compare.verdict.decision import Plan, Verdict, decide
from adamas.compare.verdict.sequential import level
from adamas.compare.verdict.statistics import Difference, mean_and_sd, paired_difference
from adamas.compare.verdict.warnings import warnings_of
from adamas.compare.verdict.wording import texts, title, words
from adamas.decay import timescale_epochs, to_independent
from adamas.language import Language, Texts

_Tests = Mapping[str, Sequence[float]]  # the test figures of each arm


@dataclass(frozen=True)
class Finding:
    """An expectation about a workload and the measured result, as sentences.

    `holds` is None where the study cannot tell whether they agree.
    """

    expected: str
    measured: str
    holds: bool | None


@dataclass(frozen=True)
class Figures:
    """The values of a figure over seeds, with their mean and standard deviation."""

    mean: float
    sd: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Figures:
        """Return the values with their mean and standard deviation."""
        return cls(*mean_and_sd(values), tuple(values))


@dataclass(frozen=True)
class ArmResult:
    """The config that was chosen for an arm, and the figures of its finalists.

    Attributes:
        arm: The arm itself.
        winner: The config that was chosen.
        trials: The number of runs of the search; for Adam without decay, those of the pilot included.
        trials_without_figures: The number of runs of the search without figures.
        without_figures: The number of runs without figures, finalists included.
        pruned: The number of those runs that were pruned.
        validation: The primary metric of the finalists on the validation split.
        test: The test figures of the finalists by name; empty where a finalist diverged.
        total_decay: D of the config. For L2 it is divided by the median sqrt(v_hat) of the pilot, which estimates its
            mean over weights; None without a pilot.
        timescale: The number of epochs over which the weights average their updates; None for L2 and without decay.
        seconds: The mean wall time of a finalist.
    """

    arm: Arm
    winner: Winner
    trials: int
    trials_without_figures: int
    without_figures: int
    pruned: int
    validation: Figures
    test: dict[str, Figures]
    total_decay: float | None
    timescale: float | None
    seconds: float

    @property
    def lr(self) -> float:
        """The learning rate that the search chose."""
        return self.winner.lr

    @property
    def weight_decay(self) -> float:
        """The chosen weight decay in torch's convention."""
        return self.winner.weight_decay

    @property
    def weight_decay_paper(self) -> float:
        """The chosen weight decay in the paper's convention."""
        return to_independent(self.weight_decay, self.lr)


@dataclass(frozen=True)
class Summary:
    """Everything that the table, the JSON and the page show.

    Attributes:
        record: The study with all its runs.
        arms: The result of each arm by name.
        difference: AdamW minus Adam with L2 on the test split; None where a finalist diverged.
        over_none: The difference of each other arm minus Adam without decay.
        verdict: The advice to the user, and the reason for it.
        warnings: Sentences that a reader must know about the verdict.
        findings: The expectations about the workload, checked on this study.
        lang: The language of all sentences.
    """

    record: Record
    arms: dict[str, ArmResult]
    difference: Difference | None
    over_none: dict[str, Difference]
    verdict: Verdict
    warnings: list[str]
    findings: list[Finding] = field(default_factory=list)
    lang: Language = "en"

    @property
    def say(self) -> Texts:
        """The texts of the language."""
        return texts(self.lang)

    @property
    def title(self) -> dict[str, str]:
        """The name of each arm in sentences."""
        return {name: title(arm.arm, self.say) for name, arm in self.arms.items()}

    @property
    def metric(self) -> str:
        """The primary metric as it stands in a sentence."""
        return words(self.record.settings.workload.metric, self.say)

    def in_language(self, lang: Language) -> Summary:
        """Return the same results with all sentences in a language."""
        return self if lang == self.lang else summarise(self.record, lang)

    @property
    def chosen(self) -> list[str]:
        """The arm that the verdict chooses, or both judged arms where it does not choose.

        Adam without decay comes first where that is as good as either of them, or better.
        """
        one = {"switch": ["adamw"], "keep": ["adam_l2"], "no_decay": ["none"]}.get(self.verdict.kind)
        judged = [self.over_none[arm] for arm in JUDGED if arm in self.over_none]
        none = len(judged) == len(JUDGED) and all(difference.mean >= 0 for difference in judged)
        return one or ["none"] * none + list(JUDGED)

    @property
    def extend(self) -> str:
        """The command that goes on with an undecided study; empty where no number of seeds is likely to decide."""
        more = self.verdict.more_seeds
        return self.record.settings.command(seeds=self.record.pairs + more) if more else ""

    @property
    def tuned_under(self) -> str:
        """A sentence on the schedule that the learning rates hold for; empty where the job's own loop sets it."""
        workload, say = self.record.settings.workload, self.say
        parts = [say(f"word.{workload.schedule}")] if workload.schedule else []
        parts += [f"max_norm={workload.max_norm:g}"] if workload.max_norm else []
        return say("verdict.tuned_under", conditions=say("word.and").join(parts)) if parts else ""

    @property
    def code(self) -> list[str]:
        """The line of code to paste for each of the arms in `chosen`."""
        groups = self.record.settings.workload.groups
        chosen = (self.arms[arm] for arm in self.chosen)
        return [each.arm.code(each.lr, each.weight_decay, groups) for each in chosen]


def summarise(record: Record, lang: Language = "en") -> Summary:
    """Compute the figures, the differences and the verdict of a finished study, with sentences in a language."""
    say = texts(lang)
    metric, margin = record.settings.workload.metric, record.settings.margin
    arms = {arm: _arm_result(record, arm) for arm in record.settings.arms}
    tests = {name: arm.test[metric].values for name, arm in arms.items() if metric in arm.test}
    difference, over_none = None, {}
    if diverged := [title(arms[name].arm, say) for name in JUDGED if name not in tests]:
        why = say("verdict.evidence_diverged", arms=say("verdict.and_of").join(diverged))
        verdict = Verdict("undecided", say("verdict.undecided"), why, lang=lang)
    else:
        relative = _is_relative(tests, metric, margin)
        searched = {arm: record.candidates(arm) for arm in record.winners} if record.grids else {}
        compared = partial(_compared, record, tests, relative, searched)
        difference = compared("adamw", "adam_l2")
        over_none = {name: compared(name, "none") for name in tests if "none" in tests and name != "none"}
        verdict = decide(difference, over_none, metric, margin, Plan(record.planned, bool(record.grids)), say)
    warnings = warnings_of(record, arms, verdict, over_none, say)
    result = Summary(record, arms, difference, over_none, verdict, warnings, lang=lang)
    where = record.settings.workload.findings
    findings = user_code.function(where, "findings", "a list of Finding")(result) if where else []
    return replace(result, findings=findings)


def _compared(
    record: Record, tests: _Tests, relative: bool, searched: Mapping[str, Candidates], first: str, second: str
) -> Difference:
    """Return the difference of two arms, with the interval of this look and the chance of their searches."""
    winners = record.winners
    searches = ((first, second), (second, first)) if searched else ()  # theory's settings have no chance
    search = math.hypot(*(_chance(winners[arm], winners[other].lr, searched[arm], relative) for arm, other in searches))
    pairs = min(len(tests[first]), len(tests[second]))
    at = level(record.pairs, record.planned)
    return paired_difference(tests[first][:pairs], tests[second][:pairs], relative, at, search)


def _chance(winner: Winner, lr: float, candidates: Candidates, relative: bool) -> float:
    """Return how far a better decay, or the learning rate of another arm, may lie below an arm's setting."""
    gain = candidates.gain_at(Config(winner.lr, winner.weight_decay), lr) if lr != winner.lr else 0.0
    return math.hypot(winner.regret.of_metric(relative), gain / winner.regret.unit(relative))


def _is_relative(tests: _Tests, metric: str, margin: Margin) -> bool:
    """Return whether differences are fractions; if every figure is 0, there is no mean to divide by, and they are not.

    Raises:
        NoScaleError: the margin is relative, and the mean that it is a fraction of is not above 0.
    """
    if not margin.relative or not any(map(any, tests.values())):
        return False
    for name in ("adam_l2", "none"):
        if name in tests and fmean(tests[name]) <= 0:
            raise NoScaleError(
                f"margin={margin} is a fraction of the mean test {words(metric)} of {ARMS[name].title}, which is "
                f"{fmean(tests[name]):g} and must be above 0. Every run is kept: the same command with a margin in the "
                "metric's own unit, as in --margin 0.002abs, gives the verdict without training again"
            )
    return True


def _arm_result(record: Record, name: str) -> ArmResult:
    """Return the config that was chosen for an arm, with the figures of its finalists."""
    finals = record.finals(name)
    searched = [record.outcomes[run] for run in record.searched[name]]
    metric, arm, winner = record.settings.workload.metric, record.settings.arms[name], record.winners[name]
    ok = [outcome for outcome in finals if outcome.ok]
    tests = [outcome.test or {} for outcome in finals] if len(ok) == len(finals) else [{}]
    steps_per_epoch = finals[0].steps_per_epoch
    total_decay = (ok or finals)[0].total_decay
    if arm.decay == "l2":
        total_decay = total_decay / record.pilot.gradient_scale[1] if record.pilot else None
    return ArmResult(
        arm=arm,
        winner=winner,
        trials=len(searched),
        trials_without_figures=sum(not outcome.ok for outcome in searched),
        without_figures=sum(not outcome.ok for outcome in [*searched, *finals]),
        pruned=sum(outcome.pruned for outcome in searched),
        validation=Figures.of([outcome.validation[metric] for outcome in ok]),
        test={key: Figures.of([test[key] for test in tests]) for key in tests[0]},
        total_decay=total_decay,
        timescale=timescale_epochs(winner.weight_decay, winner.lr, steps_per_epoch) if arm.decoupled else None,
        seconds=fmean(outcome.seconds for outcome in finals),
    )


def finite(value: float) -> float | None:
    """Return a figure for JSON, which has no inf and no NaN: None stands for both."""
    return value if math.isfinite(value) else None
