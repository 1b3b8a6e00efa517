"""Small turns of the page's text."""

from __future__ import annotations

from collections.abc import Sequence

STOPPED = "stopped half-way"  # a run that fitted the training data no better than untrained weights


def unbroken(text: str) -> str:
    """A sentence that starts with a capital and does not break between a number and its unit."""
    return (text[0].upper() + text[1:]).replace(" %", "\N{NO-BREAK SPACE}%")


def wrapped(title: str) -> str:
    """A category label on as many lines as it has parts.

    Example:
        >>> wrapped("Adam with L2"), wrapped("torch.optim.SGD(momentum=0.9, nesterov=True)")
        ('Adam<br>with L2', 'torch.optim<br>.SGD<br>(momentum=0.9,<br>nesterov=True)')
    """
    name, bracket, options = title.replace(" with", "<br>with").partition("(")
    if "." in name:
        name = "<br>.".join(name.rsplit(".", 1))
    return name + (f"<br>({options.replace(', ', ',<br>')}" if bracket else "")


def enumerate_words(parts: Sequence[str]) -> str:
    """A list as a sentence has it.

    Example:
        >>> enumerate_words(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "run"), plural(2, "run")
        ('1 run', '2 runs')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"
