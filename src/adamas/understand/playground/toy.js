// The toy problem: two weights, A with small and B with large gradients, trained by three optimizers on the same noise.
"use strict";

const TOY = {
  steps: 500, start: [1.9, 1.9], minimum: [1, 1], useful: [0.6, 0.6], curvature: 0.1, noise: 1, seed: 7,
};

// Random numbers of mean 0 and variance 1, the same in every browser: the sum of twelve uniform numbers, minus six.
function noiseSource(seed) {
  let state = seed >>> 0;
  const uniform = () => { // mulberry32
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return () => { let sum = -6; for (let i = 0; i < 12; i++) sum += uniform(); return sum; };
}

const NOISE = (() => {
  const draw = noiseSource(TOY.seed);
  return Array.from({ length: TOY.steps }, () => [draw(), draw()]);
})();

// The curvature of the loss along A and along B: their ratio is the ratio of the two weights' gradients.
function curvatures({ ratio, scale }) {
  const root = Math.sqrt(ratio);
  return [scale * TOY.curvature / root, scale * TOY.curvature * root];
}

function gradient(theta, step, curvature) {
  const along = (i) => curvature[i] * ((theta[i] - TOY.minimum[i]) + TOY.noise * NOISE[step][i]);
  return [along(0), along(1)];
}

// The rate of the schedule at a step, as a multiple of the learning rate.
function scheduleFactor(schedule, step) {
  return schedule === "cosine" ? 0.5 * (1 + Math.cos(Math.PI * step / TOY.steps)) : 1;
}

// What the page's settings mean for the rule; `which` is "none", "l2" or "other".
function hyperOf(settings, which) {
  const { lr, beta1, beta2, eps } = settings, common = { lr, beta1, beta2, eps, base_lr: lr };
  if (which === "none") return makeHyper({ ...common, decay: "l2", weight_decay: 0 });
  if (which === "l2") return makeHyper({ ...common, decay: "l2", weight_decay: settings.l2 });
  const cautious_decay = settings.rule === "cautious", decay = cautious_decay ? "lr" : settings.rule;
  return makeHyper({ ...common, decay, weight_decay: settings.wd, cautious_decay });
}

// The part of each weight that decay takes away in a step: exact for decoupled decay. For L2 it is
// lr * lambda / (sqrt(v_hat) + eps), the decay's part of the update where the moments have settled.
function decayRates(hyper, theta, done) {
  if (hyper.decay === "l2") {
    return done.v_hat.map((v) => hyper.weight_decay && hyper.lr * hyper.weight_decay / (Math.sqrt(v) + hyper.eps));
  }
  const share = decayShare(hyper);
  return theta.map((x, i) => (x === 0 ? share : share * done.decayed[i] / x));
}

// Trains the two weights; `record` sees (step, theta after the step, decay rates of the step, root of v_hat).
function train(settings, which, record) {
  const hyper = hyperOf(settings, which), curvature = curvatures(settings);
  let theta = TOY.start, state = initState(theta);
  for (let step = 0; step < TOY.steps; step++) {
    hyper.lr = settings.lr * scheduleFactor(settings.schedule, step);
    const done = ruleStep(theta, gradient(theta, step, curvature), state, hyper);
    if (record) record(done.theta, decayRates(hyper, theta, done), done.v_hat.map(Math.sqrt));
    theta = done.theta; state = done.state;
  }
  return theta;
}

// Returns { theta, rates, roots }, lists over steps of [A, B]; theta has the start in front.
function trajectory(settings, which) {
  const run = { theta: [TOY.start], rates: [], roots: [] };
  train(settings, which, (theta, rates, roots) => { run.theta.push(theta); run.rates.push(rates); run.roots.push(roots); });
  return run;
}

// How far the weights are from those that new data would prefer: the root of the mean square over A and B.
function distance(theta) {
  const squares = theta.map((x, i) => (x - TOY.useful[i]) ** 2);
  return Math.sqrt((squares[0] + squares[1]) / 2);
}

const WINDOW = Array.from({ length: 41 }, (_, i) => Number((10 ** (-6 + i / 5)).toPrecision(3))); // weight decays from 1e-6 to 1e2

// The runs of every weight decay of WINDOW, one at a call of `advance`: { found, best } are distances and the best decay.
function windowRuns(settings, which) {
  const name = which === "l2" ? "l2" : "wd", found = [];
  return {
    get done() { return found.length === WINDOW.length; },
    advance() {
      const far = distance(train({ ...settings, [name]: WINDOW[found.length] }, which));
      found.push(Number.isFinite(far) ? far : Infinity);
    },
    result: () => ({ found, best: WINDOW[found.indexOf(Math.min(...found))] }),
  };
}

// The mean over the last fifth of the run, for rates that change from step to step.
function lately(rows, end) {
  const rowsOf = rows.slice(Math.max(0, end - TOY.steps / 5), end);
  return [0, 1].map((i) => rowsOf.reduce((sum, row) => sum + row[i], 0) / rowsOf.length);
}

if (typeof module !== "undefined") {
  Object.assign(globalThis, require("./rule.js"));
  module.exports = { TOY, WINDOW, trajectory, train, windowRuns, distance, lately };
}
