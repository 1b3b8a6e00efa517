// The page: it computes a view from the settings and shows it in sentences, figures and code.
"use strict";

const $ = (id) => document.getElementById(id);
const STUDIES = JSON.parse($("studies").textContent);
const REDUCED = matchMedia("(prefers-reduced-motion: reduce)");

let settings = readAddress();
let view = null;
let mapScale = 1;
let playing = 0;
let windowTask = 0;
let say = null;

function speak() {
  const common = (texts) => ({
    other: texts["name_" + settings.rule], share: texts["share_" + settings.rule], ratio: show(settings.ratio),
    scale: show(settings.scale),
  });
  say = speaker(settings.lang, common);
}

// Computes the runs, shows everything, and leaves the windows for later, because they take 82 runs.
function update() {
  const runs = {};
  for (const which of ORDER) {
    const run = runs[which] = trajectory(settings, which);
    const steady = which !== "other" || settings.rule !== "cautious";
    run.smooth = steady ? run.rates : run.rates.map((_, step) => lately(run.rates, step + 1));
  }
  view = { settings, runs, windows: null, at: view ? view.at : TOY.steps, say };
  showSettings(settings); writeAddress(settings);
  showStep(); showWindow(); showCode();
  computeWindows();
}

// Computes the two windows, and those at loss x 1, one run at a time with pauses, so that sliders stay quick.
function computeWindows() {
  clearTimeout(windowTask);
  const at_one = { ...settings, scale: 1 };
  const wanted = settings.scale === 1 ? [settings] : [settings, at_one];
  const jobs = wanted.flatMap((given) => ["l2", "other"].map((which) => windowRuns(given, which)));
  const work = () => {
    const until = performance.now() + 12;
    let open = jobs.find((job) => !job.done);
    while (open && performance.now() < until) { open.advance(); open = jobs.find((job) => !job.done); }
    if (open) { windowTask = setTimeout(work); return; }
    const [l2, other, l2_one = l2, other_one = other] = jobs.map((job) => job.result());
    view.windows = { l2, other, one: { l2: l2_one, other: other_one } };
    showWindow();
  };
  windowTask = setTimeout(work);
}

// A number in a sentence; a run that ended in inf or NaN is called what it is.
const finite = (x, format) => (Number.isFinite(x) ? format(x) : say("diverged"));
const number = (x) => finite(x, (y) => show(y, 3));
const rough = (x) => finite(x, (y) => show(y, 2));
const share = (x) => (Number.isFinite(x) ? percent(x) : "–");

// Sentences and figures that depend on the step: everything of steps 1 and 3.
function showStep() {
  const { runs, at } = view, [l2a, l2b] = runs.l2.theta[at], [wa, wb] = runs.other.theta[at];
  $("at").value = at; $("at-value").textContent = at;
  const [pull_a, pull_b] = [0, 1].map((i) => rough(runs.none.theta[at][i] - runs.l2.theta[at][i]));
  const numbers = { at, l2a: number(l2a), l2b: number(l2b), wa: number(wa), wb: number(wb), pull_a, pull_b };
  $("live1").textContent = say("live1", numbers);
  showRates();
  drawSurface($("surface"), view); drawWeights($("weights"), view); drawRates($("rates"), view);
}

// The effective decay rates at the step: two sentences, and four bars.
function showRates() {
  const { runs, at } = view, [l2a, l2b] = runs.l2.smooth[at - 1], [wa, wb] = runs.other.smooth[at - 1];
  const times = l2a / l2b, roots = runs.l2.roots[at - 1], n = rough(Math.max(times, 1 / times));
  const which = !(Math.abs(Math.log(times)) > 0.05) ? "faster_none" : times > 1 ? "faster_a" : "faster_b";
  const rates = { l2a: share(l2a), l2b: share(l2b), wa: share(wa), wb: share(wb), factor: say(which, { n }), at };
  const mean = settings.rule === "cautious" ? " " + say("bars_mean") : "";
  $("live3").textContent = say("live3", rates) + mean;
  const told = times > 1.05 ? say("live_claim", { v_factor: rough(roots[1] / roots[0]), n }) : say("live_claim_off");
  $("live-claim").textContent = told;
  const most = Math.max(...[l2a, l2b, wa, wb].filter(Number.isFinite)), rows = [];
  for (const [kind, pair] of [["l2", [l2a, l2b]], ["other", [wa, wb]]]) {
    pair.forEach((rate, i) => {
      const row = document.createElement("tr"), track = cell("td", ""), bar = document.createElement("div");
      track.className = "track"; bar.className = "bar " + kind; bar.style.width = `${most > 0 ? 100 * rate / most : 0}%`;
      track.append(bar);
      const name = cell("th", `${nameOf(view, kind)} · ${"AB"[i]}`);
      name.scope = "row";
      row.append(name, cell("td", rough(runs[kind].roots[at - 1][i])), cell("td", share(rate)), track);
      rows.push(row);
    });
  }
  $("bars").replaceChildren(...rows);
}

