"""What a page holds, as plain data. All texts are shown as they are: the page escapes what HTML would interpret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adamas.language import Language


@dataclass(frozen=True)
class Figure:
    """A figure that answers one question.

    Attributes:
        name: The name of the figure in its HTML id and in the name of its PNG.
        question: The question, which stands above the figure.
        answer: The answer, in one sentence.
        plot: Plotly's "data" and "layout" as JSON. A colour may be a variable of the page, as in "var(--line-0)".
            Plotly reads a part of HTML in all texts: names from outside go through `plain` first. A figure with several
            axes to choose from has a "label" for this view, and "others": a list of further views with the same three
            keys.
        how_to_read: What the marks mean, folded below the figure.
    """

    name: str
    question: str
    answer: str
    plot: dict[str, Any]
    how_to_read: str = ""


@dataclass(frozen=True)
class Table:
    """A table that the reader can sort and download as CSV.

    Attributes:
        name: The name of the table in the name of its CSV.
        columns: The titles of the columns.
        rows: The cells, as text, as numbers, or None for an empty cell.
        caption: A sentence above the table.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A part of a page: paragraphs, then figures, tables and code.

    Attributes:
        title: The heading.
        paragraphs: The text below the heading.
        figures: The figures, two beside each other where the window is wide.
        tables: The tables.
        code: Lines to paste, with a button that copies them.
        folded: Whether the reader sees the heading alone until the section is opened.
        anchor: The HTML id; empty makes one of the title.
    """

    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    code: str = ""
    folded: bool = False
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: The heading, which says the result.
        kicker: The line above the heading: the command and what it looked at.
        lead: Paragraphs below the heading.
        sections: The parts of the page in their order.
        lang: The language of all texts.
        link: The text and the address of a page to go on to.
    """

    title: str
    kicker: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    lang: Language = "en"
    link: tuple[str, str] | None = None
