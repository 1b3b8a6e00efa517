from __future__ import annotations

import base64
import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from adamas.compare.api import conduct
from adamas.compare.job.job import Job
from adamas.compare.report import write_report
from adamas.compare.report.page import render
from adamas.compare.report.terminal import print_verdict
from adamas.compare.study import arms
from adamas.compare.study.margin import Margin
from adamas.compare.study.run import Run
from adamas.compare.verdict.contract import to_json
from adamas.compare.verdict.result import Finding, NoScaleError, Summary, summarise
from tests.compare.tiny_job import RUNS, job, settings
from tests.page.browser import asked, needs_chromium

SGD = "torch.optim:SGD(momentum=0.9, nesterov=True)"


class Page(HTMLParser):
    """A parsed page: its references, its ids, its headings, its text and its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.scripts: dict[str, str] = {}
        self.headings: list[tuple[str, str]] = []
        self.text = ""
        self._script: str | None = None
        self._heading: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.references += [found[name] for name in ("src", "href", "action", "data", "poster") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        self._script = found.get("id", "code") if tag == "script" else None
        self._heading = tag if tag in ("h1", "h2", "h3", "h4") else None

    def handle_endtag(self, tag: str) -> None:
        self._script = self._heading = None

    def handle_data(self, data: str) -> None:
        if self._heading:
            self.headings.append((self._heading, data))
        if self._script is None:
            self.text += data
        else:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


def doubled_job(seed: int, device: str) -> Job:
    """Return the tiny job with twice the loss."""
    tiny = job(seed, device)
    return replace(tiny, loss=lambda batch: 2 * tiny.loss(batch))


def findings(result: Summary) -> list[Finding]:
    """Return one finding that holds, one that does not, and one that cannot be told."""
    return [
        Finding("a linear model learns", f"{result.arms['adamw'].test['loss'].mean:.2f}", True),
        Finding("decay is decisive", "it is not", False),
        Finding("pigs <fly>", "none was seen", None),
    ]


@pytest.fixture(scope="module")
def rich_result(workers_find_the_tests: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return a study of four arms and of a variant of the job, with findings."""
    given = settings(tmp_path_factory.mktemp("rich"))
    workload = replace(
        given.workload,
        name="rich & odd",
        expected="Little, from so small a model.",
        variants=(("twice the loss", f"{__name__}:doubled_job"),),
        findings=f"{__name__}:findings",
    )
    chosen = arms.choose(f"none,adam_l2,adamw,{SGD}")
    return summarise(conduct(replace(given, workload=workload, arms=chosen), lambda snapshot: None))


