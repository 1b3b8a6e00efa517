"""What a page and its translation must have in common, and how to set Chinese; tests of pages and notebooks use it."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# English page: Chinese page. A new translation is one more line.
PAGES = {
    "README.md": "README.zh-CN.md",
    "docs/index.md": "docs/zh/index.md",
    "docs/compare.md": "docs/zh/compare.md",
    "docs/claims.md": "docs/zh/claims.md",
}
NOTEBOOK = {"docs/notebooks/article.ipynb": "docs/notebooks/article.zh.ipynb"}
ENGLISH = {chinese: english for english, chinese in (PAGES | NOTEBOOK).items()}

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)]+)\)")
# A number with its sign and per cent sign. A digit that belongs to a name, as in float32, is none.
NUMBER = re.compile(r"(?<![A-Za-z0-9_.])[+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?(?: ?%)?")
HAN = "\u4e00-\u9fff"
EMPHASIS = re.compile(r"(\*\*?)([^*\n]+)\1")
HALF_WIDTH = re.compile(rf"[{HAN}] ?[,;:!?]|[{HAN}]\.(?!\w)")


@dataclass(frozen=True)
class Section:
    """What a section must have in common with its translation; multisets, because word order differs."""

    level: int
    numbers: Counter[str]
    code: Counter[str]
    links: Counter[str]
    tables: list[list[int]]  # the number of cells in each row of each table


def target_of(link: str, page: str) -> str:
    """Return the file and place that a link of a page leads to; a Chinese page counts as its English one."""
    if "://" in link:
        return link
    file, _, place = link.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), file)) if file else page
    return f"{ENGLISH.get(path, path)}#{place}"


def tables_of(text: str) -> list[list[int]]:
    """Return the number of cells in each row of each table."""
    tables = re.findall(r"(?:^\|.*\|$\n?)+", CODE.sub("code", text), re.MULTILINE)
    return [[line.count("|") - 1 for line in table.splitlines()] for table in tables]


def section_of(text: str, page: str) -> Section:
    prose = LINK.sub("]", CODE.sub(" ", text))
    heading = re.match(r"#+", text)
    return Section(
        level=len(heading[0]) if heading else 0,
        numbers=Counter(re.sub("[ ,]", "", number) for number in NUMBER.findall(prose)),
        code=Counter(CODE.findall(text)),
        links=Counter(target_of(link, page) for link in LINK.findall(text)),
        tables=tables_of(text),
    )


@lru_cache(maxsize=2)  # the English page stays while changes are planted in the Chinese one
def sections_of(text: str, page: str) -> list[Section]:
    prose = COMMENT.sub("", FENCE.sub("", text))
    return [section_of(part, page) for part in re.split(r"^(?=#+ )", prose, flags=re.MULTILINE)]


def blocks_of(text: str) -> list[str]:
    """Return the code blocks of a page, and the comments that hold doctests."""
    return [*FENCE.findall(text), *(comment for comment in COMMENT.findall(text) if ">>>" in comment)]


def differences(english: str, chinese: str, page: str) -> list[str]:
    """Return how the text of a Chinese page differs from the English `page`, one sentence each; empty if it agrees."""
    found = [
        f"code block {i}: {there!r}, not {here!r}"
        for i, (here, there) in enumerate(zip(blocks_of(english), blocks_of(chinese), strict=False))
        if here != there
    ]
    if len(blocks_of(english)) != len(blocks_of(chinese)):
        found.append(f"{len(blocks_of(chinese))} code blocks, not {len(blocks_of(english))}")
    ours, theirs = sections_of(english, page), sections_of(chinese, PAGES[page])
    if [section.level for section in ours] != [section.level for section in theirs]:
        return [*found, "other sections"]
    for i, (here, there) in enumerate(zip(ours, theirs, strict=True)):
        for name, value in vars(here).items():
            if value != getattr(there, name):
                found.append(f"section {i}: {name} {unlike(value, getattr(there, name))}")
    return found


def unlike(here: Any, there: Any) -> str:
    """Return what only one of two values has."""
    if isinstance(here, Counter):
        return f"only in English {dict(here - there)}, only in Chinese {dict(there - here)}"
    return f"in English {here}, in Chinese {there}"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: str) -> str:
    return CODE.sub("`", COMMENT.sub("", FENCE.sub("", read(page))))


def badly_set(text: str) -> list[str]:
    """Return half-width punctuation after Chinese, and emphasis that GitHub shows as asterisks.

    There, emphasis does not end where a punctuation mark stands inside it and a Chinese character follows; nor begin.
    """
    found = HALF_WIDTH.findall(text)
    for match in EMPHASIS.finditer(text):
        before, after = text[: match.start()][-1:], text[match.end() :][:1]
        outside_in = ((before, match[2][0]), (after, match[2][-1]))
        if any(re.match(f"[{HAN}]", outside) and not re.match(r"\w", inside) for outside, inside in outside_in):
            found.append(match[0])
    return found
