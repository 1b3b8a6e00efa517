"""The page of the claims: a table of all verdicts, then a section for each claim with its figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from adamas.language import Language
from adamas.page import Figure, Page, Section, Table
from adamas.understand.claims.claim import Say, say_in
from adamas.understand.claims.run import Failure, Measured
from adamas.understand.claims.terminal import failure_line
from adamas.understand.claims.words import verdict

PLAYGROUND = "adamas-playground.html"  # the page to play with, beside the page of the claims


def make_page(found: Sequence[Measured], failures: Sequence[Failure], lang: Language) -> Page:
    """Return the page.

    Args:
        found: The measured claims.
        failures: The claims that could not be measured.
        lang: The language of the page.
    """
    say = say_in(lang)
    counts = Counter(each.verdict for each in found)
    return Page(
        title=say(
            f"{len(found)} claims about Adam and AdamW: {counts['holds']} hold, {counts['conditional']} under a "
            f"condition, {counts['does_not_hold']} not",
            f"关于 Adam 和 AdamW 的 {len(found)} 个论断：{counts['holds']} 个成立，{counts['conditional']} 个有条件"
            f"成立，{counts['does_not_hold']} 个不成立",
        ),
        kicker="adamas claims",
        lead=(
            say(
                "Each claim is measured by an experiment of its own, on fixed seeds. A rule that looks at the figures "
                "and at nothing else turns them into the verdict.",
                "每个论断都由一个独立的实验测量，随机种子固定。判定规则只看数值，不看其他。",
            ),
            *(failure_line(failure, say) for failure in failures),
        ),
        sections=(_overview(found, say), *(_section(each, say) for each in found)),
        lang=lang,
        link=(say("Move the settings yourself: the page to play with", "亲手拨动参数：可以动手玩的页面"), PLAYGROUND),
    )


def _overview(found: Sequence[Measured], say: Say) -> Section:
    """Return the table of all claims."""
    columns = (
        say("number", "编号"), say("verdict", "结论"), say("figure", "数值"), say("low", "下限"), say("high", "上限"),
        say("of what", "数值含义"), say("seconds", "秒"), say("source", "出处"), say("claim", "论断"),
    )  # fmt: skip
    rows = tuple(
        (
            each.claim.number,
            verdict(each.verdict, say),
            each.figure.value,
            each.figure.low,
            each.figure.high,
            say(each.claim.figure_en, each.claim.figure_zh),
            round(each.seconds, 2),
            each.claim.source,
            say(each.claim.article_en, each.claim.article_zh),
        )
        for each in found
    )
    caption = say("Intervals are 95 %; an exact figure has none.", "区间为 95 %；精确的数值没有区间。")
    return Section(say("All claims", "全部论断"), tables=(Table("claims", columns, rows, caption),), anchor="all")


def _section(each: Measured, say: Say) -> Section:
    """Return the section of a claim."""
    claim, told = each.claim, each.told
    return Section(
        title=f"{claim.number}. {verdict(each.verdict, say)}",
        paragraphs=(
            f"“{claim.article_zh}”",
            f"“{claim.article_en}” ({claim.source})",
            say(f"Figure: {each.figure}, {claim.figure_en}.", f"数值：{each.figure},{claim.figure_zh}。"),
            say(f"Rule: {claim.rule_en}", f"规则：{claim.rule_zh}"),
        ),
        figures=(Figure(f"claim-{claim.number}", told.question, told.text, told.plot, told.how_to_read),),
        code=f"adamas claims --only {claim.number}",
        anchor=f"claim-{claim.number}",
    )
