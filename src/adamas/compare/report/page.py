"""Write the report: everything on one page that needs nothing else, not even a network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from adamas.compare.report.anchors import anchors
from adamas.compare.report.section import section
from adamas.compare.verdict.result import StudyResult

TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: list[StudyResult]) -> Path:
    """Write `index.html` into the folder of the studies; a reader never sees half a page."""
    folder = results[0].record.settings.out
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    handle, name = tempfile.mkstemp(dir=folder, prefix=".index-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(render(results))
        Path(name).chmod(0o644)  # mkstemp makes files that nobody else may read
        Path(name).replace(page)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return page


def render(results: list[StudyResult]) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    places = anchors(result.record.settings.workload.name for result in results)
    studies = [section(result, places[result.record.settings.workload.name]) for result in results]
    figures: dict[str, Any] = {}
    for study in studies:
        figures |= study.pop("figures")
    return environment.get_template("page.html").render(plotly=get_plotlyjs(), studies=studies, figures=figures)
