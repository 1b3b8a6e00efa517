// The rule of Adam and AdamW in float64: the twin of src/adamas/reference.py, equal to it bit for bit in the tests.
// Symbols are the reference's. A step works on plain arrays of numbers and changes none of its arguments.
"use strict";

const RULE_DEFAULTS = {
  lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0, decay: "l2", base_lr: 0, amsgrad: "off",
  maximize: false, eps_mode: "alg1", eps_root: 0, bias_correction: true, cautious_decay: false,
};

// Returns [p, e] with p + e = a * b exactly (Dekker 1971); no intermediate number overflows for |a|, |b| < 2^996.
function exactProduct(a, b) {
  const split = (x) => { const c = 134217729 * x; const high = c - (c - x); return [high, x - high]; };
  const [ah, al] = split(a), [bh, bl] = split(b), p = a * b;
  return [p, ((ah * bh - p) + ah * bl + al * bh) + al * bl];
}

// A power beta^t as an unevaluated sum high + low, multiplied by beta once a step. Math.pow of browsers differs from
// Python's pow in the last bit. This sum errs by less than t * 2^-103, so `high` is the correctly rounded power.
function nextPower([high, low], beta) {
  const [p, e] = exactProduct(high, beta);
  const rest = e + low * beta, sum = p + rest;
  return [sum, rest - (sum - p)];
}

function initState(theta) {
  const zeros = () => theta.map(() => 0);
  return { m: zeros(), v: zeros(), v_max: zeros(), t: 0, power1: [1, 0], power2: [1, 0] };
}

// The share of theta that decoupled decay takes away in a step.
function decayShare(hyper) {
  const { lr, weight_decay, base_lr } = hyper;
  if (hyper.decay === "lr") return lr * weight_decay;
  if (hyper.decay === "independent") return lr / base_lr * weight_decay;
  if (hyper.decay === "corrected") return lr * lr / base_lr * weight_decay;
  return 0;
}

// The hyperparameters of a step, complete; the names and defaults are those of adamas.scalars.Hyper.
function makeHyper(given) {
  return { ...RULE_DEFAULTS, ...given };
}

// Takes one step with hyperparameters of makeHyper and returns { theta, state, v_hat, decayed }; `decayed` is what
// decoupled decay acts on.
function ruleStep(theta, g, state, hyper) {
  const { lr, beta1, beta2, weight_decay, amsgrad, eps_root } = hyper, size = theta.length, share = decayShare(hyper);
  const power1 = nextPower(state.power1, beta1), power2 = nextPower(state.power2, beta2);
  const c1 = hyper.bias_correction ? 1 - power1[0] : 1, c2 = hyper.bias_correction ? 1 - power2[0] : 1;
  const hat = hyper.eps_mode === "hat" && amsgrad !== "corrected";
  const eps = hat ? hyper.eps / Math.sqrt(c2) : hyper.eps;
  const next = { theta: Array(size), v_hat: Array(size), decayed: Array(size), state: null };
  const kept = { m: Array(size), v: Array(size), v_max: Array(size), t: state.t + 1, power1, power2 };
  for (let i = 0; i < size; i++) {
    const x = theta[i];
    let gradient = hyper.maximize ? -g[i] : g[i];
    if (hyper.decay === "l2") gradient = gradient + weight_decay * x;
    const m = beta1 * state.m[i] + (1 - beta1) * gradient;
    const v = beta2 * state.v[i] + (1 - beta2) * (gradient * gradient);
    let v_hat = v / c2, v_max = state.v_max[i];
    if (amsgrad === "raw") { v_max = Math.max(v_max, v); v_hat = v_max / c2; }
    if (amsgrad === "corrected") v_hat = v_max = Math.max(v_max, v_hat);
    const u = (m / c1) / (Math.sqrt(v_hat + eps_root) + eps);
    let decayed = Math.min(Math.max(x, -Number.MAX_VALUE), Number.MAX_VALUE);
    if (hyper.cautious_decay && Math.sign(u) * Math.sign(x) < 0) decayed = 0;
    next.theta[i] = lr === 0 ? x + 0 : x - lr * u - share * decayed;
    next.v_hat[i] = v_hat; next.decayed[i] = decayed;
    kept.m[i] = m; kept.v[i] = v; kept.v_max[i] = v_max;
  }
  next.state = kept;
  return next;
}

if (typeof module !== "undefined") module.exports = { makeHyper, ruleStep, initState, nextPower, decayShare };
