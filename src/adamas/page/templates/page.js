"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const views = {}; // the number of the view that each figure shows
  const root = document.documentElement;

  // Figures name colours by CSS variable: a change to dark mode redraws them with its colours.
  const resolve = (value, style) => {
    if (typeof value === "string" && value.startsWith("var(")) return style.getPropertyValue(value.slice(4, -1)).trim();
    if (Array.isArray(value)) return value.map((entry) => resolve(entry, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, resolve(entry, style)]));
    }
    return value;
  };

  const draw = (id) => {
    const figure = [figures[id], ...(figures[id].others ?? [])][views[id] ?? 0];
    const style = getComputedStyle(root);
    const axis = {
      gridcolor: "var(--rule)",
      linecolor: "var(--rule)",
      automargin: false,
      zeroline: false,
      fixedrange: true,
      tickfont: { size: 10.5 },
    };
    const layout = {
      paper_bgcolor: "var(--card)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--text)" },
      showlegend: false,
      hoverlabel: { bgcolor: "var(--card)", bordercolor: "var(--muted)", font: { color: "var(--text)" } },
      ...figure.layout,
    };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) layout[key] = { ...axis, ...layout[key] };
    }
    return Plotly.react(id, resolve(figure.data, style), resolve(layout, style), {
      responsive: true,
      displayModeBar: false,
    });
  };

  const place = (id) => document.getElementById(id);
  const drawn = new Set();

  // Plotly takes a second or two to start, so the page is shown before: its text stands in an inert element until then.
  const started = new Promise((resume) => {
    addEventListener("load", () =>
      setTimeout(() => {
        const script = document.createElement("script");
        script.textContent = place("plotly").textContent;
        document.head.append(script);
        script.remove();
        resume();
      }),
    );
  });

  // One figure after the other, so that the first ones are seen early. A folded figure waits until it is opened.
  const drawVisible = async () => {
    await started;
    for (const id of Object.keys(figures)) {
      if (drawn.has(id) || place(id).closest("details:not([open])")) continue;
      drawn.add(id);
      draw(id);
      await new Promise((resume) => setTimeout(resume));
    }
  };

  drawVisible();
  document.addEventListener("toggle", drawVisible, true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(draw));

  for (const button of document.querySelectorAll(".view")) {
    button.addEventListener("click", () => {
      for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
      for (const id of button.dataset.figures.split(" ")) {
        views[id] = Number(button.dataset.view);
        if (drawn.has(id)) draw(id);
      }
    });
  }

  for (const button of document.querySelectorAll(".png")) {
    const id = button.dataset.figure;
    button.addEventListener("click", async () => {
      await started;
      const { width, height } = place(id).getBoundingClientRect();
      Plotly.downloadImage(id, { format: "png", filename: `adamas-${id}`, width, height, scale: 3 });
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = button.dataset.done;
        setTimeout(() => { button.textContent = label; }, 1500);
      } catch {
        getSelection().selectAllChildren(code); // a page from a file has no clipboard: select the code
      }
    });
  }

  // A click sorts by a column, the next one the other way round. Empty cells are last in both directions.
  const compare = (one, other) => {
    const [a, b] = [one, other].map((cell) => (cell.dataset.value ? Number(cell.dataset.value) : NaN));
    if (!isNaN(a) && !isNaN(b)) return a - b;
    if (isNaN(a) !== isNaN(b)) return isNaN(a) ? Infinity : -Infinity;
    return one.textContent.localeCompare(other.textContent, root.lang, { numeric: true });
  };

  for (const button of document.querySelectorAll(".sort")) {
    button.addEventListener("click", () => {
      const head = button.parentElement, column = head.cellIndex, table = head.closest("table");
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((one, other) => {
        const found = compare(one.cells[column], other.cells[column]);
        return isFinite(found) ? sign * found : found;
      });
      table.tBodies[0].append(...rows);
    });
  }
})();
