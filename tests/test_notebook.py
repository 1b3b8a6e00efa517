"""The notebook on the article runs, its asserts hold and can fail, and both languages have the same cells."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from adamas import reference
from adamas.scalars import Hyper
from tests.translations import NOTEBOOK, ROOT, badly_set, section_of

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
pytest.importorskip("matplotlib")

((PAGE, CHINESE),) = NOTEBOOK.items()
_spec = importlib.util.spec_from_file_location("build_notebook", ROOT / "docs" / "notebooks" / "build.py")
assert _spec is not None
assert _spec.loader is not None
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)
SOURCE = build.SOURCE.read_text(encoding="utf-8")
PARTS = build.parts(SOURCE)


def stored(language: str) -> Any:
    return nbformat.read(build.NOTEBOOKS[language], as_version=4)


def said(book: Any) -> list[str]:
    """Return what the cells print. Pictures are not compared: their bytes depend on the version of matplotlib."""
    return ["".join(each.get("text", "") for each in cell.get("outputs", [])) for cell in book.cells]


@pytest.mark.parametrize("language", build.NOTEBOOKS)
def test_stored_notebooks_are_those_of_the_source(language: str) -> None:
    shown = [(cell.cell_type, cell.id, cell.source) for cell in stored(language).cells]
    made = [(cell.cell_type, cell.id, cell.source) for cell in build.notebook(SOURCE, language).cells]
    assert shown == made, "run python docs/notebooks/build.py"


def test_notebook_runs_and_shows_what_is_stored() -> None:
    """One run is enough: the code and the stored outputs of the Chinese notebook are those of the English one."""
    fresh = build.notebook(SOURCE, "en")
    build.run(fresh)
    assert said(fresh) == said(stored("en")), "run python docs/notebooks/build.py"
    assert sum("image/png" in each.get("data", {}) for cell in fresh.cells for each in cell.get("outputs", [])) == 3


def test_both_languages_have_the_same_code_and_outputs() -> None:
    english, chinese = (
        [cell for cell in stored(language).cells if cell.cell_type == "code"] for language in ("en", "zh")
    )
    assert english == chinese


def test_nothing_of_the_source_is_lost() -> None:
    """Marks, fences and the texts of the cells are all there is in it."""
    left = SOURCE
    for _, text in PARTS:
        left = left.replace(text, "", 1)
    assert re.sub(r"<!-- (en|zh) -->|```(python)?|\s", "", left) == ""


def test_texts_have_the_same_figures_names_and_links() -> None:
    texts = {language: [text for kind, text in PARTS if kind == language] for language in ("en", "zh")}
    kinds = [kind for kind, _ in PARTS]
    assert all(kinds[i + 1] == "zh" for i, kind in enumerate(kinds) if kind == "en")
    for english, chinese in zip(texts["en"], texts["zh"], strict=True):
        ours, theirs = section_of(english, PAGE), section_of(chinese, CHINESE)
        assert (ours, formulas(english), quotes(english)) == (theirs, formulas(chinese), quotes(chinese))
    assert [badly_set(text) for text in texts["zh"] if badly_set(text)] == []


def formulas(text: str) -> list[str]:
    return sorted(re.findall(r"\$[^$]+\$", text))


def quotes(text: str) -> int:
    """Return the number of quotations from the article."""
    return len(re.findall(r"(?:^>.*\n?)+", text, re.MULTILINE))


@pytest.mark.parametrize("code", [text for kind, text in PARTS if kind == "code"][1:])
def test_every_cell_checks_what_is_said_above_it(code: str) -> None:
    """Every cell but the first, which has only imports, has an assert."""
    assert "assert " in code


def without_correction(theta: Any, g: Any, state: Any, hyper: Hyper) -> Any:
    return STEP(theta, g, state, replace(hyper, bias_correction=False))


def swapped(theta: Any, g: Any, state: Any, hyper: Hyper) -> Any:
    """AdamW's decay in the place of L2, and the other way round."""
    decay = {"l2": "lr", "lr": "l2"}.get(hyper.decay, hyper.decay)
    return STEP(theta, g, state, replace(hyper, decay=decay))


STEP = reference.step


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
@pytest.mark.parametrize(
    ("planted", "fails"),
    [(without_correction, 7), (swapped, 2)],
    ids=["no bias correction", "L2 and AdamW swapped"],
)
def test_asserts_can_fail(planted: Callable[..., Any], fails: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a wrong optimizer, at least so many cells fail. The cell with the study takes seconds and is left out."""
    import matplotlib

    matplotlib.use("Agg")
    monkeypatch.setattr(reference, "step", planted)
    names: dict[str, Any] = {}
    failed = 0
    for code in [text for kind, text in PARTS if kind == "code" and "compare(job" not in text]:
        try:
            exec(code, names)
        except AssertionError:
            failed += 1
    assert failed >= fails