function showWindow() {
  const { windows } = view, one = windows && windows.one;
  $("loss-now").textContent = say("scale_is", { scale: show(settings.scale) });
  $("scale-up").disabled = settings.scale > 100; $("scale-down").disabled = settings.scale < 0.01;
  $("follow").disabled = settings.scale === 1;
  const moved = (which) => {
    const now = windows[which].best, before = one[which].best, name = nameOf(view, which);
    const values = { name, now: rough(now), before: rough(before), factor: rough(now / before) };
    return say(now === before ? "stays" : "moves", values);
  };
  const bests = () => say("live2_one", { l2: rough(windows.l2.best), wd: rough(windows.other.best) });
  const both = () => say("live2", { l2: moved("l2"), wd: moved("other") });
  $("step2").classList.toggle("stale", !windows);
  if (!windows) return; // what was computed last stays, paler, until the new windows are there
  $("live2").textContent = settings.scale === 1 ? bests() : both();
  drawWindow($("window"), view);
}

// The two optimizers in Python, as the package makes them.
function showCode() {
  const { lr, beta1, beta2, eps, l2, wd, rule } = settings;
  const python = (x) => (Number.isInteger(x) && Math.abs(x) < 1e16 ? x.toFixed(1) : String(x));
  const betas = beta1 === 0.9 && beta2 === 0.999 ? "" : `, betas=(${python(beta1)}, ${python(beta2)})`;
  const epsilon = eps === 1e-8 ? "" : `, eps=${python(eps)}`; // the defaults need not be written
  const made = (name, decay, more) =>
    `${name}(model.parameters(), lr=${python(lr)}, weight_decay=${python(decay)}${more}${betas}${epsilon})`;
  const more = { lr: "", independent: ', decay="independent"', corrected: ', decay="corrected"', cautious: ", cautious_decay=True" };
  $("code").textContent = `from adamas.torch import Adam, AdamW\n\noptimizer = ${made("AdamW", wd, more[rule])}\n` +
    `adam_l2 = ${made("Adam", l2, "")}`;
}

function change(values) {
  settings = { ...settings, ...values };
  speak();
  if ("rule" in values || "ratio" in values) showLanguage(); // texts that name them
  update();
}

function changeLanguage(lang) {
  settings = { ...settings, lang };
  speak();
  view = { ...view, settings, say };
  showLanguage(); showSettings(settings); writeAddress(settings);
  showStep(); showWindow();
}

function showLanguage() {
  showTexts(say, settings.lang);
  $("play").textContent = say(playing ? "pause" : "play");
  showStudies(STUDIES, mapScale, say);
}

// Another rule keeps the decay of a step: the number of "independent" is lr times that of the others.
function changeRule(rule) {
  const was = settings.rule === "independent", is = rule === "independent", factor = settings.lr ** (is - was);
  const wd = Math.min(Math.max(round(settings.wd * factor, 3), 1e-6), 100);
  change({ rule, wd });
}

function play() {
  if (playing) { stopPlaying(); return; }
  if (REDUCED.matches) { moveTo(TOY.steps); return; }
  const from = view.at >= TOY.steps ? 1 : view.at, started = performance.now();
  const frame = (now) => {
    const at = Math.min(TOY.steps, from + Math.floor((now - started) / 10));
    moveTo(Math.max(at, 1));
    if (at < TOY.steps && playing) playing = requestAnimationFrame(frame); else stopPlaying();
  };
  playing = requestAnimationFrame(frame);
  $("play").textContent = say("pause");
}

function stopPlaying() {
  cancelAnimationFrame(playing); playing = 0;
  $("play").textContent = say("play");
}

function moveTo(at) {
  view.at = at; showStep();
}

function start() {
  makeSliders($("sliders"), (name, value) => change({ [name]: value }));
  $("panel").open = matchMedia("(min-width: 64rem)").matches;
  $("at").max = TOY.steps;
  $("at").addEventListener("input", () => { stopPlaying(); moveTo(Number($("at").value)); });
  $("play").addEventListener("click", play);
  $("rule").addEventListener("change", () => changeRule($("rule").value));
  $("schedule").addEventListener("change", () => change({ schedule: $("schedule").value }));
  const times = (factor) => round(settings.scale * factor, 3);
  $("scale-up").addEventListener("click", () => change({ scale: times(10) }));
  $("scale-down").addEventListener("click", () => change({ scale: times(0.1) }));
  $("follow").addEventListener("click", () => change({ l2: Math.min(round(SLIDERS.l2.value * settings.scale, 3), 100) }));
  $("controls").addEventListener("reset", (event) => { event.preventDefault(); change({ ...defaults(), lang: settings.lang }); });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const button of document.querySelectorAll("[data-lang]")) button.addEventListener("click", () => changeLanguage(button.dataset.lang));
  for (const radio of document.getElementsByName("map-scale")) {
    radio.addEventListener("change", () => { mapScale = Number(radio.value); showStudies(STUDIES, mapScale, say); });
  }
  $("copy").addEventListener("click", copyCode);
  addEventListener("hashchange", () => { settings = readAddress(); changeLanguage(settings.lang); update(); });
  const redraw = () => { showStep(); showWindow(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
  readColours(); speak(); showLanguage();
  $("live2").textContent = say("computing");
  update();
  addEventListener("resize", redraw);
  performance.mark("interactive");
}

// A page from a file may not have the clipboard: the code is then selected, ready for the keyboard.
function copyCode() {
  getSelection().selectAllChildren($("code"));
  if (!document.execCommand("copy")) return;
  $("copy").textContent = say("copied");
  setTimeout(() => { $("copy").textContent = say("copy"); }, 2000);
}

start();
