"""The expectations about the built-in workloads, checked on a finished study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from adamas.compare.search.pilot import SEED
from adamas.compare.search.sweep import STEP, best_decay
from adamas.compare.study.arms import JUDGED
from adamas.compare.study.run import Run
from adamas.compare.verdict.decision import Kind, against, relation
from adamas.compare.verdict.result import ArmResult, Finding, Summary
from adamas.compare.verdict.wording import TIMES, words
from adamas.compare.workloads.noise import SCALES
from adamas.decay import adam_l2_equilibrium_rms, adamw_equilibrium_rms, to_independent

# Accuracies on `modular`: below the first a network only memorised, above the second it learned to add, and above the
# third a setting counts to the window in which it learns.
_FAILS, _LEARNS, _WINDOW = 0.20, 0.99, 0.95
_CLOSE = 0.05  # relative error of a predicted size


def tie(result: Summary) -> list[Finding]:
    """Return whether the verdict is that the two arms do not differ."""
    return [_verdict_finding(result, "The two arms tie.", "no_difference")]


def adamw_wins(result: Summary) -> list[Finding]:
    """Return whether the verdict is that AdamW is better than Adam with L2."""
    return [_verdict_finding(result, "AdamW beats Adam with L2.", "switch")]


def _verdict_finding(result: Summary, sentence: str, expected: Kind) -> Finding:
    """Return whether the verdict is of the expected kind; an undecided verdict cannot tell."""
    kind = result.verdict.kind
    return Finding(sentence, result.verdict.text, None if kind == "undecided" else kind == expected)


def decay_helps(result: Summary) -> list[Finding]:
    """Return whether AdamW beats Adam without decay, and whether its best decay is far above its default."""
    over_none = result.over_none.get("adamw")
    if over_none is None:
        return []
    found = relation(over_none, result.record.settings.margin)
    arm = result.arms["adamw"]
    return [
        Finding(
            "Decay helps: AdamW beats Adam without it.",
            f"Its test {words(result.record.settings.workload.metric)} is {against(over_none)} that without decay.",
            None if found == "unclear" else found == "lower",
        ),
        Finding(
            "AdamW's best weight decay is ten times its default of 0.01 or more.",
            f"{arm.weight_decay:.3g} (lr {TIMES} weight_decay {arm.weight_decay_paper:.3g}).",
            arm.weight_decay >= 0.1,
        ),
    ]


def deep(result: Summary) -> list[Finding]:
    """Return whether AdamW wins on the deep network, and how each arm's best decay changes with a larger loss."""
    return adamw_wins(result) + [
        _larger_loss(result, arm, factor, expected)
        for factor in (10, 100)
        for arm, expected in (("adamw", 1), ("adam_l2", factor))
    ]


def _larger_loss(result: Summary, arm: str, factor: int, expected: int) -> Finding:
    """Return whether the best decay of an arm grows by the expected factor when the loss is multiplied."""
    record, title, lr = result.record, result.arms[arm].arm.title, result.arms[arm].lr
    swept = [record.sweeps[arm, variant] for variant in ("", f"loss x{factor}")]
    before, after = (best_decay(runs, record.outcomes, record.settings.workload.metric) for runs in swept)
    decays = [[run.weight_decay for run in runs] for runs in swept]
    at_end = any(best in (min(all_), max(all_)) for best, all_ in zip((before, after), decays, strict=True))
    ratio = after / before
    return Finding(
        f"With the loss {TIMES}{factor}, the best weight decay of {title} "
        + ("stays." if expected == 1 else f"grows {expected} times."),
        f"From {before:.3g} to {after:.3g} (lr {TIMES} weight_decay {to_independent(before, lr):.3g} to "
        f"{to_independent(after, lr):.3g}), {ratio:.3g} times" + (" (at the end of the sweep)." if at_end else "."),
        None if at_end or math.isnan(ratio) else expected / STEP**0.5 < ratio < expected * STEP**0.5,
    )


