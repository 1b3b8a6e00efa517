// The four figures on canvases. Each function draws a view: { settings, runs, windows, at, say }.
"use strict";

const ORDER = ["none", "l2", "other"]; // the last is drawn on top

const nameOf = (view, which) => (which === "other" ? view.say("name_" + view.settings.rule) : view.say(which));

// The paths of the two weights over the contours of the training loss, which are ellipses around its minimum.
function drawSurface(canvas, view) {
  const { context, width, height } = prepare(canvas), { say } = view, side = Math.min(width - 46, height - 60);
  const axis = { low: -0.2, high: 2.2, ticks: [0, 0.5, 1, 1.5, 2], format: show };
  const frame = new Frame(context, [38, 22, side, side], { ...axis, name: say("weight_a") }, { ...axis, name: say("weight_b") });
  frame.inside(() => {
    context.strokeStyle = cssColour("--contour"); context.lineWidth = 1.3;
    const [a, b] = curvatures(view.settings), [x, y] = TOY.minimum, unit = frame.x(1) - frame.x(0);
    const farthest = (a + b) * 1.44;
    for (let level = 1; level <= 10; level++) {
      const loss = farthest * (level / 10) ** 2, radii = [Math.sqrt(loss / a) * unit, Math.sqrt(loss / b) * unit];
      context.beginPath(); context.ellipse(frame.x(x), frame.y(y), ...radii, 0, 0, 2 * Math.PI); context.stroke();
    }
    for (const which of ORDER) frame.line(view.runs[which].theta.slice(0, view.at + 1), LOOKS[which]);
  });
  frame.mark(TOY.minimum, { colour: "--text" }, "cross");
  frame.mark(TOY.useful, { colour: "--text" }, "ring");
  for (const which of ORDER) frame.mark(view.runs[which].theta[view.at], LOOKS[which]);
  frame.label(say("minimum"), TOY.minimum, "--text", [12, -8]);
  frame.label(say("useful"), TOY.useful, "--text", [4, 24]);
  frame.label(say("start"), TOY.start, "--muted", [-6, -8], "right");
  const ends = ["l2", "other"].map((which) => `${nameOf(view, which)}: A ${show(view.runs[which].theta[view.at][0])}, B ${show(view.runs[which].theta[view.at][1])}`);
  canvas.setAttribute("aria-label", `${say("surface")}. ${ends.join("; ")}`);
}

// Weight A above weight B, over the steps.
function drawWeights(canvas, view) {
  const { context, width, height } = prepare(canvas), { say } = view, each = (height - 96) / 2;
  const x = { low: 0, high: TOY.steps, ticks: [0, 100, 200, 300, 400, 500], format: String };
  const y = { low: -0.2, high: 2.2, ticks: [0, 1, 2], format: String };
  [say("weight_a"), say("weight_b")].forEach((name, i) => {
    const last = i === 1, top = 22 + i * (each + 42);
    const frame = new Frame(context, [28, top, width - 40, each], { ...x, name: last ? say("steps") : "" }, { ...y, name });
    frame.inside(() => {
      for (const which of ORDER) frame.line(view.runs[which].theta.map((row, step) => [step, row[i]]), LOOKS[which]);
    });
    frame.cursor(view.at);
    for (const which of ORDER) frame.mark([view.at, view.runs[which].theta[view.at][i]], LOOKS[which]);
  });
  canvas.setAttribute("aria-label", `${say("weights")}. ${document.getElementById("live1").textContent}`);
}

