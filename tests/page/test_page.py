from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

from adamas.page import Figure, Page, Section, Table, write_page
from adamas.page.lines import chart, level, line
from adamas.page.render import render
from adamas.page.text import anchors, plain
from tests.page.browser import asked, needs_chromium

NASTY = "<script>alert('1')</script> \"权重\" <b>bold</b> &lt; %{x} {0}"
ROWS = (("b", 2.0, None), ("a", 10.0, 3), ("c", -1.5, 20))


def figure(name: str = "loss", title: str = "Adam") -> Figure:
    plot = chart([line(0, title, [1, 2, 3], [3.0, 2.0, 1.0], "step"), level("goal", (1, 3), 1.5)], "step", "loss")
    return Figure(name, f"Does {title} fall?", "Yes, to 1.", plot, "A line is a mean.")


def page(*sections: Section) -> Page:
    return Page("Adam falls", "adamas test", ("One sentence.",), sections)


def test_a_page_is_written_into_a_folder_or_a_file(tmp_path: Path) -> None:
    content = page(Section("One", ("text",)))
    assert write_page(content, tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "index.html"
    assert write_page(content, tmp_path / "one.html") == tmp_path / "one.html"
    assert [entry.name for entry in (tmp_path / "new" / "folder").iterdir()] == ["index.html"]


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_page(page(), tmp_path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_page(page(Section("other")), tmp_path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["index.html"]


def test_a_page_without_figures_carries_no_plotly() -> None:
    assert len(render(page(Section("One")))) < 30_000
    assert len(render(page(Section("One", figures=(figure(),))))) > 1_000_000


def test_names_occur_once() -> None:
    with pytest.raises(ValueError, match="figures of a section must differ in their names, and 'loss' occurs twice"):
        render(page(Section("One", figures=(figure(), figure()))))
    with pytest.raises(ValueError, match="'One' occurs twice"):
        render(page(Section("One"), Section("One")))
    text = render(page(Section("One", figures=(figure(),)), Section("One", figures=(figure(),), anchor="two")))
    assert 'id="One-loss"' in text
    assert 'id="two-loss"' in text


def test_the_csv_has_every_digit() -> None:
    text = render(page(Section("T", tables=(Table("runs", ("n", "lr", "x"), (("a,b", 0.1 + 0.2, None),)),))))
    encoded = re.search(r"base64,([^\"]+)", text)[1]  # type: ignore[index]
    rows = list(csv.reader(io.StringIO(base64.b64decode(encoded).decode())))
    assert rows == [["n", "lr", "x"], ["a,b", "0.30000000000000004", ""]]
    assert 'download="adamas-T-runs.csv"' in text
    assert ">0.3</td>" in text


def test_chinese_pages_say_so() -> None:
    text = render(replace(page(Section("一", figures=(figure(),))), lang="zh"))
    assert '<html lang="zh-CN">' in text
    assert "怎么看" in text


def test_ids_are_unique_and_keep_every_script() -> None:
    assert anchors(["权重 a", "权重/a", "<>", "!?"]) == {
        "权重 a": "权重-a",
        "权重/a": "权重-a-2",
        "<>": "part",
        "!?": "part-2",
    }


def nasty_page() -> Page:
    return Page(
        NASTY,
        NASTY,
        (NASTY,),
        (
            Section(
                NASTY,
                (NASTY,),
                (figure(NASTY, NASTY),),
                (Table(NASTY, (NASTY, "b"), ((NASTY, 1.0),), NASTY),),
                NASTY,
            ),
        ),
    )


def test_a_name_that_looks_like_html_is_text_in_the_source() -> None:
    text = render(nasty_page())
    assert "<script>alert" not in text
    assert re.findall(r'download="([^"]*)"', text) == [
        "adamas-script-alert-1-script-权重-b-bold-b-lt-x-0-script-alert-1-script-权重-b-bold-b-lt-x-0.csv"
    ]


@needs_chromium
def test_a_name_that_looks_like_html_is_text_in_figures(tmp_path: Path) -> None:
    """Plotly's texts are SVG: what a reader sees there is the text content, and bold text would be an element."""
    found = asked(
        render(nasty_page()),
        """const plot = document.querySelector('.plot');
        Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: 1}]);
        const texts = [...plot.querySelectorAll('.legendtext, .hovertext')].map((each) => each.textContent);
        const bold = plot.querySelectorAll('tspan[style*="font-weight"]').length;
        return {texts, bold, scripts: document.querySelectorAll('script').length,
                title: document.title, head: document.querySelector('h1').textContent};""",
        tmp_path,
    )
    assert found["head"] == NASTY
    assert found["title"] == f"{NASTY} · {NASTY}"
    assert found["scripts"] == 4  # figures, Plotly, the page's own, and the one of this test
    assert found["bold"] == 0
    assert found["texts"][0] == NASTY
    assert any(text.startswith(NASTY) for text in found["texts"][2:])


def test_without_escaping_plotly_would_read_tags() -> None:
    assert plain("<b>") == "&lt;b&gt;"
    assert line(0, "<b>%{x}", [1], [1.0], "s")["hovertemplate"].startswith("&lt;b&gt;%&#123;x}<br>")


@needs_chromium
def test_a_page_works(tmp_path: Path) -> None:
    """It fits a phone; figures are drawn, folded ones when they are opened; tables sort; views switch."""
    plot = figure().plot
    axes = {**plot, "label": "wd", "others": [{**plot, "label": "lr × wd", "data": plot["data"][:1]}]}
    content = page(
        Section("One", figures=(figure(), replace(figure("axes"), plot=axes)), code="optimizer = AdamW()"),
        Section("Two", tables=(Table("t", ("name", "x", "y"), ROWS),), figures=(figure(),), folded=True),
    )
    found = asked(
        render(content),
        """const drawn = () => document.querySelectorAll('.main-svg').length > 0
          ? [...document.querySelectorAll('.plot')].map((plot) => plot.querySelectorAll('.main-svg').length > 0) : [];
        const pause = () => new Promise((resume) => setTimeout(resume, 300));
        const before = drawn();
        document.querySelector('details.fold').open = true;
        await pause();
        const column = (n) => [...document.querySelectorAll('tbody tr')].map((row) => row.cells[n].textContent);
        const sorts = [...document.querySelectorAll('.sort')];
        const orders = [];
        for (const button of [0, 1, 1, 2, 2]) { sorts[button].click(); orders.push(column(0).join('')); }
        const lines = () => document.getElementById('One-axes').querySelectorAll('.scatterlayer .trace').length;
        const first = lines();
        const buttons = document.querySelectorAll('.view');
        buttons[1].click();
        return {before, after: drawn(), orders, lines: [first, lines()], width: document.documentElement.scrollWidth,
                pressed: [...buttons].map((button) => button.getAttribute('aria-pressed')),
                sorted: sorts.map((button) => button.parentElement.getAttribute('aria-sort'))};""",
        tmp_path,
        width=360,
    )
    assert found["before"] == [True, True, False]
    assert found["after"] == [True, True, True]
    assert found["orders"] == ["abc", "cba", "abc", "acb", "cab"]
    assert found["lines"] == [2, 1]
    assert found["width"] == 360
    assert found["pressed"] == ["false", "true"]
    assert found["sorted"] == [None, None, "descending"]
