"""Run `adamas xray`: read a checkpoint, and print its figures as a table, as JSON or as a page."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from adamas.language import Texts, chosen
from adamas.understand.xray.columns import dicts, texts
from adamas.understand.xray.figures import Reading
from adamas.understand.xray.files import Saved, read_checkpoint
from adamas.understand.xray.predict import Window, Windows, predict_windows
from adamas.understand.xray.report import write_report
from adamas.understand.xray.saved import Overrides, reading_of
from adamas.understand.xray.writers import table

SCHEMA = 1


@dataclass(frozen=True)
class Request:
    """What to make of a checkpoint.

    Attributes:
        path: The file or folder.
        overrides: What the user knows better than the checkpoint.
        names: A file with the names of the model's parameters, one a line.
        steps_per_epoch: The number of optimizer steps in an epoch; None takes a trainer's record.
        epochs: The number of epochs of the run to predict for; None predicts nothing.
        out: The page to write; None for none.
        lang: "en" or "zh"; None takes the language of the locale.
    """

    path: Path
    overrides: Overrides
    names: Path | None = None
    steps_per_epoch: float | None = None
    epochs: float | None = None
    out: Path | None = None
    lang: str | None = None


def run_command(request: Request, console: Console, as_json: bool) -> None:
    """Look at a checkpoint, and print the figures or write the page.

    Raises:
        ValueError: the checkpoint cannot be read, or a number is missing or out of range.
        OSError: a file does not exist, or cannot be written.
    """
    names = None if request.names is None else request.names.read_text(encoding="utf-8").split()
    saved = read_checkpoint(request.path, names)
    reading = reading_of(saved, request.overrides)
    per_epoch = saved.steps_per_epoch if request.steps_per_epoch is None else request.steps_per_epoch
    windows, say = None, texts(chosen(request.lang))
    if request.epochs is not None:
        lr = reading.layers[0].lr if request.overrides.lr is None else request.overrides.lr
        windows = predict_windows([reading.roots], lr or 0.0, per_epoch, request.epochs)
    if request.out is not None:
        timing = None if windows is None else (windows, request.epochs or 0.0, per_epoch or 0.0)
        page = write_report(
            request.out, [reading], request.path.name, per_epoch, saved.notes, timing, lang=request.lang
        )
        if not as_json:
            console.print(Text(say("terminal.written", path=page)), soft_wrap=True)
    if as_json:
        print(json.dumps(_json(request.path, saved, reading, per_epoch, windows), allow_nan=False))
    else:
        _print(console, say, (saved, reading, windows), per_epoch)


def _json(
    path: Path, saved: Saved, reading: Reading, per_epoch: float | None, windows: Windows | None
) -> dict[str, Any]:
    """Return the figures as one object for programs."""
    total, *layers = dicts(reading, per_epoch)
    return {
        "schema": SCHEMA,
        "checkpoint": path.name,
        "step": reading.step,
        "steps_per_epoch": per_epoch,
        "notes": saved.notes,
        "total": total,
        "layers": layers,
        "windows": None if windows is None else asdict(windows),
    }


def _print(console: Console, say: Texts, found: tuple[Saved, Reading, Windows | None], per_epoch: float | None) -> None:
    """Print the table, then what it says about AdamW, then the windows and the notes."""
    saved, reading, windows = found
    console.print(table(dicts(reading, per_epoch), say, console.width))
    total = reading.total
    if total.rule == "l2" and total.equivalent is not None:
        paper = total.equivalent_independent
        shown = say("xray.unknown") if paper is None else f"{paper:.3g}"
        console.print(Text(say("terminal.equivalent", torch=f"{total.equivalent:.3g}", paper=shown)))
    if windows is not None:
        for name, window in (("AdamW", windows.adamw), (say("terminal.l2"), windows.l2)):
            console.print(Text(_sentence(name, window, windows.lr, say)))
    for note in saved.notes:
        console.print(Text(say("terminal.note", text=note)), soft_wrap=True)


def _sentence(name: str, window: Window, lr: float, say: Texts) -> str:
    """Return what to try first, and the rest of the window."""
    shown = {key: f"{value:.3g}" for key, value in asdict(window).items()}
    return say("terminal.window", optimizer=name, lr=f"{lr:g}", paper=f"{lr * window.central:.3g}", **shown)
