// The heat maps of real studies: tables whose cells have colours, so that every figure can be read as a number.
"use strict";

const WORST = Math.log(10); // the cross-entropy of guessing among ten classes: no cell is shown as worse

// The lowest cell of a map: { loss, lr, decay, row, column }.
function bestCell(studies, map) {
  let best = { loss: Infinity };
  map.forEach((losses, row) => losses.forEach((loss, column) => {
    if (loss !== null && loss < best.loss) {
      best = { loss, row, column, lr: studies.lr[column], decay: studies.weight_decay[row] };
    }
  }));
  return best;
}

function cell(kind, text) {
  const element = document.createElement(kind);
  element.textContent = text;
  return element;
}

// A colour of the scale of five, as CSS that follows light and dark: 0 is the best, 1 the worst.
function scaleColour(fraction) {
  const place = Math.min(Math.max(fraction, 0), 1) * 4, below = Math.min(Math.floor(place), 3);
  const share = Math.round(100 * (1 - (place - below)));
  return `color-mix(in srgb, var(--scale-${below}) ${share}%, var(--scale-${below + 1}))`;
}

function mapTable(studies, map, lowest, say, title) {
  const table = document.createElement("table"), head = table.createTHead().insertRow(), best = bestCell(studies, map);
  table.className = "map"; table.setAttribute("aria-label", title);
  head.append(cell("th", say("map_corner")));
  for (const lr of studies.lr) head.append(Object.assign(cell("th", show(lr)), { scope: "col" }));
  map.forEach((losses, row) => {
    const line = (table.tBodies[0] || table.createTBody()).insertRow();
    line.append(Object.assign(cell("th", show(studies.weight_decay[row], 2)), { scope: "row" }));
    losses.forEach((loss, column) => {
      const made = cell("td", loss === null ? say("diverged") : loss.toFixed(2));
      const fraction = loss === null ? 1 : (loss - lowest) / (WORST - lowest);
      made.style.background = scaleColour(fraction);
      made.className = fraction < 0.32 ? "strong" : fraction < 0.6 ? "middle" : "weak";
      made.classList.toggle("best", row === best.row && column === best.column);
      line.append(made);
    });
  });
  return table;
}

// Fills section 4 for one scale of the loss.
function showStudies(studies, scale, say) {
  const all = Object.values(studies.maps).flatMap((scales) => Object.values(scales));
  const lowest = Math.min(...all.map((map) => bestCell(studies, map).loss)), parent = document.getElementById("maps");
  parent.replaceChildren(...["adam_l2", "adamw"].map((arm) => {
    const figure = document.createElement("figure"), name = arm === "adam_l2" ? say("l2") : say("name_lr");
    const title = `${name}, ${say("scale_is", { scale })}`;
    figure.append(cell("figcaption", title), mapTable(studies, studies.maps[arm][scale], lowest, say, title));
    return figure;
  }));
  const cells = (arm, factor) => bestCell(studies, studies.maps[arm][factor]);
  const best = (arm, factor) => show(cells(arm, factor).decay, 2), loss = (arm) => cells(arm, scale).loss.toFixed(2);
  document.getElementById("live4").textContent = say("live4", {
    l2_one: best("adam_l2", 1), l2_ten: best("adam_l2", 10), wd_one: best("adamw", 1), wd_ten: best("adamw", 10),
    l2_loss: loss("adam_l2"), wd_loss: loss("adamw"), scale,
  });
  const runs = all.length * studies.lr.length * studies.weight_decay.length * studies.seeds.length;
  const facts = { workload: studies.workload, steps: studies.steps, seeds: studies.seeds.length, runs };
  document.getElementById("step4-text").textContent = say("step4_text", facts);
  document.getElementById("maps-note").textContent = say("maps_note", { version: studies.version });
}
