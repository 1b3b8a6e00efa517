"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
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

  const draw = () => {
    const style = getComputedStyle(root);
    const axis = {
      gridcolor: "var(--rule)",
      linecolor: "var(--rule)",
      automargin: false,
      zeroline: false,
      fixedrange: true,
      tickfont: { size: 10.5 },
    };
    for (const [id, figure] of Object.entries(figures)) {
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
      Plotly.react(id, resolve(figure.data, style), resolve(layout, style), {
        responsive: true,
        displayModeBar: false,
      });
    }
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  for (const button of document.querySelectorAll(".png")) {
    const id = button.dataset.figure;
    button.setAttribute("aria-label", `Save ${button.parentElement.firstChild.textContent.trim()} as PNG`);
    button.addEventListener("click", () => {
      const { width, height } = document.getElementById(id).getBoundingClientRect();
      Plotly.downloadImage(id, { format: "png", filename: `adamas-${id}`, width, height, scale: 3 });
    });
  }

  for (const button of document.querySelectorAll(".copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
        setTimeout(() => { button.textContent = "Copy"; }, 1500);
      } catch {
        getSelection().selectAllChildren(code); // a page from a file has no clipboard: select the code
      }
    });
  }
})();
