"""Write the report: one HTML page that works without a network."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from adamas.compare.report.section import section
from adamas.compare.report.text import anchors
from adamas.compare.verdict.result import Summary

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(results: list[Summary], path: Path | None = None) -> Path:
    """Write the report of one or several studies, and return its path; a reader never sees half a page.

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
        Path(name).chmod(0o644)  # files of mkstemp are readable by their owner only
        Path(name).replace(page)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return page


def environment() -> jinja2.Environment:
    """Return the Jinja environment that renders the templates."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(results: list[Summary]) -> str:
    """Return the page of one or several studies as HTML."""
    names = [result.record.settings.workload.name for result in results]
    ids = anchors(names)
    studies = [section(result, ids[name]) for name, result in zip(names, results, strict=True)]
    figures: dict[str, Any] = {}
    for study in studies:
        figures |= study.pop("figures")
    return environment().get_template("page.html").render(plotly=get_plotlyjs(), studies=studies, figures=figures)