@pytest.fixture(scope="module")
def fixed_result(workers_find_the_tests: None, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """Return a study that tunes nothing."""
    given = settings(tmp_path_factory.mktemp("fixed"))
    fixed = (("none", 0.01, 0.0), ("adam_l2", 0.01, 0.02), ("adamw", 0.01, 0.1))
    workload = replace(given.workload, name="settled", fixed=fixed)
    return summarise(conduct(replace(given, workload=workload), lambda snapshot: None))


@pytest.fixture(scope="module")
def page(tiny_result: Summary) -> Page:
    return Page(render([tiny_result]))


def test_the_page_refers_to_nothing_outside(page: Page) -> None:
    assert page.references
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "plotly.js v" in page.scripts["plotly"]  # which is text: the page is shown before Plotly starts


def test_the_page_says_what_matters(page: Page, tiny_result: Summary) -> None:
    assert tiny_result.verdict.advice in page.text
    for code in tiny_result.code:
        for part in code.split("; "):
            assert part in page.text
    assert "adamas compare tiny --budget tiny --seeds 3 --margin 2%" in page.text
    assert "1000 to 1002" in page.text
    for name, arm in tiny_result.arms.items():
        assert f"{arm.test['loss'].mean:.4f}" in page.text
        if name != "none":
            assert f"{arm.winner.weight_decay:.3g}" in page.text
            assert f"{arm.weight_decay_paper:.3g}" in page.text


def test_every_figure_has_its_place_and_a_common_scale(page: Page) -> None:
    figures = json.loads(page.scripts["figures"])
    maps = ("map-none", "map-adam_l2", "map-adamw")
    others = ("interval", "seeds", "differences", "training", "validation", "best")
    assert set(figures) == {f"tiny-{name}" for name in (*maps, *others)}
    assert set(figures) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    scales = {
        (trace["zmin"], trace["zmax"]) for f in figures.values() for trace in f["data"] if trace["type"] == "heatmap"
    }
    assert len(scales) == 1


def csv_rows(page: Page) -> list[dict[str, str]]:
    encoded = next(reference for reference in page.references if reference.startswith("data:text/csv"))
    return list(csv.DictReader(io.StringIO(base64.b64decode(encoded.split(",", 1)[1]).decode())))


def test_the_csv_holds_every_run(page: Page, tiny_result: Summary) -> None:
    rows = csv_rows(page)
    assert len(rows) == RUNS
    assert {row["status"] for row in rows} <= {"ok", "diverged", "pruned", "failed"}
    assert all(float(row["weight_decay_paper"]) == float(row["lr"]) * float(row["weight_decay"]) for row in rows)
    assert all((row["test_loss"] != "") == (row["stage"] == "final") for row in rows)
    finals = [float(row["test_loss"]) for row in rows if row["stage"] == "final" and row["arm"] == "adamw"]
    assert tuple(finals) == tiny_result.arms["adamw"].test["loss"].values


def test_names_are_escaped(tiny_result: Summary) -> None:
    settings = tiny_result.record.settings
    workload = replace(settings.workload, summary="<script>alert(1)</script>")
    record = replace(tiny_result.record, settings=replace(settings, workload=workload))
    assert "<script>alert" not in render([replace(tiny_result, record=record)])


def test_the_page_is_written_whole_or_not_at_all(
    tiny_result: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(tiny_result.record.settings, out=tmp_path / "new" / "folder")
    result = replace(tiny_result, record=replace(tiny_result.record, settings=settings))
    page = write_report([result])
    assert page == tmp_path / "new" / "folder" / "index.html"
    before = page.read_text()

    def fail(results: list[Summary]) -> str:
        raise RuntimeError("half way")

    monkeypatch.setattr("adamas.compare.report.page.render", fail)
    with pytest.raises(RuntimeError, match="half way"):
        write_report([result])
    assert page.read_text() == before
    assert [entry.name for entry in page.parent.iterdir()] == ["index.html"]


@needs_chromium
def test_the_figures_draw_without_console_errors_and_fit_a_phone(
    tiny_result: Summary, rich_result: Summary, fixed_result: Summary, tmp_path: Path
) -> None:
    text = render([tiny_result, rich_result, fixed_result])
    found = asked(
        text,
        """for (const fold of document.querySelectorAll('details')) fold.open = true;
        await new Promise((resume) => setTimeout(resume, 2000));
        const plots = [...document.querySelectorAll('.plot')];
        return {width: document.documentElement.scrollWidth,
                drawn: plots.filter((plot) => plot.querySelector('.main-svg')).length};""",
        tmp_path,
        width=360,
    )
    assert found == {"width": 360, "drawn": len(json.loads(Page(text).scripts["figures"]))}


def test_several_studies_stand_on_one_page(tiny_result: Summary, rich_result: Summary, fixed_result: Summary) -> None:
    page = Page(render([tiny_result, rich_result, fixed_result]))
    assert len(page.ids) == len(set(page.ids))
    links = [reference for reference in page.references if reference.startswith("#")]
    assert links[:3] == ["#tiny", "#rich-odd", "#settled"]
    assert all(link.endswith("-warnings") for link in links[3:])
    assert {link.removeprefix("#") for link in links} <= set(page.ids)
    assert set(json.loads(page.scripts["figures"])) <= set(page.ids)
    levels = [level for level, _ in page.headings]
    assert levels.count("h1") == 1
    assert levels.count("h2") == 3
    assert [text for level, text in page.headings if level == "h2"] == [
        result.verdict.advice for result in (tiny_result, rich_result, fixed_result)
    ]
    assert "h3" in levels
    assert "h4" not in levels
    assert sum(reference.startswith("data:text/csv") for reference in page.references) == 3


def test_a_lone_study_has_its_verdict_as_title(page: Page, tiny_result: Summary) -> None:
    levels = [level for level, _ in page.headings]
    assert page.headings[0] == ("h1", tiny_result.verdict.advice)
    assert levels.count("h1") == 1
    assert set(levels[1:]) == {"h2"}


def test_two_studies_of_one_name_are_told_apart(tiny_result: Summary) -> None:
    """The names of two jobs may differ only in characters that an HTML id cannot hold."""
    workload = replace(tiny_result.record.settings.workload, name="tiny/")
    record = replace(tiny_result.record, settings=replace(tiny_result.record.settings, workload=workload))
    ids = Page(render([tiny_result, replace(tiny_result, record=record)])).ids
    assert len(ids) == len(set(ids))
    assert "tiny-2" in ids


def test_a_fourth_arm_is_in_the_tables_and_the_figures(rich_result: Summary) -> None:
    page = Page(render([rich_result]))
    figures = json.loads(page.scripts["figures"])
    title = rich_result.arms[SGD].arm.title
    assert "rich-odd-map-torch-optim-SGD-momentum-0-9-nesterov-True" in figures
    assert page.text.count(title) >= 5  # arms, curves, best so far, milestones, separability
    assert f"{rich_result.arms[SGD].test['loss'].mean:.4f}" in page.text
    for name in ("training", "validation", "best"):
        assert title in [trace["name"] for trace in figures[f"rich-odd-{name}"]["data"]]
    assert "SGD" in figures["rich-odd-seeds"]["data"][0]["x"][3]
    assert any("SGD" in text for text in figures["rich-odd-differences"]["layout"]["yaxis"]["ticktext"])
    assert "in a separate pilot of" in page.text


def printed(result: Summary, width: int = 80) -> str:
    """Return the verdict as the terminal shows it."""
    text = io.StringIO()
    print_verdict(Console(file=text, width=width), result)
    return text.getvalue()


@pytest.mark.parametrize(("width", "tables"), [(200, 2), (80, 2), (60, 2), (50, 4), (40, 4)])
def test_the_terminal_shows_arms_side_by_side_as_it_has_room(rich_result: Summary, width: int, tables: int) -> None:
    """No figure and no name is cut."""
    shown = printed(rich_result, width).split("weight decay: torch's convention")[0]
    assert shown.count("validation") == shown.count(" lr  ") == tables
    assert " ".join(shown.split()).count("lower is better") == 1
    assert "…" not in shown
    for arm in rich_result.arms.values():
        assert f"{arm.test['loss'].mean:.4f} ± {arm.test['loss'].sd:.4f}" in shown
    for line in ("torch.optim.SGD", "(momentum=0.9,", "nesterov=True)"):
        assert line in shown


def test_the_name_of_a_job_is_neither_emoji_nor_markup(tiny_result: Summary) -> None:
    """Rich would show `:printer` as a picture and read `[bold]` as a style."""
    for name in ("my_job:printer", "my_job:[bold]"):
        workload = replace(tiny_result.record.settings.workload, name=name)
        settings = replace(tiny_result.record.settings, workload=workload)
        named = replace(tiny_result, record=replace(tiny_result.record, settings=settings))
        assert printed(named).lstrip().startswith(f"{name}: loss")


def test_a_fourth_arm_that_diverged_leaves_the_seeds_of_the_others(rich_result: Summary) -> None:
    victim = rich_result.record.winners[SGD].finals(3)[0]
    outcome = replace(rich_result.record.outcomes[victim], status="diverged", validation={}, test=None)
    record = replace(rich_result.record, outcomes={**rich_result.record.outcomes, victim: outcome})
    figures = json.loads(Page(render([summarise(record)])).scripts["figures"])
    assert len(figures["rich-odd-seeds"]["data"][0]["x"]) == 3


def test_findings_are_told_without_colour(rich_result: Summary) -> None:
    text = Page(render([rich_result])).text
    for sentence in (
        "As expected",
        "Not as expected",
        "Cannot be told",
        "pigs <fly>",
        "Little, from so small a model.",
    ):
        assert sentence in text
    assert f"Measured: {rich_result.arms['adamw'].test['loss'].mean:.2f}" in text


def test_a_sweep_has_a_line_a_variant(rich_result: Summary) -> None:
    page = Page(render([rich_result]))
    figures = json.loads(page.scripts["figures"])
    for arm in ("adam_l2", "adamw"):
        figure = figures[f"rich-odd-sweep-{arm}"]
        assert [trace["name"] for trace in figure["data"]] == ["as it is", "twice the loss"]
        assert figure["layout"]["xaxis"]["type"] == "log"
        assert all(len(trace["x"]) == 11 for trace in figure["data"])
    assert "twice the loss" in page.text


def test_a_fixed_study_says_that_nothing_was_tuned(fixed_result: Summary) -> None:
    page = Page(render([fixed_result]))
    assert "Nothing was tuned: theory gives the settings" in " ".join(page.text.split())
    figures = json.loads(page.scripts["figures"])
    assert set(figures) == {
        f"settled-{name}" for name in ("interval", "seeds", "differences", "training", "validation")
    }
    for absent in ("Settings that each arm tried", "pilot", "Runs", "Interaction"):
        assert absent not in page.text.replace("there is no pilot", "")
    assert f"{fixed_result.arms['adamw'].test['loss'].mean:.4f}" in page.text


def test_runs_stopped_half_way_are_no_divergence(tiny_result: Summary) -> None:
    """One more run of AdamW's grid is pruned, another one diverged."""
    runs = tiny_result.record.grids["adamw"].runs()
    first, second, *_ = (run for run in runs if tiny_result.record.outcomes[run].ok)
    lost = {
        run: replace(tiny_result.record.outcomes[run], status="pruned" if pruned else "diverged", validation={})
        for run, pruned in ((first, True), (second, False))
    }
    record = replace(tiny_result.record, outcomes={**tiny_result.record.outcomes, **lost})
    page = Page(render([summarise(record)]))
    text = " ".join(page.text.split())
    before = list(tiny_result.arms.values())
    stopped, diverged = [arm.pruned for arm in before], [arm.without_figures - arm.pruned for arm in before]
    stopped[-1], diverged[-1] = stopped[-1] + 1, diverged[-1] + 1
    assert re.search(r"\s*".join(["Stopped half-way", "runs", *map(str, stopped)]) + r"\b", text)
    assert re.search(r"\s*".join(["Diverged", "runs", *map(str, diverged)]) + r"\b", text)
    assert "fitted the training data no better than untrained weights" in text
    figure = json.loads(page.scripts["figures"])["tiny-map-adamw"]
    assert "–" in figure["data"][2]["text"]
    assert set(figure["data"][2]["text"]) <= {"✕", "–"}
    assert sum(row["status"] == "pruned" for row in csv_rows(page)) == sum(stopped)


def test_every_figure_is_plain_json(tiny_result: Summary) -> None:
    """JSON has no infinity and no NaN, and the first run of a search may have no figure."""
    first = tiny_result.record.searched["adamw"][0]
    without = replace(tiny_result.record.outcomes[first], status="diverged", validation={})
    record = replace(tiny_result.record, outcomes={**tiny_result.record.outcomes, first: without})

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(Page(render([summarise(record)])).scripts["figures"], parse_constant=refuse)


def test_the_json_is_the_contract(tiny_result: Summary) -> None:
    printed = json.loads(json.dumps(to_json([tiny_result]), allow_nan=False))
    assert printed["schema"] == 2
    (study,) = printed["studies"]
    assert set(study) == {
        *("workload", "metric", "margin", "seeds", "verdict", "difference", "over_none", "warnings", "conditions"),
        *("budget", "runs", "final_seeds", "versions", "arms"),
    }
    assert study["runs"] == {"total": RUNS, "failed": study["runs"]["failed"]}
    assert study["final_seeds"] == [1000, 1002]
    assert set(study["over_none"]) == {"adam_l2", "adamw"}
    assert (study["workload"], study["metric"], study["margin"], study["seeds"]) == ("tiny", "loss", 0.02, 3)
    assert set(study["verdict"]) == {"kind", "text", "more_seeds", "chance", "failed_search", "extend"}
    assert set(study["difference"]) == {"mean", "low", "high", "relative", "p_sign_flip", "p_better"}
    assert set(study["arms"]) == {"none", "adam_l2", "adamw"}
    for arm in study["arms"].values():
        assert set(arm) == {
            "lr",
            "weight_decay",
            "weight_decay_independent",
            "trials",
            "infeasible",
            "validation",
            "test",
        }
        assert set(arm["validation"]) == {"mean", "sd"}
        assert set(arm["test"]) == {"loss"}
        assert set(arm["test"]["loss"]) == {"mean", "sd", "values"}
        assert arm["weight_decay_independent"] == arm["lr"] * arm["weight_decay"]
        values = arm["test"]["loss"]["values"]
        assert len(values) == 3
        assert arm["test"]["loss"]["mean"] == pytest.approx(sum(values) / 3)


def test_an_absolute_margin_gives_absolute_differences(tiny_result: Summary) -> None:
    settings = replace(tiny_result.record.settings, margin=Margin(0.5, relative=False))
    result = summarise(replace(tiny_result.record, settings=settings))
    tests = [result.arms[arm].test["loss"].mean for arm in ("adamw", "adam_l2")]
    assert result.difference is not None
    assert result.difference.mean == pytest.approx(tests[0] - tests[1])
    study = to_json([result])["studies"][0]
    assert (study["margin"], study["difference"]["relative"]) == (0.5, False)
    assert "%" not in result.verdict.evidence.partition("; ")[0].replace("95%", "")


def shifted(result: Summary, figure: Callable[[float], float], margin: str) -> Summary:
    """Return the study with other test figures of its finalists."""
    finals = {run: found for run, found in result.record.outcomes.items() if found.test}
    others = {run: replace(found, test={"loss": figure((found.test or {})["loss"])}) for run, found in finals.items()}
    settings = replace(result.record.settings, margin=Margin.parse(margin))
    return summarise(replace(result.record, settings=settings, outcomes={**result.record.outcomes, **others}))


def test_a_relative_margin_of_a_figure_below_zero_is_refused(tiny_result: Summary) -> None:
    with pytest.raises(NoScaleError, match=r"of Adam with L2, which is -[89].+must be above 0.+--margin 0\.002abs"):
        shifted(tiny_result, lambda loss: loss - 10.0, "2%")
    lower, as_it_is = (shifted(tiny_result, lambda loss, by=by: loss - by, "0.05abs") for by in (10.0, 0.0))
    assert lower.difference
    assert as_it_is.difference
    assert lower.verdict.kind == as_it_is.verdict.kind
    assert lower.difference.mean == pytest.approx(as_it_is.difference.mean, abs=1e-12)


def test_a_relative_margin_of_a_tiny_figure_is_warned_of(tiny_result: Summary) -> None:
    def warned(result: Summary) -> bool:
        return any("below a thousandth of the untrained weights'" in sentence for sentence in result.warnings)

    tiny = shifted(tiny_result, lambda loss: 1e-6 * loss, "2%")
    assert warned(tiny)
    assert not warned(tiny_result)
    assert not warned(shifted(tiny_result, lambda loss: 1e-6 * loss, "0.002abs"))
    assert f"{tiny.arms['adamw'].test['loss'].mean:.3g}" in printed(tiny)  # and not 0.0000


def test_figures_that_are_all_zero_do_not_differ(tiny_result: Summary) -> None:
    result = shifted(tiny_result, lambda loss: 0.0, "2%")
    assert result.verdict.kind == "no_difference"
    same = "AdamW and Adam with L2 gave identical figures on every one of 3 seeds"
    assert same in result.verdict.text
    assert same in Page(render([result])).text


def diverged(result: Summary) -> Summary:
    """Return the study with a finalist of AdamW that diverged."""
    victim = result.record.winners["adamw"].finals(3)[1]
    outcome = replace(result.record.outcomes[victim], status="diverged", validation={}, test=None)
    return summarise(replace(result.record, outcomes={**result.record.outcomes, victim: outcome}))


def test_a_diverged_finalist_leaves_it_undecided(tiny_result: Summary) -> None:
    result = diverged(tiny_result)
    assert result.verdict.kind == "undecided"
    assert "AdamW diverged on a fresh seed" in result.verdict.text
    assert "AdamW: the best setting diverged on 1 of 3 fresh seeds." in result.warnings
    told = [[sentence for sentence in each.warnings if "runs diverged" in sentence] for each in (result, tiny_result)]
    assert told[0] == told[1]  # the warnings about the search do not change
    study = json.loads(json.dumps(to_json([result]), allow_nan=False))["studies"][0]
    assert study["difference"]["mean"] is None
    assert study["arms"]["adamw"]["test"] == {}
    assert study["arms"]["adamw"]["infeasible"] == tiny_result.arms["adamw"].without_figures + 1
    assert "AdamW diverged" in Page(render([result])).text


def test_almost_no_decay_is_warned_of(tiny_result: Summary) -> None:
    """Every outcome is changed as if the run had been far too short for decay."""
    outcomes = {
        run: replace(outcome, total_decay=1e-6 * outcome.total_decay)
        for run, outcome in tiny_result.record.outcomes.items()
    }
    warnings = summarise(replace(tiny_result.record, outcomes=outcomes)).warnings
    (found,) = (warning for warning in warnings if warning.startswith("AdamW: the best setting uses almost no decay"))
    assert "too short" in found
    strong = {run: replace(outcome, total_decay=5.0) for run, outcome in tiny_result.record.outcomes.items()}
    warnings = summarise(replace(tiny_result.record, outcomes=strong)).warnings
    assert not any("almost no decay" in text for text in warnings)


def test_runs_that_diverged_early_do_not_make_decay_inert(tiny_result: Summary) -> None:
    """D is taken from a finalist that did not diverge, and from the requested weight decays of the search."""
    record = tiny_result.record
    victim = record.winners["adamw"].finals(3)[0]
    lost = replace(record.outcomes[victim], status="diverged", validation={}, test=None, total_decay=1e-9)
    found = summarise(replace(record, outcomes={**record.outcomes, victim: lost}))
    assert found.arms["adamw"].total_decay == pytest.approx(tiny_result.arms["adamw"].total_decay)

    weak = {run: replace(outcome, total_decay=0.01) for run, outcome in record.outcomes.items()}
    winner = record.winners["adamw"]
    # The D of this run would be 2 if it had not diverged.
    strongest = Run("search", "adamw", winner.lr, 200 * winner.weight_decay, 0)
    weak[strongest] = replace(lost, total_decay=1e-9)
    searched = {**record.searched, "adamw": [*record.searched["adamw"], strongest]}
    warnings = summarise(replace(record, outcomes=weak, searched=searched)).warnings
    said = "AdamW: the best setting uses almost no decay (total decay D = 0.01); stronger decay scored worse."
    assert said in warnings
    edged = {**record.winners, "adamw": replace(winner, at_edge="strongest decay")}
    again = summarise(replace(record, outcomes=weak, searched=searched, winners=edged)).warnings
    assert said in again
    assert not any("strongest decay tried" in text for text in again)  # it would contradict that


def test_the_terminal_shows_both_conventions_and_unbroken_code(tiny_result: Summary) -> None:
    shown = printed(tiny_result)
    winner = tiny_result.arms["adamw"].winner
    assert f"{winner.weight_decay:.3g}" in shown
    assert f"{tiny_result.arms['adamw'].weight_decay_paper:.3g}" in shown
    for code in tiny_result.code:
        assert code in shown.splitlines()
    assert not any(math.isnan(arm.validation.mean) for arm in tiny_result.arms.values())
    assert max(len(line) for line in shown.splitlines() if "│" in line) <= 80
