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
from adamas.compare.verdict.result import Summary

TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: list[Summary], path: Path | None = None) -> Path:
    """Write the report of one or several studies; a reader never sees half a page.

    Args:
        results: The studies, in the order of the page.
        path: A folder, which gets an index.html, or an .html file; None takes the folder of the studies.
    """
    path = path or results[0].record.settings.out
    page = path if path.suffix == ".html" else path / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=page.parent, prefix=".index-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(render(results))
        Path(name).chmod(0o644)  # mkstemp makes files that nobody else may read
        Path(name).replace(page)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return page


def environment() -> jinja2.Environment:
    """Return the environment that the templates are rendered in."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(results: list[Summary]) -> str:
    """Return the page as text."""
    places = anchors(result.record.settings.workload.name for result in results)
    studies = [section(result, places[result.record.settings.workload.name]) for result in results]
    figures: dict[str, Any] = {}
    for study in studies:
        figures |= study.pop("figures")
    return environment().get_template("page.html").render(plotly=get_plotlyjs(), studies=studies, figures=figures)
