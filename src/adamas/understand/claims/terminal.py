"""Show claims on the terminal: their progress, then a table of verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from adamas.understand.claims.claim import Claim, Say
from adamas.understand.claims.run import Failure, Measured
from adamas.understand.claims.words import verdict

_STYLES = {"holds": "green", "conditional": "yellow", "does_not_hold": "red"}


def progress(claims: Sequence[Claim], console: Console, say: Say) -> Iterator[Claim]:
    """Yield the claims one by one, with a progress bar on a terminal, and a line a claim elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(claims))
        for claim in claims:
            title = say(f"claim {claim.number}", f"论断 {claim.number}")
            bar.update(task, description=title)
            if not console.is_terminal:
                console.print(f"{title}: {say(claim.article_en, claim.article_zh)}", soft_wrap=True, markup=False)
            yield claim
            bar.advance(task)


def print_table(console: Console, found: Sequence[Measured], say: Say) -> None:
    """Print a row for each claim: its number, verdict and figure, the claim, and what was measured."""
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("", justify="right")
    for title in (say("verdict", "结论"), say("figure", "数值")):
        table.add_column(title, max_width=18)
    table.add_column(say("claim, and what was measured", "论断与实测"), overflow="fold", ratio=1)
    for each in found:
        about = Text(say(each.claim.article_en, each.claim.article_zh), style="italic")
        # Text, not strings: brackets of an interval are no markup.
        table.add_row(
            Text(str(each.claim.number)),
            Text(verdict(each.verdict, say), style=_STYLES[each.verdict]),
            Text(f"{each.figure}\n{say(each.claim.figure_en, each.claim.figure_zh)}"),
            Text.assemble(about, "\n", each.told.text, "\n"),
        )
    console.print(table)


def failure_line(failure: Failure, say: Say) -> str:
    """Return why a claim was not measured, as a sentence."""
    number, reason = failure.claim.number, failure.reason
    return say(f"claim {number} was not measured: {reason}", f"论断 {number} 未能测量：{reason}")
