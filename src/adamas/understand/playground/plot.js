// Drawing on a canvas: a frame with axes in data units, lines, marks and labels. It knows nothing of optimizers.
"use strict";

// How each optimizer looks everywhere: colour, dash and mark all differ, so that none of them is needed alone.
const LOOKS = {
  l2: { colour: "--l2", dash: [7, 4], mark: "triangle", width: 2.2 },
  other: { colour: "--other", dash: [], mark: "disc", width: 2.2 },
  none: { colour: "--none", dash: [1.5, 4], mark: "", width: 1.8 },
};

// The colours of style.css by name. They are read once: a browser computes every style anew for each reading.
let colours = {};

function readColours() {
  const style = getComputedStyle(document.documentElement), names = ["text", "muted", "rule", "card", "contour", "l2", "other", "none"];
  colours = Object.fromEntries(names.map((name) => ["--" + name, style.getPropertyValue("--" + name).trim()]));
}

const cssColour = (name) => colours[name];

// Numbers as people write them: at most three digits, and a power of ten below a thousandth.
function show(x, digits = 3) {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "NaN" : x > 0 ? "∞" : "-∞";
  const rounded = Number(x.toPrecision(digits));
  return (rounded !== 0 && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : String(rounded)).replace("e+", "e");
}

function percent(x) {
  return show(100 * x, 2) + "%";
}

// Makes the canvas as sharp as the screen and returns its context with the size in CSS pixels.
function prepare(canvas) {
  const width = Math.max(200, canvas.clientWidth), height = Math.max(190, Math.round(width * canvas.dataset.height));
  const density = window.devicePixelRatio || 1;
  canvas.style.height = height + "px";
  canvas.width = Math.round(width * density); canvas.height = Math.round(height * density);
  const context = canvas.getContext("2d");
  context.scale(density, density);
  context.lineJoin = "round";
  context.font = "12px system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'PingFang SC', 'Microsoft YaHei', sans-serif";
  return { context, width, height };
}

// One axis: { low, high, log, ticks, format }; returns a function from data units to a fraction of the frame.
function toFraction({ low, high, log }) {
  return log ? (x) => Math.log(x / low) / Math.log(high / low) : (x) => (x - low) / (high - low);
}

// A frame inside of `box` = [left, top, width, height], with its grid, its ticks and the names of its axes.
class Frame {
  constructor(context, [left, top, width, height], x, y) {
    Object.assign(this, { context, left, top, width, height });
    const across = toFraction(x), up = toFraction(y);
    this.x = (value) => left + width * across(value);
    this.y = (value) => top + height * (1 - up(value));
    context.strokeStyle = cssColour("--rule"); context.lineWidth = 1; context.setLineDash([]);
    context.fillStyle = cssColour("--muted");
    for (const tick of x.ticks) {
      this._segment(this.x(tick), top, this.x(tick), top + height);
      this._text(x.format(tick), this.x(tick), top + height + 15, "center");
    }
    for (const tick of y.ticks) {
      this._segment(left, this.y(tick), left + width, this.y(tick));
      this._text(y.format(tick), left - 6, this.y(tick) + 4, "right");
    }
    if (x.name) this._text(x.name, left + width, top + height + 31, "right");
    if (y.name) this._text(y.name, left, top - 8, "left");
  }

  _segment(x0, y0, x1, y1) {
    this.context.beginPath(); this.context.moveTo(x0, y0); this.context.lineTo(x1, y1); this.context.stroke();
  }

  _text(text, x, y, align) {
    this.context.textAlign = align; this.context.fillText(text, x, y);
  }

  // Calls `draw` with everything outside of the frame cut off.
  inside(draw) {
    const { context } = this;
    context.save(); context.beginPath(); context.rect(this.left, this.top, this.width, this.height); context.clip();
    draw(); context.restore();
  }

  line(points, look, opacity = 1) {
    const { context } = this;
    context.save();
    context.strokeStyle = cssColour(look.colour); context.lineWidth = look.width; context.setLineDash(look.dash);
    context.globalAlpha = opacity; context.beginPath();
    let drawing = false;
    for (const [x, y] of points) {
      const place = [this.x(x), this.y(y)];
      if (!place.every(Number.isFinite)) { drawing = false; continue; }
      if (drawing) context.lineTo(...place); else context.moveTo(...place);
      drawing = true;
    }
    context.stroke(); context.restore();
  }

  mark([x, y], look, kind = look.mark, opacity = 1) {
    const { context } = this, [cx, cy, r] = [this.x(x), this.y(y), 6];
    if (!kind || !Number.isFinite(cx + cy)) return;
    context.save();
    context.globalAlpha = opacity; context.setLineDash([]); context.lineWidth = 2;
    context.fillStyle = context.strokeStyle = cssColour(look.colour); context.beginPath();
    if (kind === "triangle") { context.moveTo(cx, cy - r); context.lineTo(cx + r, cy + r * .8); context.lineTo(cx - r, cy + r * .8); context.closePath(); }
    else if (kind === "cross") { context.moveTo(cx - 5, cy - 5); context.lineTo(cx + 5, cy + 5); context.moveTo(cx + 5, cy - 5); context.lineTo(cx - 5, cy + 5); }
    else context.arc(cx, cy, kind === "ring" ? 8 : 5.5, 0, 2 * Math.PI);
    if (kind === "cross" || kind === "ring") context.stroke();
    else { context.fill(); context.strokeStyle = cssColour("--card"); context.lineWidth = 1.2; context.stroke(); }
    context.restore();
  }

  // Text beside a point, inside of the canvas, with an edge of the card's colour so that lines do not cross it.
  label(text, [x, y], colour, [dx, dy] = [10, 4], align = "left") {
    const { context } = this, place = [this.x(x) + dx, this.y(y) + dy];
    if (!place.every(Number.isFinite)) return;
    const size = context.measureText(text).width, left = place[0] - { left: 0, center: 0.5, right: 1 }[align] * size;
    place[0] += Math.max(2 - left, 0) - Math.max(left + size + 2 - context.canvas.clientWidth, 0);
    context.save();
    context.textAlign = align; context.lineWidth = 4; context.strokeStyle = cssColour("--card"); context.lineJoin = "round";
    context.strokeText(text, ...place); context.fillStyle = cssColour(colour); context.fillText(text, ...place);
    context.restore();
  }

  // A thin line across the frame at an x.
  cursor(x) {
    this.context.strokeStyle = cssColour("--muted"); this.context.setLineDash([]); this.context.lineWidth = 1;
    this._segment(this.x(x), this.top, this.x(x), this.top + this.height);
  }
}

// The powers of ten from low to high, thinned to at most `most`.
function powersOfTen(low, high, most = 9) {
  const first = Math.ceil(Math.log10(low) - 1e-9), last = Math.floor(Math.log10(high) + 1e-9);
  const every = Math.ceil((last - first + 1) / most), ticks = [];
  for (let power = first; power <= last; power += every) ticks.push(Number(`1e${power}`));
  return ticks;
}
