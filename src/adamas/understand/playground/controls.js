// The settings: their sliders, their place in the address, and the two languages.
"use strict";

const round = (x, digits) => Number(x.toPrecision(digits));
const power = { from: (place) => round(10 ** place, 3), to: Math.log10 }; // a slider of powers of ten
const beta = { from: (place) => round(1 - 10 ** -place, 6), to: (x) => -Math.log10(1 - x) }; // one of 1 - beta
const epsilon = { from: (place) => (place <= -16 ? 0 : round(10 ** place, 3)), to: (x) => (x <= 1e-16 ? -16 : Math.log10(x)) };

const SLIDERS = {
  scale: { low: -3, high: 3, step: 0.25, value: 1, text: "scale", ...power },
  l2: { low: -6, high: 2, step: 0.1, value: 0.05, text: "l2_decay", ...power },
  wd: { low: -6, high: 2, step: 0.1, value: 0.5, text: "wd_decay", ...power },
  lr: { low: -4, high: 0, step: 0.1, value: 0.01, text: "lr", ...power },
  ratio: { low: 0, high: 3, step: 0.1, value: 30, text: "ratio", ...power },
  beta1: { low: 0, high: 3, step: 0.25, value: 0.9, text: "beta1", ...beta },
  beta2: { low: 0, high: 4, step: 0.25, value: 0.999, text: "beta2", ...beta },
  eps: { low: -16, high: 0, step: 0.5, value: 1e-8, text: "eps", ...epsilon },
};
const CHOICES = { rule: ["lr", "independent", "corrected", "cautious"], schedule: ["constant", "cosine"], lang: ["en", "zh"] };

const PAGE_LANGUAGE = document.documentElement.lang.slice(0, 2); // what the file was written for

function defaults() {
  const settings = { rule: "lr", schedule: "constant", lang: PAGE_LANGUAGE };
  for (const [name, slider] of Object.entries(SLIDERS)) settings[name] = slider.value;
  return settings;
}

// The settings in the address: numbers out of range, and names that do not exist, leave the default.
function readAddress() {
  const settings = defaults(), given = new URLSearchParams(location.hash.slice(1));
  for (const [name, slider] of Object.entries(SLIDERS)) {
    const value = given.has(name) && given.get(name) !== "" ? Number(given.get(name)) : NaN, place = slider.to(value);
    if (place >= slider.low - 1e-9 && place <= slider.high + 1e-9) settings[name] = value;
  }
  for (const [name, allowed] of Object.entries(CHOICES)) {
    if (allowed.includes(given.get(name))) settings[name] = given.get(name);
  }
  return settings;
}

function writeAddress(settings) {
  const changed = Object.entries(defaults()).filter(([name, value]) => settings[name] !== value);
  const text = new URLSearchParams(changed.map(([name]) => [name, settings[name]])).toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

// Makes the sliders and calls `changed(name, value)` when one is moved.
function makeSliders(parent, changed) {
  for (const [name, slider] of Object.entries(SLIDERS)) {
    const row = document.createElement("div"), label = document.createElement("label");
    const input = document.createElement("input"), output = document.createElement("output");
    row.className = "slider"; label.htmlFor = output.htmlFor = input.id = name; label.dataset.text = slider.text;
    output.id = name + "-value";
    Object.assign(input, { type: "range", min: slider.low, max: slider.high, step: slider.step });
    input.addEventListener("input", () => changed(name, slider.from(Number(input.value))));
    row.append(label, output, input);
    parent.append(row);
  }
}

function showSettings(settings) {
  for (const [name, slider] of Object.entries(SLIDERS)) {
    const input = document.getElementById(name), text = name === "scale" ? "×" + show(settings[name]) : String(settings[name]);
    if (slider.from(Number(input.value)) !== settings[name]) input.value = slider.to(settings[name]);
    input.setAttribute("aria-valuetext", text);
    document.getElementById(name + "-value").textContent = text;
  }
  for (const name of ["rule", "schedule"]) document.getElementById(name).value = settings[name];
}

// Returns say(key, values): a text of the language with the values in place of their names in braces.
function speaker(lang, common) {
  const texts = JSON.parse(document.getElementById("texts").textContent)[lang];
  return (key, values = {}) => {
    const all = { ...common(texts), ...values };
    return texts[key].replace(/\{(\w+)\}/g, (_, name) => all[name]);
  };
}

// Puts every text of the page into its place, as text and never as HTML.
function showTexts(say, lang) {
  document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  document.title = say("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = say(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  for (const button of document.querySelectorAll("[data-lang]")) button.setAttribute("aria-pressed", String(button.dataset.lang === lang));
}
