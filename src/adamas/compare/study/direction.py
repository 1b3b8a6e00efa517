"""Which way is better? The study minimizes, and a metric that is better when higher is minimized as its negative."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from adamas.compare.study.run import Outcome

_OF_A_CLASSIFIER = {"accuracy", "acc", "auc", "auroc", "auprc", "ap", "map", "f1", "precision", "recall", "iou", "miou"}
_HIGHER = _OF_A_CLASSIFIER | {"dice", "r2", "bleu", "rouge", "ndcg", "mrr", "psnr", "ssim", "reward"}
_NEGATED = {"neg", "negative", "minus"}  # neg_accuracy is better when lower
_LOSSES = {"error", "err", "loss", "mse", "mae", "rmse", "mape", "nll", "bce", "entropy", "perplexity", "ppl", "regret"}
_LEARNED = 0.9  # a run has learned something once its loss is below this fraction of the loss at its start
_MOST = 0.75  # of the runs that learned: if the metric rose in so many of them, it may be better when higher


def with_negated(found: Mapping[str, float], metric: str) -> dict[str, float]:
    """Return figures, with the negative of a figure added if the metric is named "-" and the name of the figure.

    Example:
        >>> with_negated({"top1": 0.9}, "-top1")
        {'top1': 0.9, '-top1': -0.9}
    """
    name = metric.removeprefix("-")
    if metric in found or name == metric or name not in found:
        return dict(found)
    return {**found, metric: -found[name]}


def better_when_higher(metric: str) -> bool | None:
    """Return what the name of a metric says: True for an accuracy, False for a loss, None where it says nothing.

    Example:
        >>> better_when_higher("val/acc@1"), better_when_higher("f1_loss"), better_when_higher("top1")
        (True, False, None)
        >>> better_when_higher("-accuracy")
        False
    """
    # The second pattern splits at digits too: eval_accuracy, acc@1 and acc1 are all better when higher.
    words = {*re.split(r"[^a-z0-9]+", metric.lower()), *re.split(r"[^a-z]+", metric.lower())}
    negated = metric.startswith("-") != bool(words & _NEGATED)
    if words & _LOSSES:
        return negated
    return not negated if words & _HIGHER else None


def looks_reversed(outcomes: Iterable[Outcome], metric: str) -> bool:
    """Return whether the metric seems to be better when higher: in pilot runs it rose while the model learned.

    The training loss shows whether a run learned; where it is unknown, as in a loop of the job's own, every run counts.
    A validation loss rises as well if the model memorises its training data, so a metric is trusted if its name says
    that lower is better.

    Args:
        outcomes: The outcomes of pilot runs; those without figures are left out.
        metric: The primary metric.
    """
    if better_when_higher(metric) is False:
        return False
    rose = [
        outcome.validation[metric] > outcome.untrained[metric]
        for outcome in outcomes
        if outcome.ok and outcome.untrained and (outcome.fit is None or outcome.fit < _LEARNED)
    ]
    return bool(rose) and sum(rose) >= _MOST * len(rose)
