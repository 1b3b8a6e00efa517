from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest
from rich.console import Console

from adamas.compare.report.page import render
from adamas.compare.report.terminal import print_verdict
from adamas.compare.study.arms import ARMS
from adamas.compare.study.margin import Margin
from adamas.compare.study_result import StudyResult
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.decision import Plan, decide
from adamas.compare.verdict.result import Summary, summarise
from adamas.compare.verdict.statistics import Difference
from adamas.compare.verdict.wording import texts, title
from tests.page.browser import asked, needs_chromium

EN, ZH = (texts(lang)._texts for lang in ("en", "zh"))
HAN = re.compile(r"[一-鿿]")
# What Chinese text may hold in Latin letters: names, symbols, code.
LATIN = re.compile(
    r"Adam|AdamW|L2|RMS|torch|lr|weight_decay|weight_decay_paper|D|p|e|inf|NaN|JavaScript|PNG|CSV|zh|CN|steps?|v|x|maximize|True|metric"
    r"|parameter_groups|status|ok|diverged|failed|pruned|seeds|margin|abs|budget|trials|sup|em|code|ul|li|br|b"
)


def test_both_languages_have_the_same_texts() -> None:
    assert list(EN) == list(ZH)


@pytest.mark.parametrize("key", EN)
def test_a_text_says_the_same_numbers_and_names(key: str) -> None:
    en, zh = EN[key], ZH[key]
    for found in (
        lambda text: {name for _, name, _, _ in Formatter().parse(text) if name} - {"runs"},  # "9 runs diverged"
        lambda text: set(re.findall(r"\d+(?:\.\d+)?%?", re.sub(r"\{.*?\}|</?\w+>|L2|second|first", "", text))) - {"1"},
        lambda text: sorted(set(re.findall(r"<code>.*?</code>", text))),
        lambda text: set(re.findall(r"--\w+", text)),
        lambda text: set(re.findall(r"<\w+>", text)) - {"<strong>"},
    ):
        assert found(en) == found(zh)


def test_chinese_is_chinese() -> None:
    for key, text in ZH.items():
        words = re.findall(r"[A-Za-z_][A-Za-z_0-9]*", re.sub(r"\{.*?\}", "", text))
        assert all(LATIN.fullmatch(word) for word in words), (key, words)


def test_the_names_of_arms_are_those_of_the_arms() -> None:
    assert {name: title(arm) for name, arm in ARMS.items()} == {name: arm.title for name, arm in ARMS.items()}


def difference(low: float, mean: float, high: float) -> Difference:
    return Difference((mean + 1e-9,) * 8, mean, low, high, 0.03, 0.0, True, "paired t", 0.1, 0.5)


SAME, BETTER, WORSE = difference(-0.005, 0.0, 0.005), difference(-0.05, -0.03, -0.01), difference(0.01, 0.03, 0.05)
UNCLEAR = difference(-0.05, -0.025, 0.001)


@pytest.mark.parametrize(
    ("adamw", "l2_over_none", "adamw_over_none", "kind", "advice"),
    [
        (BETTER, SAME, SAME, "switch", "改用 AdamW"),
        (WORSE, SAME, SAME, "keep", "继续用 Adam + L2"),
        (SAME, SAME, SAME, "no_difference", "没有值得在意的差别"),
        (UNCLEAR, SAME, SAME, "undecided", "尚无定论"),
        (SAME, WORSE, WORSE, "no_decay", "不要用权重衰减"),
        (BETTER, WORSE, SAME, "undecided", "Adam + L2 的搜索失败了"),
    ],
)
def test_verdicts_in_chinese_have_the_figures_of_the_english_ones(
    adamw: Difference, l2_over_none: Difference, adamw_over_none: Difference, kind: str, advice: str
) -> None:
    over_none = {"adam_l2": l2_over_none, "adamw": adamw_over_none}
    en, zh = (decide(adamw, over_none, "cross_entropy", Margin(0.02), Plan(8), texts(lang)) for lang in ("en", "zh"))
    assert (zh.kind, zh.more_seeds, zh.chance, zh.failed) == (en.kind, en.more_seeds, en.chance, en.failed)
    assert en.kind == kind
    assert advice in zh.advice
    for one, other in ((en.text, zh.text), (en.note, zh.note)):
        assert sorted(re.findall(r"[+−±]?\d[\d.]*%?", one)) == sorted(re.findall(r"[+−±]?\d[\d.]*%?", other))
        assert not re.search(r"[a-z]{3,}", other.replace("Adam", "").replace("budget", ""))
    assert "：" in zh.text
    assert "交叉熵" in zh.text


def test_the_terminal_speaks_chinese(tiny_result: Summary) -> None:
    text = io.StringIO()
    print_verdict(Console(file=text, width=100), tiny_result.in_language("zh"))
    shown = text.getvalue()
    for word in ("越低越好", "权重衰减", "验证", "测试", "搜索次数", "AdamW"):
        assert word in shown
    for code in tiny_result.code:
        assert code in shown.splitlines()
    for arm in tiny_result.arms.values():
        assert f"{arm.test['loss'].mean:.4f}" in shown
    for english in ("weight decay", "validation", "lower is better", "Adam with L2", "Adam without", "paired seeds"):
        assert english not in shown


def text_of(page: str) -> str:
    """Return what a reader of a page sees, without scripts and style."""
    return re.sub(r"<[^>]+>", " ", re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL))


