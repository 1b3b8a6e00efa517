"""Which jobs are built in? One module for each job, and a table of them by name. No job downloads anything.

Start with `WORKLOADS` below, then `digits` (the simplest job) and `classification` (the parts that several jobs share).
"""

from __future__ import annotations

from adamas.compare.study.workload import Workload

_HERE = "adamas.compare.workloads"
_NOISY_DIGITS = (
    "Handwritten digits that ship with scikit-learn; a fifth of the labels is shuffled. {network} learns from 500 "
    "images and can memorise them. 500 other images choose the settings, 797 are the test. Cross-entropy uses the "
    "noisy labels, accuracy the true classes."
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="digits",
            factory=f"{_HERE}.digits:job",
            seeds_together=True,
            metric="cross_entropy",
            summary=_NOISY_DIGITS.format(network="A 64-256-256-10 network"),
            expected="A tie: gradients have one scale, the run is short, and the network needs little regularisation.",
            findings="adamas.compare.expectations:tie",
        ),
        Workload(
            name="digits-deep",
            factory=f"{_HERE}.digits_deep:job",
            seeds_together=True,
            metric="cross_entropy",
            summary=_NOISY_DIGITS.format(network="A residual network of 12 blocks, width 64, without normalisation,"),
            expected=(
                "AdamW wins: the scales of gradients differ by a factor of 50, and L2 decays each weight in inverse "
                "proportion to its scale. If the loss is multiplied by 10, AdamW's best weight decay stays the same, "
                "and L2's becomes ten times as large."
            ),
            findings="adamas.compare.expectations:deep",
            variants=(
                ("loss x10", f"{_HERE}.digits_deep:job_loss_x10"),
                ("loss x100", f"{_HERE}.digits_deep:job_loss_x100"),
            ),
        ),
        Workload(
            name="digits-deep-layernorm",
            factory=f"{_HERE}.digits_deep:job_layernorm",
            seeds_together=True,
            metric="cross_entropy",
            summary=_NOISY_DIGITS.format(network="A residual network of 12 blocks, width 64, each with a LayerNorm,"),
            expected=(
                "The same as digits-deep but for LayerNorm: the scales of gradients are more even, so the advantage of "
                "AdamW shrinks or vanishes."
            ),
            findings="adamas.compare.expectations:tie",
        ),
        Workload(
            name="modular",
            factory=f"{_HERE}.modular:job",
            revision=2,
            seeds_together=True,
            metric="cross_entropy",
            margin="0.05abs",
            summary=(
                "Addition modulo 59: a small network trains on 60 % of all pairs and must find the sums of the others. "
                "It memorises first and learns to add much later, or never."
            ),
            expected=(
                "Decay decides: without decay the network only memorises. With the right weight decay both arms learn "
                "to add; the right values of the two arms differ by a factor of a thousand."
            ),
            findings="adamas.compare.expectations:grokking",
        ),
        Workload(
            name="chars",
            factory=f"{_HERE}.chars:job",
            metric="cross_entropy",
            summary=(
                "A two-layer transformer reads 20,000 characters of a made-up language 40 times and predicts the next "
                "one. 10,000 other characters choose the settings, 10,000 are the test. Cross-entropy is in nats per "
                "character."
            ),
            expected=(
                "Decay helps, because the model can learn the grammar but also memorise every sentence. AdamW's best "
                "weight decay is a hundred times its default."
            ),
            findings="adamas.compare.expectations:decay_helps",
        ),
        Workload(
            name="sparse",
            factory=f"{_HERE}.sparse:job",
            seeds_together=True,
            metric="cross_entropy",
            summary=(
                "Bags of words with frequencies of Zipf's law. A planted rule gives the labels, with noise: in this "
                "rule, rare words count as much as frequent words."
            ),
            expected=(
                "AdamW wins: Adam divides the L2 term by the size of a weight's gradients, so L2 acts most strongly on "
                "the weights of rare words, also in the many steps without a gradient."
            ),
            findings="adamas.compare.expectations:adamw_wins",
        ),
        Workload(
            name="noise",
            factory=f"{_HERE}.noise:job",
            seeds_together=True,
            metric="spread",
            margin="0.1abs",
            summary=(
                "Gradients of pure noise, of standard deviation 0.1, 1 and 10 on three groups of weights. Nothing is "
                "tuned: by theory, the weights of both arms settle at the same size at scale 1. The spread is the "
                "base-10 logarithm of the largest group's size divided by the smallest group's."
            ),
            expected=(
                "AdamW's decay, in proportion to the weight, gives all weights one size at every scale of the "
                "gradients; L2 does not."
            ),
            findings="adamas.compare.expectations:sizes",
            fixed=(("none", 3e-3, 0.0), ("adam_l2", 3e-3, 1.0), ("adamw", 3e-3, 1.0)),
        ),
    )
}


def find(name: str) -> Workload:
    """Return the workload of a name; the error for another name lists the known ones."""
    if name not in WORKLOADS:
        raise ValueError(
            f"unknown workload {name!r}; the known ones are: {', '.join(sorted(WORKLOADS))}; a job of your own is "
            "given as my_job.py:job, and adamas compare --init my_job.py writes one to start from"
        )
    return WORKLOADS[name]
