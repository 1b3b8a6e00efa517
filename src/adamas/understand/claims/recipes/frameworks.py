"""Claim 13: the frameworks have both optimizers, and in PyTorch they are two classes. Read from what is installed.

The sources of each installed framework are read and not imported: TensorFlow alone would take longer than all other
claims of the article.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from adamas.page.text import plain
from adamas.understand.claims.claim import Claim, Estimate, Say, Told, Verdict, exact


@dataclass(frozen=True)
class Place:
    """Where a framework has its optimizers: the public file that offers them, and the files that define them."""

    name: str
    package: str
    public: str
    adam: tuple[str, str]
    adamw: tuple[str, str]


FRAMEWORKS = (
    Place("PyTorch", "torch", "optim/__init__.py", ("optim/adam.py", "Adam"), ("optim/adamw.py", "AdamW")),
    Place(
        "Keras / TensorFlow", "keras", "optimizers/__init__.py",
        ("src/optimizers/adam.py", "Adam"), ("src/optimizers/adamw.py", "AdamW"),
    ),
    Place("optax / JAX", "optax", "__init__.py", ("_src/alias.py", "adam"), ("_src/alias.py", "adamw")),
)  # fmt: skip


@dataclass(frozen=True)
class Read:
    """What was read from one framework: nothing but a reason where it is not installed or cannot be read."""

    name: str
    version: str
    both: bool
    defaults: tuple[float | None, float | None]
    missing: str = ""


@dataclass(frozen=True)
class Frameworks:
    """What was read from all frameworks."""

    frameworks: tuple[Read, ...]

    @property
    def checked(self) -> list[Read]:
        """The frameworks that are installed."""
        return [each for each in self.frameworks if not each.missing]

    @property
    def figure(self) -> Estimate:
        """The number of installed frameworks that have both optimizers."""
        return exact(sum(each.both for each in self.checked))


def measure(frameworks: Sequence[Place] = FRAMEWORKS) -> Frameworks:
    """Read both optimizers of each framework.

    Args:
        frameworks: Where each framework has its optimizers.
    """
    return Frameworks(tuple(_read(each) for each in frameworks))


def _read(place: Place) -> Read:
    """Return what the sources of a framework say."""
    found = find_spec(place.package)
    try:
        number = version(place.package)
    except PackageNotFoundError:
        number = ""
    if found is None or found.origin is None or not number:
        return Read(place.name, "", False, (None, None), "not installed")
    folder = Path(found.origin).parent
    try:
        offered = {
            name.id if isinstance(name, ast.Name) else name.asname or name.name
            for name in ast.walk(ast.parse((folder / place.public).read_text(encoding="utf-8")))
            if isinstance(name, ast.alias | ast.Name)
        }
        has_adam, adam = _definition(folder, *place.adam)
        has_adamw, adamw = _definition(folder, *place.adamw)
    except (OSError, SyntaxError) as error:
        return Read(place.name, number, False, (None, None), f"{number} cannot be read: {error}")
    both_offered = has_adam and has_adamw and {place.adam[1], place.adamw[1]} <= offered
    return Read(place.name, number, both_offered, (adam, adamw))


def _definition(folder: Path, file: str, name: str) -> tuple[bool, float | None]:
    """Return whether a file defines a class or function, and the default of its `weight_decay`, if it is a number."""
    for node in ast.parse((folder / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return True, _default(node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            makers = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
            return True, _default(makers[0]) if makers else None
    return False, None


def _default(function: ast.FunctionDef) -> float | None:
    """Return the default of the argument `weight_decay`, or None if there is none or it is no number."""
    arguments = function.args
    placed = arguments.posonlyargs + arguments.args
    pairs = [
        *zip(placed[len(placed) - len(arguments.defaults) :], arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in pairs:
        if argument.arg == "weight_decay" and isinstance(default, ast.Constant):
            return float(default.value) if isinstance(default.value, int | float) else None
    return None


def judge(found: Frameworks) -> Verdict:
    """Return "holds" if PyTorch and every other installed framework have both; one framework is too few."""
    if not any(each.both and each.name == "PyTorch" for each in found.checked):
        return "does_not_hold"
    return "holds" if len(found.checked) > 1 and all(each.both for each in found.checked) else "conditional"


def tell(found: Frameworks, say: Say) -> Told:
    """Say what each framework has."""
    parts: list[str] = []
    for each in found.frameworks:
        if each.missing:
            parts.append(say(f"{each.name}: {each.missing}", f"{each.name}:{each.missing}"))
            continue
        adam, adamw = ("-" if default is None else f"{default:g}" for default in each.defaults)
        have = say("both", "两者都有") if each.both else say("not both", "缺少其一")
        parts.append(f"{each.name} {each.version}: {have}, weight_decay {adam} / {adamw}")
    names = [plain(each.name) for each in found.frameworks]
    bar = {
        "type": "bar",
        "x": [each.defaults[1] for each in found.frameworks],
        "y": names,
        "orientation": "h",
        "marker": {"color": "var(--line-0)"},
        "hovertemplate": "%{x}<extra></extra>",
    }
    title = say("AdamW's default weight decay", "AdamW 默认的权重衰减")
    return Told(
        say(
            f"{'; '.join(parts)} (defaults of Adam / AdamW; - is none). A default differs by the framework.",
            f"{';'.join(parts)}(Adam / AdamW 的默认值；- 表示没有)。默认值因框架而异。",
        ),
        say("Do the frameworks have both, and with which default?", "各框架都有两者吗？默认值是多少？"),
        {"data": [bar], "layout": {"height": 260, "margin": {"l": 150, "r": 12, "t": 12, "b": 48}, "showlegend": False,
                                   "xaxis": {"title": {"text": plain(title)}, "type": "log"}}},
        say("A framework without a bar is not installed, or has no default.", "没有条形的框架未安装，或没有默认值。"),
    )  # fmt: skip


CLAIM = Claim(
    number=13,
    source="the article",
    article_zh="几乎所有主流的深度学习框架(如 PyTorch 和 TensorFlow)都提供了 AdamW 的实现。例如,在 PyTorch "
    "中,torch.optim.Adam 和 torch.optim.AdamW 是两个不同的类。",
    article_en="Almost all major deep learning frameworks (such as PyTorch and TensorFlow) provide an "
    "implementation of AdamW. In PyTorch, for example, torch.optim.Adam and torch.optim.AdamW are two different "
    "classes.",
    figure_en="installed frameworks that have both",
    figure_zh="两者都有的已安装框架数",
    measure=measure,
    judge=judge,
    tell=tell,
    rule_en="Holds if PyTorch and every other installed framework have both; conditional if one lacks AdamW, or if "
    "PyTorch alone is installed.",
    rule_zh="PyTorch 和其他已安装的框架都有两者则成立；有框架缺少 AdamW 或只装了 PyTorch 则有条件成立。",
)