def test_the_page_speaks_chinese_with_the_same_numbers(tiny_result: Summary) -> None:
    en, zh = (render([tiny_result.in_language(lang)]) for lang in ("en", "zh"))
    assert '<html lang="zh-CN">' in zh
    for english in (
        "How to read",
        "Best setting",
        "Results of each seed",
        "Warning",
        "paired seeds",
        "Copy",
        "Method",
    ):
        assert english in text_of(en)
        assert english not in text_of(zh)
    numbers = re.compile(r"(?<![\w.])[+−±]?\d+\.\d+(?:e[-+]\d+)?%?")
    assert set(numbers.findall(text_of(en))) == set(numbers.findall(text_of(zh)))
    figures = [json.loads(re.search(r'id="figures">(.*?)</script>', page)[1]) for page in (en, zh)]  # type: ignore[index]
    assert list(figures[0]) == list(figures[1])
    for one, other in zip(figures[0].values(), figures[1].values(), strict=True):
        assert [trace.get("y") for trace in one["data"]] == [trace.get("y") for trace in other["data"]]
    titles = [figure["layout"]["xaxis"].get("title", {}).get("text", "") for figure in figures[1].values()]
    assert all(HAN.search(each) or not each for each in titles), titles


def test_the_json_is_english_in_every_locale(tiny_result: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    before = to_json([tiny_result])
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert to_json([summarise(tiny_result.record)]) == before


def test_a_report_is_in_the_language_of_the_locale(
    tiny_result: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    result = StudyResult(tiny_result)
    assert 'lang="zh-CN"' in result.report(tmp_path).read_text(encoding="utf-8")
    assert 'lang="en"' in result.report(tmp_path, "en").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="lang='de' must be en or zh"):
        result.report(tmp_path, lang="de")


NASTY = "<script>alert('1')</script> \"权重\" <b>x</b> %{y}"


def renamed(result: Summary) -> Summary:
    """Return the study with a name and a metric that look like HTML and like a template of Plotly."""

    def with_metric(figures: dict[str, float] | None) -> dict[str, float] | None:
        return figures and {NASTY: figures["loss"]}

    record = result.record
    outcomes = {
        run: replace(
            outcome,
            validation=with_metric(outcome.validation) or {},
            test=with_metric(outcome.test),
            untrained=with_metric(outcome.untrained),
        )
        for run, outcome in record.outcomes.items()
    }
    workload = replace(record.settings.workload, name=NASTY, metric=NASTY, summary=NASTY, expected=NASTY)
    settings = replace(record.settings, workload=workload)
    return summarise(replace(record, settings=settings, outcomes=outcomes))


@needs_chromium
def test_names_are_text_everywhere_and_the_page_works(tiny_result: Summary, tmp_path: Path) -> None:
    """Titles, hover texts and file names included; the buttons of the maps change their axis, and the runs sort."""
    page = render([renamed(tiny_result)])
    assert "<script>alert" not in page
    found = asked(
        page,
        """for (const fold of document.querySelectorAll('details')) fold.open = true;
        await new Promise((resume) => setTimeout(resume, 1500));
        const plot = (name) => document.querySelector(`[id$='-${name}']`);
        const title = (name) => plot(name).querySelector('.ytitle').textContent;
        const hover = (name, curveNumber) => {
          Plotly.Fx.hover(plot(name), [{curveNumber, pointNumber: 0}]);
          return plot(name).querySelector('.hovertext').textContent;
        };
        const axis = () => plot('map-adamw').querySelector('.xtitle').textContent;
        const axes = [axis()];
        const texts = [title('seeds'), title('validation'), hover('map-adamw', 1)];
        document.querySelectorAll('.view')[1].click();
        axes.push(axis());
        const losses = [...document.querySelectorAll('.sortable thead th')].findIndex((th) => th.textContent === 'lr');
        document.querySelectorAll('.sort')[losses].click();
        const rows = [...document.querySelectorAll('.sortable tbody tr')];
        const rates = rows.map((row) => Number(row.cells[losses].textContent));
        const buttons = [...document.querySelectorAll('button, summary, a[href], [tabindex]')];
        return {texts, axes, rates, drawn: document.querySelectorAll('.main-svg').length > 0,
                bold: document.querySelectorAll('.plot tspan[style*=bold]').length,
                scripts: document.querySelectorAll('script').length,
                head: document.querySelector('.kicker').textContent,
                files: [...document.querySelectorAll('[download]')].map((a) => a.download),
                unreachable: buttons.filter((each) => each.tabIndex < 0).length};""",
        tmp_path,
    )
    assert found["head"].endswith(NASTY)
    assert found["scripts"] == 4
    assert found["texts"][0] == f"test {NASTY}"
    assert found["texts"][1] == f"validation {NASTY}"
    assert NASTY in found["texts"][2]
    assert found["axes"] == ["lr × weight_decay (paper)", "weight_decay (torch)"]
    assert found["rates"] == sorted(found["rates"])
    assert len(found["rates"]) == len(tiny_result.record.outcomes)
    assert found["unreachable"] == 0
    assert all(re.fullmatch(r"adamas-[\w-]+\.csv", name) for name in found["files"])


def test_an_arm_that_ran_on_fewer_seeds_has_shorter_lines(tiny_result: Summary) -> None:
    """Budget `scout` runs Adam without decay on fewer seeds than the other arms."""
    record = tiny_result.record
    budget = replace(record.settings.budget, pairs_alone=2)
    result = summarise(replace(record, settings=replace(record.settings, budget=budget)))
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', render([result]))[1])  # type: ignore[index]
    lines = [trace["y"] for trace in figures["tiny-seeds"]["data"][:-1]]
    assert [line[0] is None for line in lines] == [False, False, True]
    assert all(value is not None for line in lines for value in line[1:])
