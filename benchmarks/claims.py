"""Measure all claims once and put them into docs/claims.md and docs/zh/claims.md.

python -m benchmarks.claims --measure    # about five minutes; results/claims.json and, in Chinese, claims-zh.json
python -m benchmarks.claims              # the pages alone

The files are what `adamas claims --json` prints in each language.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from adamas.language import LANGUAGES, Language
from adamas.understand.claims.registry import CLAIMS
from adamas.understand.claims.run import Measured, measure, to_json
from benchmarks import RESULTS
from benchmarks.markdown import filled, table

DOCS = Path(__file__).parents[1] / "docs"
FOUND = {"en": RESULTS / "claims.json", "zh": RESULTS / "claims-zh.json"}
ARTICLE = 13  # the claims up to this number are the article's


@dataclass(frozen=True)
class Words:
    """The words of the page in one language.

    Attributes:
        page: The page.
        verdicts: The names of the verdicts.
        columns: The titles of the table.
        to: The word between the ends of an interval.
        colon: The colon after a number.
        source: The word before the source of a claim.
        again: The sentence on how to measure a claim again.
    """

    page: Path
    verdicts: dict[str, str]
    columns: tuple[str, ...]
    to: str
    colon: str
    source: str
    again: str


WORDS: dict[Language, Words] = {
    "en": Words(
        DOCS / "claims.md",
        {"holds": "holds", "conditional": "holds under a condition", "does_not_hold": "does not hold"},
        ("", "claim", "verdict", "figure"),
        " to ",
        ": ",
        "Source: ",
        "Measured in {seconds} s on one processor. Again: `adamas claims --only {number}`",
    ),
    "zh": Words(
        DOCS / "zh" / "claims.md",
        {"holds": "成立", "conditional": "有条件成立", "does_not_hold": "不成立"},
        ("", "说法", "结论", "数值"),
        " 到 ",
        "：",
        "出处：",
        "单个处理器上用时 {seconds} 秒。重新测量：`adamas claims --only {number}`",
    ),
}


def published(lang: Language) -> list[dict[str, Any]]:
    """Return the measured claims with their sentences in a language."""
    claims = json.loads(FOUND["en"].read_text(encoding="utf-8"))["claims"]
    told = json.loads(FOUND[lang].read_text(encoding="utf-8"))["claims"]
    return [each | {"text": other["text"]} for each, other in zip(claims, told, strict=True)]


def page(text: str, claims: Sequence[Mapping[str, Any]], lang: Language = "en") -> str:
    """Return the page with a table of all claims and a section for each."""
    words = WORDS[lang]
    rows = [
        (
            f"[{each['number']}](#claim-{each['number']})",
            cell(each, lang),
            f"**{words.verdicts[each['verdict']]}**",
            figure(each, lang),
        )
        for each in claims
    ]
    text = filled(text, "verdicts", table(words.columns, rows))
    for mark, first, last in (("article", 1, ARTICLE), ("papers", ARTICLE + 1, len(claims))):
        parts = [section(each, lang) for each in claims if first <= each["number"] <= last]
        text = filled(text, mark, "\n\n".join(parts))
    return text


def cell(claim: Mapping[str, Any], lang: Language) -> str:
    """Return the sentence of a claim for a table; Chinese has the punctuation that Chinese is set with."""
    text = claim[f"article_{lang}"].replace("|", "\\|")
    return text if lang == "en" else set_as_chinese(text)


def set_as_chinese(text: str) -> str:
    """Return Chinese with full-width punctuation beside its characters.

    Example:
        >>> set_as_chinese("动量: 加速收敛,减少震荡 (0.5, 0.6)")
        '动量：加速收敛，减少震荡 (0.5, 0.6)'
    """
    wide = str.maketrans(",;:!?", "，；：！？")
    return re.sub(r"(?<=[\u4e00-\u9fff]) ?([,;:!?]) ?", lambda mark: mark[1].translate(wide), text)


def figure(claim: Mapping[str, Any], lang: Language) -> str:
    """Return the figure of a claim with its interval, if it has one."""
    words, of = WORDS[lang], CLAIMS[claim["number"]]
    value, low, high = (f"{claim[key]:.3g}" for key in ("value", "low", "high"))
    shown = value if low == value == high else f"{value} ({low}{words.to}{high})"
    return f"{shown}{words.colon}{of.figure_en if lang == 'en' else of.figure_zh}"


def section(claim: Mapping[str, Any], lang: Language) -> str:
    """Return the section of a claim: its sentence in both languages, the result, and how to run it again."""
    words, number = WORDS[lang], claim["number"]
    quoted, text, source = claim["article_zh"], claim["text"], claim["source"]
    if lang == "zh":
        quoted, text, source = (
            set_as_chinese(quoted),
            set_as_chinese(text),
            source.replace("the article; ", "文章；").replace("the article", "文章"),
        )
    return "\n".join(
        (
            f'### <a id="claim-{number}"></a>{number}{words.colon}{words.verdicts[claim["verdict"]]}',
            "",
            *(f"> {sentence}\n>" for sentence in (quoted, claim["article_en"])),
            f"> {words.source}{source}",
            "",
            text,
            "",
            words.again.format(seconds=max(1, round(claim["seconds"])), number=number),
        )
    )


def measure_all() -> None:
    """Measure every claim once, and write its figures and its sentences in both languages."""
    found: dict[Language, list[Measured]] = {lang: [] for lang in LANGUAGES}
    for claim in CLAIMS.values():
        once = replace(claim, measure=cache(claim.measure))
        for lang, measured in found.items():
            result = measure(once, lang)
            if not isinstance(result, Measured):
                raise SystemExit(f"claim {claim.number}: {result.reason}")
            measured.append(result)
        print(claim.number, found["en"][-1].verdict, found["en"][-1].told.text, flush=True)
    for lang, measured in found.items():
        FOUND[lang].write_text(json.dumps(to_json(measured), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="measure the claims first")
    if parser.parse_args().measure:
        measure_all()
    for each, its in WORDS.items():
        its.page.write_text(page(its.page.read_text(encoding="utf-8"), published(each), each), encoding="utf-8")
