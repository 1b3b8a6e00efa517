"""The HTML page of an X-ray: what decay does to each layer, whether norms have settled, and all figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adamas.language import Texts, chosen
from adamas.page import Figure, Page, Section, Table, write_page
from adamas.page.lines import chart, line
from adamas.page.text import plain
from adamas.understand.xray.columns import COLUMNS, Column, dicts, shown, texts
from adamas.understand.xray.figures import Reading
from adamas.understand.xray.predict import Windows


def write_report(
    path: Path,
    readings: Sequence[Reading],
    what: str,
    steps_per_epoch: float | None = None,
    notes: Sequence[str] = (),
    windows: tuple[Windows, float, float] | None = None,
    lang: str | None = None,
) -> Path:
    """Write the page of an X-ray and return its path.

    Args:
        path: a folder, which gets an index.html, or an .html file.
        readings: the samples; the last one is shown, and all of them over time.
        what: what was looked at: the name of a checkpoint or of a class.
        steps_per_epoch: the number of steps in an epoch, for timescales in epochs.
        notes: what a reader of the figures must know.
        windows: predicted weight decays, with the epochs and the steps of an epoch that they are for.
        lang: "en" or "zh"; None takes the language of the locale.
    """
    language = chosen(lang)
    say = texts(language)
    last = readings[-1]
    rows = dicts(last, steps_per_epoch)
    sections = [
        *([_windows(windows, say)] if windows else []),
        Section(say("xray.layers"), figures=(_rates(last, say), *([_rms(last, say)] if _has_rms(last) else []))),
        *([Section(say("xray.time"), figures=(_over_time(readings, say),))] if len(readings) > 1 else []),
        Section(say("xray.table"), tables=(_table(rows, say),)),
        Section(say("xray.meaning"), tuple(_meaning(c, say) for c in shown(rows, brief=False)), folded=True),
    ]
    lead = [say("xray.step", step=last.step), *notes]
    total = last.total
    if total.rule == "l2" and total.equivalent is not None:
        paper = total.equivalent_independent
        shown_paper = say("xray.unknown") if paper is None else f"{paper:.3g}"
        lead.insert(0, say("xray.equivalent", torch=f"{total.equivalent:.3g}", paper=shown_paper))
    page = Page(_title(last, say), say("xray.kicker", what=what), tuple(lead), tuple(sections), language)
    return write_page(page, path)


def _title(reading: Reading, say: Texts) -> str:
    """Return the heading, which says the result."""
    total = reading.total
    if not total.rate_p90 or total.rate_p50 is None:
        return say("xray.title_none")
    median = f"{total.rate_p50:.3g}"
    if not total.rate_p10 or total.rate_p90 / total.rate_p10 < 1.001:
        return say("xray.title_decoupled", median=median)
    return say("xray.title_l2", median=median, spread=f"{total.rate_p90 / total.rate_p10:.3g}")


def _rates(reading: Reading, say: Texts) -> Figure:
    """Return the figure of the rates of each layer."""
    rows = [row for row in reading.rows if row.rate_p50 is not None]
    middle = [row.rate_p50 or 0.0 for row in rows]
    trace = {
        "type": "scatter", "mode": "markers", "orientation": "h",
        "x": middle, "y": [plain(row.layer) for row in rows],
        "error_x": {
            "type": "data", "symmetric": False, "color": "var(--line-0)",
            "array": [(row.rate_p90 or 0.0) - (row.rate_p50 or 0.0) for row in rows],
            "arrayminus": [(row.rate_p50 or 0.0) - (row.rate_p10 or 0.0) for row in rows],
        },
        "marker": {"color": "var(--line-0)", "size": 8},
        "hovertemplate": "%{y}<br>%{x:.3~g}<extra></extra>",
    }  # fmt: skip
    correlation = reading.total.correlation
    answer = (
        say("xray.rates_decoupled") if correlation is None else say("xray.rates_l2", correlation=f"{correlation:.2f}")
    )
    plot = _layout([trace], say("xray.rates"), len(rows), positive=min(middle, default=0.0) > 0)
    return Figure("rates", say("xray.rates_question"), answer, plot, say("xray.rates_how"))


def _has_rms(reading: Reading) -> bool:
    return any(row.rms is not None and row.rms_equilibrium is not None for row in reading.layers)


def _rms(reading: Reading, say: Texts) -> Figure:
    """Return the figure of the RMS of each layer beside its equilibrium."""
    rows = [row for row in reading.layers if row.rms is not None and row.rms_equilibrium is not None]
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": name, "x": x, "y": [plain(row.layer) for row in rows],
            "marker": {"color": f"var(--line-{number})", "size": 8, "symbol": symbol},
            "hovertemplate": "%{y}<br>%{x:.3~g}<extra></extra>",
        }
        for number, (name, symbol, x) in enumerate((
            (say("xray.rms_now"), "circle", [row.rms for row in rows]),
            (say("xray.rms_then"), "diamond", [row.rms_equilibrium for row in rows]),
        ))
    ]  # fmt: skip
    plot = _layout(traces, say("xray.rms_now"), len(rows), positive=all(row.rms for row in rows))
    return Figure("rms", say("xray.rms_question"), say("xray.rms_answer"), plot, say("xray.rms_how"))


def _layout(traces: list[dict[str, Any]], title: str, rows: int, positive: bool) -> dict[str, Any]:
    """Return a figure with one line a layer, and a logarithmic axis where all figures are positive."""
    return {
        "data": traces,
        "layout": {
            "height": 120 + 22 * rows,
            "margin": {"l": 12, "r": 12, "t": 12, "b": 60},
            "showlegend": len(traces) > 1,
            "legend": {"orientation": "h", "x": 0, "y": 0, "yref": "container", "yanchor": "bottom"},
            "xaxis": {"title": {"text": title}, "type": "log" if positive else "linear", "exponentformat": "power"},
            "yaxis": {"autorange": "reversed", "automargin": True, "type": "category"},
        },
    }


def _over_time(readings: Sequence[Reading], say: Texts) -> Figure:
    """Return the figure of the rates of all layers together at each sample."""
    x = [float(reading.step) for reading in readings]
    names = (say("xray.percentile", number=10), say("xray.median"), say("xray.percentile", number=90))
    found = [
        [getattr(reading.total, key) or 0.0 for reading in readings] for key in ("rate_p10", "rate_p50", "rate_p90")
    ]
    traces = [
        line(number, name, x, y, say("xray.steps")) for number, (name, y) in enumerate(zip(names, found, strict=True))
    ]
    first, last = (f"{found[1][index]:.3g}" for index in (0, -1))
    return Figure(
        "rates-over-time",
        say("xray.time_question"),
        say("xray.time_answer", first=first, last=last),
        chart(traces, say("xray.steps"), say("xray.rates")),
        say("xray.time_how"),
    )


def _meaning(column: Column, say: Texts) -> str:
    """Return the title of a column and what it says."""
    return say("xray.column", title=column.title(say), meaning=column.meaning(say))


def _table(rows: list[dict[str, Any]], say: Texts) -> Table:
    """Return the table of all figures."""
    columns = [column for column in COLUMNS if any(row[column.key] is not None for row in rows)]
    cells = tuple(tuple(row[column.key] for column in columns) for row in rows)
    return Table("xray", tuple(column.title(say) for column in columns), cells)


def _windows(found: tuple[Windows, float, float], say: Texts) -> Section:
    """Return the section with the weight decays that are worth a try."""
    windows, epochs, steps = found
    rows = tuple(
        (name, each.low, each.central, each.high, windows.lr * each.central)
        for name, each in (("AdamW", windows.adamw), ("Adam + L2", windows.l2))
    )
    titles = tuple(title.strip() for title in say("xray.windows_columns").split(","))
    text = say("xray.windows_text", epochs=f"{epochs:g}", steps=f"{steps:g}", lr=f"{windows.lr:g}")
    return Section(say("xray.windows"), (text,), tables=(Table("windows", titles, rows),))
