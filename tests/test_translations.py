"""A Chinese page says the same as its English page: the same sections, figures, tables, links, names and code."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable

import pytest

from tests.translations import CODE, COMMENT, FENCE, LINK, NUMBER, PAGES, ROOT, badly_set, differences, prose_of, read


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


@pytest.mark.parametrize("page", PAGES.values())
def test_chinese_is_set_as_chinese(page: str) -> None:
    assert badly_set(prose_of(page)) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_changed_number_is_found(page: str) -> None:
    """The comparison can fail: a change of any one figure in the prose or a table of the Chinese page is reported."""
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
