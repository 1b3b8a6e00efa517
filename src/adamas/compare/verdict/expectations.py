"""What the built-in workloads were expected to show, held against a finished study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from adamas.compare.search.grids import SEED
from adamas.compare.search.sweep import STEP, best_decay
from adamas.compare.study.arms import JUDGED
from adamas.compare.study.run import Run
from adamas.compare.verdict.decision import against, relation
from adamas.compare.verdict.result import Finding, Summary
from adamas.compare.verdict.wording import TIMES, words
from adamas.compare.workloads.noise import SCALES
from adamas.decay import adam_l2_equilibrium_rms, adamw_equilibrium_rms, to_independent

FAILS, LEARNS, WINDOW = 0.20, 0.99, 0.95  # accuracies on `modular`: memorised only, learned, counted to the window
CLOSE = 0.05  # relative error of a predicted size


def tie(result: Summary) -> list[Finding]:
    """Whether the two arms are told equal."""
    kind = result.verdict.kind
    return [Finding("The two arms tie.", result.verdict.text, None if kind == "undecided" else kind == "no_difference")]


def adamw_wins(result: Summary) -> list[Finding]:
    """Whether AdamW is told better than Adam with L2."""
    kind = result.verdict.kind
    return [
        Finding("AdamW beats Adam with L2.", result.verdict.text, None if kind == "undecided" else kind == "switch")
    ]


def decay_helps(result: Summary) -> list[Finding]:
    """Whether AdamW beats Adam without decay, and with far more decay than its default."""
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
            f"{arm.winner.weight_decay:.3g} (lr {TIMES} weight_decay {arm.weight_decay_paper:.3g}).",
            arm.winner.weight_decay >= 0.1,
        ),
    ]


def deep(result: Summary) -> list[Finding]:
    """Whether AdamW wins on the deep network, and what a louder loss does to each arm's best decay."""
    found = adamw_wins(result)
    metric = result.record.settings.workload.metric
    for variant, factor in (("loss x10", 10), ("loss x100", 100)):
        for arm, expected in (("adamw", 1), ("adam_l2", factor)):
            swept = {name: result.record.sweeps[arm, name] for name in ("", variant)}
            best, louder = (best_decay(runs, result.record.outcomes, metric) for runs in swept.values())
            steps = [to_independent(decay, result.arms[arm].winner.lr) for decay in (best, louder)]
            ratio = louder / best
            at_end = any(decay in ends(runs) for decay, runs in zip((best, louder), swept.values(), strict=True))
            stays = "stays" if expected == 1 else f"grows {expected} times"
            found.append(
                Finding(
                    f"With the loss {TIMES}{factor}, the best weight decay of {result.arms[arm].arm.title} {stays}.",
                    f"From {best:.3g} to {louder:.3g} (lr {TIMES} weight_decay {steps[0]:.3g} to {steps[1]:.3g}), "
                    f"{ratio:.3g} times" + (" (at the end of the sweep)." if at_end else "."),
                    None if at_end or math.isnan(ratio) else expected / STEP**0.5 < ratio < expected * STEP**0.5,
                )
            )
    return found


def ends(runs: Sequence[Run]) -> tuple[float, float]:
    """The weakest and the strongest decay of a sweep."""
    decays = [run.weight_decay for run in runs]
    return min(decays), max(decays)


def grokking(result: Summary) -> list[Finding]:
    """Whether decay decides on `modular`, and the window of decay in which each arm learns to add."""
    findings: list[Finding] = []
    if "none" in result.arms:
        accuracies = result.arms["none"].test.get("accuracy")
        worst = max(accuracies.values) if accuracies else math.nan
        expected = f"Without decay fewer than {FAILS:.0%} of the sums it was not shown are right."
        findings.append(
            Finding(expected, f"{worst:.1%} on the best of its seeds.", None if math.isnan(worst) else worst < FAILS)
        )
    for arm in JUDGED:
        accuracies = result.arms[arm].test.get("accuracy")
        mean, least = (accuracies.mean, min(accuracies.values)) if accuracies else (math.nan, math.nan)
        expected = f"{result.arms[arm].arm.title} learns to add: over {LEARNS:.0%} right."
        findings.append(
            Finding(
                expected,
                f"{mean:.2%}, and {least:.2%} on the worst of its seeds.",
                None if math.isnan(mean) else mean > LEARNS,
            )
        )
    windows = {arm: window(result, arm) for arm in JUDGED}
    sentences = [window_sentence(result.arms[arm].arm.title, runs) for arm, runs in windows.items()]
    middles = {arm: middle(runs) for arm, runs in windows.items()}
    apart = middles["adamw"] / middles["adam_l2"]
    findings.append(
        Finding(
            "The windows of weight decay in which the two learn lie a factor of about a thousand apart.",
            " ".join(sentences) + f" Their middles are {apart:.2g} times apart.",
            None if math.isnan(apart) else 100 < apart < 10_000,
        )
    )
    return findings


def window(result: Summary, arm: str) -> list[Run]:
    """The settings of an arm's search that got most unseen sums right, each by the seed that all of them ran on."""
    outcomes = result.record.outcomes
    runs = [run for run in result.record.searched[arm] if run.seed == SEED]
    return [run for run in runs if outcomes[run].validation.get("accuracy", 0.0) > WINDOW]


def window_sentence(title: str, runs: Sequence[Run]) -> str:
    """Where an arm learns, in both conventions."""
    if not runs:
        return f"{title}: nowhere among what was tried."
    decays = sorted(run.weight_decay for run in runs)
    steps = sorted(to_independent(run.weight_decay, run.lr) for run in runs)
    rates = sorted(run.lr for run in runs)
    return (
        f"{title}: weight_decay {decays[0]:.2g} to {decays[-1]:.2g} (lr {TIMES} weight_decay {steps[0]:.2g} to "
        f"{steps[-1]:.2g}) at lr {rates[0]:.2g} to {rates[-1]:.2g}, {len(runs)} settings."
    )


def middle(runs: Sequence[Run]) -> float:
    """Geometric mean of torch's weight decay."""
    return math.exp(fmean(math.log(run.weight_decay) for run in runs)) if runs else math.nan


def sizes(result: Summary) -> list[Finding]:
    """Whether weights under pure noise settle at the predicted size, at each scale of the gradient."""
    findings: list[Finding] = []
    for arm, title in (("adamw", "AdamW"), ("adam_l2", "Adam with L2")):
        winner, test = result.arms[arm].winner, result.arms[arm].test
        parts: list[str] = []
        errors: list[float] = []
        for scale in SCALES:
            predicted = (
                adamw_equilibrium_rms(winner.lr, winner.weight_decay)
                if arm == "adamw"
                else adam_l2_equilibrium_rms(winner.lr, winner.weight_decay, scale)
            )
            measured = test[f"rms_{scale:g}"].mean if test else math.nan
            errors.append(measured / predicted - 1)
            parts.append(f"at {scale:g}: {measured:.4g} for {predicted:.4g} predicted ({errors[-1]:+.1%})")
        law = "is the same at every scale of the gradient" if arm == "adamw" else "grows with the root of the scale"
        findings.append(
            Finding(
                f"Under {title} the size at which a weight settles {law}: RMS within {CLOSE:.0%} of the prediction.",
                "; ".join(parts) + ".",
                all(abs(error) <= CLOSE for error in errors) if test else None,
            )
        )
    return findings