// The distance from the useful weights by weight decay: now, and faintly at loss x 1.
function drawWindow(canvas, view) {
  const { context, width, height } = prepare(canvas), { say, windows, settings } = view;
  const x = { low: WINDOW[0], high: WINDOW.at(-1), log: true, ticks: powersOfTen(WINDOW[0], WINDOW.at(-1), width / 50), format: (x) => show(x) };
  const y = { low: -0.1, high: 0.75, ticks: [0, 0.25, 0.5, 0.75], format: String };
  const frame = new Frame(context, [36, 14, width - 50, height - 54], { ...x, name: say("window_x") }, y);
  const lowest = (one) => [one.best, Math.min(...one.found)];
  const lines = (found) => found.map((far, i) => [WINDOW[i], far]);
  for (const which of ["l2", "other"]) {
    const now = windows[which], before = windows.one[which];
    frame.inside(() => {
      if (settings.scale !== 1) frame.line(lines(before.found), LOOKS[which], 0.4);
      frame.line(lines(now.found), LOOKS[which]);
    });
    if (before.best !== now.best) arrow(frame, lowest(before), lowest(now), LOOKS[which].colour);
    frame.mark(lowest(now), LOOKS[which]);
  }
  for (const which of ["l2", "other"]) {
    const now = windows[which], before = windows.one[which];
    if (before.best !== now.best) frame.label(say("at_one"), lowest(before), LOOKS[which].colour, [0, -12], "center");
    const text = `${nameOf(view, which)}: ${say("best")} ${show(now.best, 2)}`;
    frame.label(text, lowest(now), LOOKS[which].colour, [0, 22], away(windows, which));
  }
  const low = (one) => show(Math.min(...one.found), 2);
  canvas.setAttribute("aria-label", say("window_label", {
    l2: show(windows.l2.best, 2), l2_low: low(windows.l2), wd: show(windows.other.best, 2), wd_low: low(windows.other),
  }));
}

// On which side of the best weight decay its label ends: away from the other optimizer's, and inside of the figure.
function away(windows, which) {
  const own = windows[which].best, other = windows[which === "l2" ? "other" : "l2"].best;
  if (own < 1e-3 || own > 5) return own > 5 ? "right" : "left";
  return own < other ? "right" : "left";
}

// An arrow in a frame, from where the best weight decay was to where it is.
function arrow(frame, [x0, y0], [x1, y1], colour) {
  const { context } = frame, from = [frame.x(x0), frame.y(y0)], to = [frame.x(x1), frame.y(y1)];
  const back = Math.sign(to[0] - from[0]);
  if (Math.abs(to[0] - from[0]) < 20) return;
  context.save();
  context.strokeStyle = context.fillStyle = cssColour(colour); context.lineWidth = 2; context.setLineDash([]);
  context.beginPath(); context.moveTo(...from); context.lineTo(to[0] - back * 16, to[1]); context.stroke();
  context.beginPath(); context.moveTo(to[0] - back * 8, to[1]);
  for (const side of [-5, 5]) context.lineTo(to[0] - back * 18, to[1] + side);
  context.fill(); context.restore();
}

// The effective decay rates of both weights under both optimizers, over the steps.
function drawRates(canvas, view) {
  const { context, width, height } = prepare(canvas), { say } = view;
  const all = ["l2", "other"].flatMap((which) => view.runs[which].smooth.flat()).filter((rate) => rate > 0 && rate < Infinity);
  const low = all.length ? 10 ** Math.floor(Math.log10(Math.min(...all)) - 0.1) : 1e-6;
  const high = all.length ? 10 ** Math.ceil(Math.log10(Math.max(...all)) + 0.1) : 1;
  const x = { low: 0, high: TOY.steps, ticks: [0, 100, 200, 300, 400, 500], format: String, name: say("steps") };
  const y = { low, high, log: true, ticks: powersOfTen(low, high, 7), format: percent };
  const frame = new Frame(context, [62, 12, width - 96, height - 52], x, y);
  const atEnd = [];
  for (const which of ["l2", "other"]) {
    [0, 1].forEach((i) => {
      frame.inside(() => frame.line(view.runs[which].smooth.map((row, step) => [step + 1, row[i]]), LOOKS[which]));
      atEnd.push([which, i, view.runs[which].smooth.at(-1)[i]]);
      frame.mark([view.at, view.runs[which].smooth[view.at - 1][i]], LOOKS[which]);
    });
  }
  for (const [which, i, rate] of atEnd) {
    const [, , twin] = atEnd.find(([other, j]) => other === which && j !== i), same = Math.abs(Math.log(rate / twin)) < 0.2;
    if (!same || i === 0) frame.label(same ? "A B" : "AB"[i], [TOY.steps, rate], LOOKS[which].colour, [8, 4]);
  }
  frame.cursor(view.at);
  canvas.setAttribute("aria-label", `${say("rates")}. ${document.getElementById("live3").textContent}`);
}
