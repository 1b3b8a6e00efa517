"""Write the report: everything on one page that needs nothing else, not even a network."""

from __future__ import annotations

import base64
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from adamas.compare.arms import ARMS
from adamas.compare.report.heatmaps import Scale, long, maps
from adamas.compare.report.pairs import differences, seed_lines
from adamas.compare.report.trials_csv import trials_csv
from adamas.compare.result import StudyResult
from adamas.compare.selection import FIRST_FINAL_SEED
from adamas.compare.table import decays, percent, show
from adamas.compare.wording import MINUS, TIMES, words
from adamas.compare.wording import show as show_difference

TEMPLATES = Path(__file__).parent / "templates"


def write_report(result: StudyResult) -> Path:
    """Write `report/index.html` into the folder of the study; a reader never sees half a page."""
    folder = result.record.settings.out
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    handle, name = tempfile.mkstemp(dir=folder, prefix=".index-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(render(result))
        Path(name).chmod(0o644)  # mkstemp makes files that nobody else may read
        Path(name).replace(page)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return page


def render(result: StudyResult) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(plotly=get_plotlyjs(), **content(result))


def content(result: StudyResult) -> dict[str, Any]:
    """What the template fills in."""
    settings, record = result.record.settings, result.record
    scale, arm_maps = maps(result)
    figures: dict[str, Any] = {f"map-{entry.arm}": entry.figure for entry in arm_maps}
    if result.difference is not None:
        figures |= {"seeds": seed_lines(result), "differences": differences(result)}
    rows = trials_csv(result)
    return {
        "workload": settings.workload,
        "metric": words(settings.workload.metric),
        "advice": result.verdict.advice,
        "sentences": [unbroken(text) for text in (result.verdict.evidence, result.verdict.note) if text],
        "warnings": [unbroken(text) for text in result.warnings],
        "code": result.code,
        "arms": arms_table(result),
        "comparisons": comparisons(result),
        "method": result.difference.method if result.difference else "",
        "margin": settings.margin,
        "seeds": settings.seeds,
        "runs": len(record.outcomes),
        "budget": settings.budget,
        "maps": arm_maps,
        "scale": scale_words(scale),
        "figures": figures,
        "pilot": record.pilot,
        "repeat": repeat(result),
        "csv": base64.b64encode(rows.encode()).decode(),
    }


def unbroken(text: str) -> str:
    """A sentence that starts with a capital and does not break between a number and its unit."""
    return (text[0].upper() + text[1:]).replace(" %", "\N{NO-BREAK SPACE}%")


def scale_words(scale: Scale) -> dict[str, str]:
    """The ends of the colour scale."""
    return {"best": long(scale.best), "worst": long(scale.worst)}


def arms_table(result: StudyResult) -> dict[str, Any]:
    """The table of arms: a column an arm, a row a quantity; each figure with its spread, if it has one."""
    arms = result.arms
    metric = result.record.settings.workload.metric
    fixed = [
        ("lr", "", [f"{arm.winner.lr:.3g}" for arm in arms.values()]),
        ("weight_decay", "torch", [decays(name, arm)[0] for name, arm in arms.items()]),
        (f"lr {TIMES} weight_decay", "independent", [decays(name, arm)[1] for name, arm in arms.items()]),
        ("D", "decay over the run", [f"{arm.pull:.2g}" for arm in arms.values()]),
    ]
    measured = [
        ("Validation", words(metric), [show(arm.validation) for arm in arms.values()]),
        ("Test", words(metric), [show(arm.test.get(metric)) for arm in arms.values()]),
    ]
    if any("accuracy" in arm.test for arm in arms.values()):
        measured.append(("Test", "accuracy", [percent(arm.test.get("accuracy")) for arm in arms.values()]))
    runs = ("Runs", "of these diverged", [f"{arm.trials}\n{arm.infeasible}" for arm in arms.values()])
    return {
        "titles": [ARMS[name].title for name in arms],
        "rows": [
            {"title": title, "unit": unit, "figures": [split(figure) for figure in figures]}
            for title, unit, figures in [*fixed, *measured, runs]
        ],
    }


def split(figure: str) -> tuple[str, str]:
    """A figure and its spread, which stands below it."""
    value, sign, spread = figure.partition(" ± ")
    if not sign:
        value, _, spread = figure.partition("\n")
        return value, spread
    return value + (" %" if spread.endswith("%") else ""), f"± {spread}"


def comparisons(result: StudyResult) -> list[dict[str, str]]:
    """Every difference with its interval as text: the figure, readable without it."""
    found = [(f"AdamW {MINUS} Adam with L2", result.difference)]
    found += [(f"{ARMS[arm].title} {MINUS} Adam without decay", entry) for arm, entry in result.over_none.items()]
    return [
        {
            "title": title,
            **{
                end: unbroken(show_difference(getattr(entry, end), entry.relative, sign=True))
                for end in ("mean", "low", "high")
            },
            "p": f"{entry.p_sign_flip:.2g}",
            "better": f"{entry.p_better * len(entry.values):g}",
        }
        for title, entry in found
        if entry is not None
    ]


def repeat(result: StudyResult) -> list[tuple[str, str]]:
    """Everything that is needed to do it again."""
    settings, spec = result.record.settings, result.record.specification
    versions = {**spec["versions"], **{name: version(name) for name in ("optuna", "scipy", "plotly")}}
    return [
        ("Command", settings.command()),
        ("Versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        (
            "Seeds",
            f"pilot and grids from 0; finals {FIRST_FINAL_SEED} to {FIRST_FINAL_SEED + settings.seeds - 1}",
        ),
        ("Workload", f"{settings.workload.name}, revision {settings.workload.revision}, on {settings.workload.device}"),
        ("Workers", f"{settings.workers} processes, one thread each; no figure depends on their number"),
        ("Machine", f"{processor()}, {platform.system()} {platform.machine()}"),
        (
            "Time of a run",
            f"{max(arm.seconds for arm in result.arms.values()):.2g} s for a finalist of the slowest arm",
        ),
    ]


def processor() -> str:
    """Name of the CPU, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "CPU"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")
