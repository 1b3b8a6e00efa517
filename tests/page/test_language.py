from __future__ import annotations

import re
from string import Formatter

import pytest

from adamas.language import LANGUAGES, Texts, chosen
from adamas.page import TEXTS


def locale(monkeypatch: pytest.MonkeyPatch, **given: str) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_CN", "LANG": "en_US.UTF-8"}, "zh"),  # an empty one is not set
        ({"LC_ALL": "C", "LC_MESSAGES": "zh_CN", "LANG": "zh_CN"}, "en"),  # the first one that is set decides
    ],
)
def test_the_locale_chooses(given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    locale(monkeypatch, **given)
    assert chosen() == expected


def test_what_is_asked_for_goes_before_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    locale(monkeypatch, LC_ALL="zh_CN.UTF-8")
    assert chosen("en") == "en"
    for unknown in ("", "fr", "ZH", "<b>"):
        with pytest.raises(ValueError, match=rf"lang='{unknown}' must be en or zh; without it"):
            chosen(unknown)


def test_the_page_has_the_same_words_in_both_languages() -> None:
    en, zh = (Texts(lang, TEXTS)._texts for lang in LANGUAGES)
    assert list(en) == list(zh)
    for key, text in en.items():
        fields = [{name for _, name, _, _ in Formatter().parse(each) if name} for each in (text, zh[key])]
        assert fields[0] == fields[1], key
    assert re.search(r"[一-鿿]", zh["page.copy"])


def test_arguments_are_escaped_in_html() -> None:
    text = Texts("en", TEXTS).html("page.save", name="<script>'\"{0}")
    assert text == "Save “&lt;script&gt;&#39;&#34;{0}” as PNG"
