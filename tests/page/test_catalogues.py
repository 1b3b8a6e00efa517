"""Every catalogue of texts says the same in both languages."""

import re
import tomllib
from pathlib import Path
from string import Formatter

import pytest

import adamas

CATALOGUES = sorted(Path(adamas.__file__).parent.rglob("texts/en.toml"))


def read(path: Path) -> dict[str, str]:
    sections = tomllib.loads(path.read_text(encoding="utf-8"))
    return {f"{name}.{key}": text for name, texts in sections.items() for key, text in texts.items()}


def test_catalogues_are_found() -> None:
    assert {path.parent.parent.name for path in CATALOGUES} >= {"compare", "xray", "page"}


@pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parent.parent.name)
def test_both_languages_have_the_same_texts_names_and_options(path: Path) -> None:
    en, zh = read(path), read(path.with_name("zh.toml"))
    assert list(en) == list(zh)
    for key, text in en.items():
        for found in (
            lambda text: {name for _, name, _, _ in Formatter().parse(text) if name} - {"runs"},  # "9 runs diverged"
            lambda text: set(re.findall(r"--\w+", text)),
        ):
            assert found(text) == found(zh[key]), key