def grokking(result: Summary) -> list[Finding]:
    """Return whether decay decides on `modular`, and the weight decays with which each arm learns to add."""
    findings: list[Finding] = []
    if "none" in result.arms:
        worst = max(_accuracies(result, "none"))
        findings.append(
            Finding(
                f"Without decay, fewer than {_FAILS:.0%} of the unseen sums are right.",
                f"{worst:.1%} on its best seed.",
                None if math.isnan(worst) else worst < _FAILS,
            )
        )
    for arm in JUDGED:
        accuracies = _accuracies(result, arm)
        mean = fmean(accuracies)
        findings.append(
            Finding(
                f"{result.arms[arm].arm.title} learns to add: over {_LEARNS:.0%} of the unseen sums are right.",
                f"{mean:.2%}, and {min(accuracies):.2%} on its worst seed.",
                None if math.isnan(mean) else mean > _LEARNS,
            )
        )
    windows = {result.arms[arm].arm.title: _window(result, arm) for arm in JUDGED}
    l2, adamw = map(_middle, windows.values())
    findings.append(
        Finding(
            "The weight decays with which the two arms learn lie about a thousand times apart.",
            " ".join(_window_sentence(title, runs) for title, runs in windows.items())
            + f" The middles of the two ranges are {adamw / l2:.2g} times apart.",
            None if math.isnan(adamw / l2) else 100 < adamw / l2 < 10_000,
        )
    )
    return findings


def _accuracies(result: Summary, arm: str) -> tuple[float, ...]:
    """Return the test accuracies of an arm's finalists; one NaN where a finalist diverged."""
    found = result.arms[arm].test.get("accuracy")
    return found.values if found else (math.nan,)


def _window(result: Summary, arm: str) -> list[Run]:
    """Return the runs of an arm's search that got most unseen sums right, on the seed that every config ran on."""
    outcomes = result.record.outcomes
    runs = [run for run in result.record.searched[arm] if run.seed == SEED]
    return [run for run in runs if outcomes[run].validation.get("accuracy", 0.0) > _WINDOW]


def _window_sentence(title: str, runs: Sequence[Run]) -> str:
    """Return the settings with which an arm learns, as a sentence with both conventions of weight decay."""
    if not runs:
        return f"{title}: with none of the settings tried."
    decays = sorted(run.weight_decay for run in runs)
    decays_paper = sorted(run.weight_decay_paper for run in runs)
    rates = sorted(run.lr for run in runs)
    return (
        f"{title}: weight_decay {decays[0]:.2g} to {decays[-1]:.2g} (lr {TIMES} weight_decay {decays_paper[0]:.2g} to "
        f"{decays_paper[-1]:.2g}) at lr {rates[0]:.2g} to {rates[-1]:.2g}, {len(runs)} settings."
    )


def _middle(runs: Sequence[Run]) -> float:
    """Return the geometric mean of torch's weight decay; NaN without runs."""
    return math.exp(fmean(math.log(run.weight_decay) for run in runs)) if runs else math.nan


def sizes(result: Summary) -> list[Finding]:
    """Return whether weights under pure noise settle at the predicted RMS, at each scale of the gradient."""
    adamw, l2 = result.arms["adamw"], result.arms["adam_l2"]
    constant = adamw_equilibrium_rms(adamw.lr, adamw.weight_decay)
    growing = [adam_l2_equilibrium_rms(l2.lr, l2.weight_decay, scale) for scale in SCALES]
    return [
        _size(adamw, "is the same at every scale of the gradient", [constant] * len(SCALES)),
        _size(l2, "grows with the square root of the scale of the gradient", growing),
    ]


def _size(arm: ArmResult, law: str, predictions: Sequence[float]) -> Finding:
    """Return whether the weights of an arm settle at the predicted RMS, at each scale of the gradient."""
    measured = [arm.test[f"rms_{scale:g}"].mean if arm.test else math.nan for scale in SCALES]
    errors = [found / predicted - 1 for found, predicted in zip(measured, predictions, strict=True)]
    parts = [
        f"at {scale:g}: {found:.4g}, predicted {predicted:.4g} ({error:+.1%})"
        for scale, found, predicted, error in zip(SCALES, measured, predictions, errors, strict=True)
    ]
    return Finding(
        f"Under {arm.arm.title}, the RMS at which weights settle {law}, within {_CLOSE:.0%}.",
        "; ".join(parts) + ".",
        all(abs(error) <= _CLOSE for error in errors) if arm.test else None,
    )
