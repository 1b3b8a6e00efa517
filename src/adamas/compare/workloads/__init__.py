"""The built-in workloads by name. None downloads anything."""

from __future__ import annotations

from adamas.compare.study.workload import Workload

HERE = "adamas.compare.workloads"
NOISY_DIGITS = (
    "Handwritten digits that ship with scikit-learn, a fifth of their labels shuffled: {network} learns from 500 "
    "images and could memorise them; 500 others choose, 797 test. Cross-entropy is against the labels as given, "
    "accuracy against the true classes."
)

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="digits",
            factory=f"{HERE}.digits:job",
            seeds_together=True,
            metric="cross_entropy",
            summary=NOISY_DIGITS.format(network="a 64-256-256-10 network"),
            expected="A tie: gradients of one scale, a short run, a network that needs little help.",
            findings="adamas.compare.verdict.expectations:tie",
        ),
        Workload(
            name="digits-deep",
            factory=f"{HERE}.digits_deep:job",
            seeds_together=True,
            metric="cross_entropy",
            summary=NOISY_DIGITS.format(network="a residual network of 12 blocks, width 64, without normalisation,"),
            expected=(
                "AdamW wins: gradients differ fiftyfold in scale, and L2 pulls each weight in proportion to one over "
                "that scale. A loss ten times as loud leaves AdamW's best weight decay where it is, and makes that of "
                "L2 ten times as large."
            ),
            findings="adamas.compare.verdict.expectations:deep",
            variants=(
                ("loss x10", f"{HERE}.digits_deep:job_loss_x10"),
                ("loss x100", f"{HERE}.digits_deep:job_loss_x100"),
            ),
        ),
        Workload(
            name="digits-deep-layernorm",
            factory=f"{HERE}.digits_deep:job_layernorm",
            seeds_together=True,
            metric="cross_entropy",
            summary=NOISY_DIGITS.format(network="a residual network of 12 blocks, width 64, each with a LayerNorm,"),
            expected="The twin of digits-deep: normalisation evens the scales out, and the gap shrinks or goes.",
            findings="adamas.compare.verdict.expectations:tie",
        ),
        Workload(
            name="modular",
            factory=f"{HERE}.modular:job",
            revision=2,
            seeds_together=True,
            metric="cross_entropy",
            margin="0.05abs",
            summary=(
                "Addition modulo 59: a small network sees 60 % of all pairs and must find the sums of the others. "
                "It memorises first and learns to add much later, if at all."
            ),
            expected=(
                "Decay decides: without it the network only memorises; with the right amount, which differs a "
                "thousandfold between the two arms, both learn to add."
            ),
            findings="adamas.compare.verdict.expectations:grokking",
        ),
        Workload(
            name="chars",
            factory=f"{HERE}.chars:job",
            metric="cross_entropy",
            summary=(
                "A two-layer transformer reads 20,000 characters of a made-up language 40 times and predicts the next "
                "one; 10,000 other characters choose, 10,000 test. Cross-entropy is in nats per character."
            ),
            expected=(
                "There is a grammar to learn and every sentence to memorise, so decay helps, and AdamW's at a hundred "
                "times its default."
            ),
            findings="adamas.compare.verdict.expectations:decay_helps",
        ),
        Workload(
            name="sparse",
            factory=f"{HERE}.sparse:job",
            seeds_together=True,
            metric="cross_entropy",
            summary=(
                "Bags of words whose frequencies follow Zipf's law, with labels from a planted rule in which rare "
                "words count as much as frequent ones, and noise."
            ),
            expected=(
                "AdamW wins: L2 is divided by the size of a weight's gradients, and so pulls hardest at the weights of "
                "rare words, in the many steps in which they have no gradient at all."
            ),
            findings="adamas.compare.verdict.expectations:adamw_wins",
        ),
        Workload(
            name="noise",
            factory=f"{HERE}.noise:job",
            seeds_together=True,
            metric="spread",
            margin="0.1abs",
            summary=(
                "Gradients of pure noise, of standard deviation 0.1, 1 and 10 on three groups of weights. Nothing is "
                "tuned: both arms run where theory has their weights settle at one size at scale 1. The spread is the "
                "base-10 logarithm of the largest group's size over the smallest's."
            ),
            expected=(
                "Decay in proportion to the weight keeps all weights at one size, whatever the scale of their "
                "gradients; L2 does not."
            ),
            findings="adamas.compare.verdict.expectations:sizes",
            fixed=(("none", 3e-3, 0.0), ("adam_l2", 3e-3, 1.0), ("adamw", 3e-3, 1.0)),
        ),
    )
}


def find(name: str) -> Workload:
    """Return the workload called `name`; the error lists the known ones."""
    if name not in WORKLOADS:
        raise ValueError(
            f"unknown workload {name!r}; the known ones are: {', '.join(sorted(WORKLOADS))}; a job of your own is "
            "given as my_job.py:job, and adamas compare --init my_job.py writes one to start from"
        )
    return WORKLOADS[name]
