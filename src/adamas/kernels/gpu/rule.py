"""The rule of Adam and AdamW for elements in registers: native/rule.hpp, operation by operation.

Each operation is rounded to float32 once: the kernels are compiled without contraction to fused multiply-add, and roots
and divisions are IEEE's.
"""

from __future__ import annotations

import triton
import triton.language as tl

TINY = tl.constexpr(1.1754943508222875e-38)  # the smallest normal float32
LARGEST = tl.constexpr(3.4028234663852886e38)  # the largest finite one


@triton.jit
def scalar(x, WHERE: tl.constexpr, which):
    """Return a factor of the step, loaded and rounded to float32 if it is not a number of the host.

    Args:
        x: a number, or a pointer to float64.
        WHERE: 0 for a number, 1 for a pointer to one element for all tensors, 2 for one element for each step.
        which: the number of the tensor's step.
    """
    if WHERE != 0:
        x = tl.load(x + which * (WHERE - 1)).to(tl.float32)
    return x


@triton.jit
def epsilon(x, WHERE: tl.constexpr, which):
    """Return eps, raised so that a positive eps does not round to 0 in float32: eps > 0 prevents 0/0.

    The arguments are those of `scalar`. The host has raised a number already.
    """
    if WHERE != 0:
        wide = tl.load(x + which * (WHERE - 1))
        x = wide.to(tl.float32)
        x = tl.where((wide > 0) & (x < TINY), TINY, x)
    return x


@triton.jit
def mean(old, value, keep, weight):
    """Return an exponential moving average after `value` is added, in the form with less error of native/adamas.hpp."""
    pulls = keep >= 0.5
    kept = tl.where(pulls, 1.0, keep)
    pull = tl.where(pulls, 1.0, 0.0)
    return kept * old + weight * (value - pull * old)


@triton.jit
def updated(theta, g, m, v, v_max, s, which, OPT: tl.constexpr):
    """Return the change of each parameter, and the new moments and maximum.

    g     = grad_factor * g (+ l2 * theta)
    m     = beta1 * m + (1 - beta1) * g                     see `mean`
    v     = beta2 * v + (beta2_complement * g) * g          in this order g*g, which may overflow, is never formed
    change = step_size * m / (sqrt(v + eps_root) + eps) + decay * finite(theta)

    Cautious decay is 0 where the update, which has the sign of m, and the weight have opposite signs.
    """
    W: tl.constexpr = OPT.where
    if OPT.scaled:
        g = g * scalar(s.grad_factor, W.grad_factor, which)
    if OPT.l2:
        g = g + scalar(s.l2, W.l2, which) * theta
    weight = scalar(s.beta1_complement, W.beta1_complement, which)
    m = m + weight * (g - m) if OPT.simple else mean(m, g, scalar(s.beta1, W.beta1, which), weight)
    v = scalar(s.beta2, W.beta2, which) * v + (scalar(s.beta2_complement, W.beta2_complement, which) * g) * g
    second = v
    if OPT.amsgrad:
        candidate = v * scalar(s.max_factor, W.max_factor, which)
        # NaN stays NaN, as in torch.maximum
        v_max = tl.where((candidate > v_max) | (candidate != candidate), candidate, v_max)
        second = v_max
    if not OPT.simple:
        second = second + scalar(s.eps_root, W.eps_root, which)
    denominator = tl.sqrt_rn(second) + epsilon(s.eps, W.eps, which)
    change = scalar(s.step_size, W.step_size, which) * tl.div_rn(m, denominator)
    if OPT.decoupled:
        finite = tl.minimum(tl.maximum(theta, -LARGEST), LARGEST)  # inf - inf would be NaN
        decay = scalar(s.decay, W.decay, which) * finite
        if OPT.cautious:
            opposed = ((m > 0) & (theta < 0)) | ((m < 0) & (theta > 0))
            decay = tl.where(opposed, 0.0, decay)
        change = change + decay
    return change, m, v, v_max
