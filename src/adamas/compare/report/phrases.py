"""Small turns of the page's text."""

from __future__ import annotations

STOPPED = "stopped half-way"  # a run that fitted the training data no better than untrained weights


def unbroken(text: str) -> str:
    """A sentence that starts with a capital and does not break between a number and its unit.

    The name of a module keeps its small letter.

    Example:
        >>> unbroken("one run diverged."), unbroken("torch.optim.SGD's best cell")
        ('One run diverged.', "torch.optim.SGD's best cell")
    """
    is_module = "." in text.split()[0].rstrip(".")
    return (text if is_module else text[0].upper() + text[1:]).replace(" %", "\N{NO-BREAK SPACE}%")


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


def plural(count: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> plural(1, "process"), plural(2, "process"), plural(2, "run")
        ('1 process', '2 processes', '2 runs')
    """
    ending = "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{'' if count == 1 else ending}"
