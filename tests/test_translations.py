"""A Chinese page says the same as its English page: the same sections, figures, tables, links, names and code."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# English page: Chinese page. A new translation is one more line.
PAIRS = {
    "README.md": "README.zh-CN.md",
    "docs/index.md": "docs/zh/index.md",
    "docs/compare.md": "docs/zh/compare.md",
    "docs/notebooks/article.ipynb": "docs/notebooks/article.zh.ipynb",  # tests/test_notebook.py compares these
}
PAGES = {english: chinese for english, chinese in PAIRS.items() if english.endswith(".md")}
ENGLISH = {chinese: english for english, chinese in PAIRS.items()}

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


@pytest.mark.parametrize("page", PAGES)
def test_translation_agrees(page: str) -> None:
    assert differences(read(page), read(PAGES[page]), page) == []


@pytest.mark.parametrize("page", PAGES)
def test_languages_link_to_each_other(page: str) -> None:
    """The link stands above the first section; `differences` counts both as links to the same page."""
    for here, there, name in ((page, PAGES[page], "中文"), (PAGES[page], page, "English")):
        link = posixpath.relpath(there, posixpath.dirname(here) or ".")
        assert f"[{name}]({link})" in read(here).partition("\n## ")[0]


@pytest.mark.parametrize("page", PAGES.values())
def test_files_and_places_that_a_translation_links_to_exist(page: str) -> None:
    text = FENCE.sub("", read(page))
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert links
    for link in links:
        file, _, place = link.partition("#")
        path = ROOT / posixpath.join(posixpath.dirname(page), file) if file else ROOT / page
        assert path.exists(), link
        assert not place or f'<a id="{place}"></a>' in path.read_text(encoding="utf-8"), link


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


@pytest.mark.parametrize("page", PAGES.values())
def test_chinese_is_set_as_chinese(page: str) -> None:
    assert badly_set(prose_of(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_changed_number_is_found(page: str) -> None:
    """The comparison can fail: a change of any one figure in the prose or in a table of the Chinese page is reported."""
    english, chinese = read(page), read(PAGES[page])
    hidden = [match.span() for pattern in (FENCE, COMMENT, CODE) for match in pattern.finditer(chinese)]
    hidden += [match.span(1) for match in LINK.finditer(chinese)]
    for number in NUMBER.finditer(chinese):
        if not any(start <= number.start() < end for start, end in hidden):
            changed = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), number[0], count=1)
            planted = chinese[: number.start()] + changed + chinese[number.end() :]
            assert differences(english, planted, page), f"{number[0]} at {number.start()}"


def first(pattern: str, replacement: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)


@pytest.mark.parametrize(
    "plant",
    [
        first(r"^>>> result = compare", ">>> result = Compare"),  # a code block
        first(r"getfixture", "fixture"),  # a doctest in a comment
        first(r"^\| `noise` .*\n", ""),  # a row of a table
        first(r"\| 1.0|\| 任务", "| | 任务"),  # a cell
        first(r"\.\./decay\.md", "../phase.md"),  # a link
        first(r"#speed\)", "#cost)"),  # a place in a page
        first(r"`sqrt\(v\)`", "`v`"),  # a name
        first(r"^### ", "## "),  # a section
        first(r"AdamW 好 4\.4%", "AdamW 好 4.4"),  # a unit
        first(r"−2\.2", "2.2"),  # a sign
    ],
    ids=["code", "comment", "row", "cell", "link", "place", "name", "section", "unit", "sign"],
)
def test_every_kind_of_difference_is_found(plant: Callable[[str], str]) -> None:
    page = "docs/compare.md"
    chinese = read(PAGES[page])
    assert plant(chinese) != chinese
    assert differences(read(page), plant(chinese), page)


@pytest.mark.parametrize("text", ["**重点。**下文", "这是**“引文”**", "如下:", "结束.", "前,后"])
def test_badly_set_chinese_is_found(text: str) -> None:
    assert badly_set(text)


def numbers_in(lines: Iterable[str]) -> list[str]:
    return [number for line in lines for number in NUMBER.findall(line)]


def test_what_counts_as_a_number() -> None:
    assert numbers_in(["float32 and L2 at 2.5 % of 1,000", "第 3 步用 1e-12，约 +0.2%", "−2.2 to 3.2 %"]) == [
        "2.5 %", "1,000", "3", "1e-12", "+0.2%", "−2.2", "3.2 %",
    ]  # fmt: skip
