"""Claim 5: bias correction removes the early bias of both moments, and makes the start steadier.

Gradients are noise around a mean. The moments of the first steps are compared with what they estimate, and the size of
the first hundred updates with that of late updates, with and without the correction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from adamas.page.lines import chart, line
from adamas.reference import Array, init, step
from adamas.scalars import Hyper
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, both, estimate

_EARLY, _LATE, _LOOK = 100, 3000, 10  # the first updates, where late ones begin, and the step of the moments
_MEAN, _WEIGHTS = 0.2, 256


@dataclass(frozen=True)
class Correction:
    """Biases of the moments at the tenth step (1 is none), and how large updates at the start are."""

    m_corrected: Estimate
    v_corrected: Estimate
    m_raw: Estimate
    v_raw: Estimate
    first_corrected: Estimate
    ratio: Estimate
    sizes: dict[str, list[float]]

    @property
    def figure(self) -> Estimate:
        """How many times larger the first updates are without the correction."""
        return self.ratio


def measure(seeds: int = 8, late: int = 500, corrected: tuple[bool, bool] = (True, False)) -> Correction:
    """Run Adam with and without the correction on the same gradients.

    Args:
        seeds: The number of seeds.
        late: The number of late updates to average.
        corrected: Whether each of the two runs has the correction.
    """
    moments: list[tuple[Estimate, Estimate]] = []
    sizes: list[Array] = []
    for with_it in corrected:
        hyper = Hyper(lr=1.0, bias_correction=with_it)
        theta = np.zeros((seeds, _WEIGHTS))
        state, moved = init(theta), []
        for t in range(_LATE + late):
            g = _MEAN + np.random.default_rng((5, t)).standard_normal(theta.shape)
            before = theta
            theta, state = step(theta, g, state, hyper)
            moved.append(np.sqrt(((theta - before) ** 2).mean(axis=1)))
            if t + 1 == _LOOK:
                c1, c2 = (1 - hyper.beta1**_LOOK, 1 - hyper.beta2**_LOOK) if with_it else (1.0, 1.0)
                m, v = state.m.mean(axis=1) / c1 / _MEAN, state.v.mean(axis=1) / c2 / (1 + _MEAN**2)
                moments.append((estimate(m.tolist()), estimate(v.tolist())))
        sizes.append(np.array(moved))  # (steps, seeds)
    early = [_rms(size[:_EARLY]) for size in sizes]
    (m_corrected, v_corrected), (m_raw, v_raw) = moments
    names = ("corrected", "raw")
    return Correction(
        m_corrected,
        v_corrected,
        m_raw,
        v_raw,
        estimate((sizes[0][0] / _rms(sizes[0][_LATE:])).tolist()),
        estimate((early[1] / early[0]).tolist()),
        {name: size.mean(axis=1)[:_LATE:20].tolist() for name, size in zip(names, sizes, strict=True)},
    )


def _rms(sizes: Array) -> Array:
    """Return the RMS over steps, for each seed."""
    return np.sqrt((sizes**2).mean(axis=0))


def judge(found: Correction) -> Verdict:
    """Return "holds" if the correction removes the bias and early updates are smaller with it."""
    unbiased = all(each.low <= 1 <= each.high for each in (found.m_corrected, found.v_corrected))
    biased = all(each.high < 1 for each in (found.m_raw, found.v_raw))
    return both(unbiased and biased, found.ratio.low > 1)


def tell(found: Correction, say: Say) -> Told:
    """Say what is left of the bias, and how large the first updates are."""
    names = {"corrected": say("with correction", "有偏差修正"), "raw": say("without correction", "无偏差修正")}
    steps = [1.0 + 20 * n for n in range(len(found.sizes["raw"]))]
    traces = [
        line(n, names[name], steps, size, say("step", "步")) for n, (name, size) in enumerate(found.sizes.items())
    ]
    return Told(
        say(
            f"At step {_LOOK} the raw moments are {found.m_raw.value:.2g} and {found.v_raw.value:.2g} of what they "
            f"estimate, the corrected ones {found.m_corrected.value:.3f} and {found.v_corrected.value:.3f}. Without "
            f"the correction the first {_EARLY} updates are {found.ratio} times as large as with it. Even with it "
            f"the very first update is {found.first_corrected.value:.2g} times as large as a late one.",
            f"第 {_LOOK} 步时，未修正的两个矩只有真值的 {found.m_raw.value:.2g} 和 {found.v_raw.value:.2g}，修正后为 "
            f"{found.m_corrected.value:.3f} 和 {found.v_corrected.value:.3f}。不修正时前 {_EARLY} 步的更新是修正时的 "
            f"{found.ratio} 倍。即使修正，第一步更新仍是后期的 {found.first_corrected.value:.2g} 倍。",
        ),
        say("How large are the updates at the start?", "训练初期的更新有多大？"),
        chart(traces, say("step", "步数"), say("RMS of the update / lr", "更新的均方根 / lr")),
        say("A steady start is a flat line.", "平稳的开端是一条水平线。"),
    )


CLAIM = Claim(
    number=5,
    source="the article; arXiv 1412.6980, section 3",
    article_zh="在初始迭代中,一阶矩和二阶矩的估计值会偏向于零。Adam 包含偏差修正步骤来抵消这种早期偏差,使其在训练初"
    "期更稳定。",
    article_en="In the first iterations the estimates of the first and second moment are biased towards zero. Adam "
    "has a bias correction that cancels this early bias and makes the start of training steadier.",
    figure_en="first updates without the correction by those with it",
    figure_zh="无修正与有修正的前期更新之比",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if raw moments are biased, corrected ones are not, and early updates are smaller with the "
    "correction; conditional if only the bias or only the size of updates is as claimed.",
    rule_zh="未修正的矩有偏、修正后无偏，且修正后前期更新更小，则成立；只满足其中一方面则有条件成立。",
)
