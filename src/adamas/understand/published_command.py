"""Run `adamas decay`: print what the published rules say about weight decay for a run."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from adamas.understand.published import Run, advice, disagreement

SCHEMA = 1


def run_of(
    lr: float, batch: float, examples: float | None, epochs: float, tokens: float | None, sequence: float | None,
    parameters: float | None,
) -> Run:  # fmt: skip
    """Return the run that the options describe.

    Args:
        lr: the learning rate.
        batch: the examples of a batch; tokens, where `tokens` is given without `sequence`.
        examples: the examples of an epoch; None where tokens are given.
        epochs: the epochs.
        tokens: the tokens of an epoch.
        sequence: the tokens of an example.
        parameters: the number of parameters of the model.

    Raises:
        ValueError: not exactly one of examples and tokens is given, or a number is not > 0.

    Example:
        >>> run_of(0.001, 8, None, 1, tokens=1e6, sequence=1000, parameters=None).steps_per_epoch
        125.0
    """
    if (examples is None) == (tokens is None):
        raise ValueError(f"examples={examples} and tokens={tokens}: give exactly one of --examples and --tokens")
    if sequence is not None and tokens is None:
        raise ValueError(f"sequence={sequence} is for --tokens: leave it out, or give --tokens instead of --examples")
    for name, value in (("batch", batch), ("examples", examples), ("tokens", tokens), ("sequence", sequence)):
        if value is not None and not value > 0:
            raise ValueError(f"{name}={value} must be > 0")
    data = examples if tokens is None else tokens
    per_step = batch * (sequence or 1)
    return Run(lr, (data or 0.0) / per_step, epochs, tokens, parameters)


def run_command(run: Run, console: Console, as_json: bool) -> None:
    """Print a table of the rules, or one JSON object.

    Raises:
        ValueError: a number of the run is not finite and > 0.
    """
    found = advice(run)
    if as_json:
        rules = [asdict(each) for each in found]
        print(json.dumps({"schema": SCHEMA, "run": asdict(run), "rules": rules, "text": disagreement(found)}))
        return
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for title in (
        "rule",
        "weight_decay (torch)",
        "in the paper's (lr times it)",
        "timescale, epochs",
        "source",
    ):
        table.add_column(title, overflow="fold", min_width=min(len(title), 10))
    for each in found:
        cells = (
            _range(each.low, each.high),
            _range(each.low_paper, each.high_paper),
            _range(each.shortest, each.longest),
        )
        table.add_row(*map(Text, (each.rule, *cells, each.source)))
    console.print(table)
    for each in found:
        console.print(Text(f"{each.rule}: {each.note}"), soft_wrap=True)
    console.print(Text(disagreement(found)), soft_wrap=True)
    console.print(Text("Measure which one holds for your job: adamas compare my_job.py:job"), soft_wrap=True)


def _range(low: float | None, high: float | None) -> str:
    """Return two numbers as a range.

    Example:
        >>> _range(0.01, 0.01), _range(1.0, 10.0), _range(None, None)
        ('0.01', '1 to 10', '')
    """
    if low is None or high is None:
        return ""
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"
