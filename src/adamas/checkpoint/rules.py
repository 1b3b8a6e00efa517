"""Rules for names and shapes: what a tensor of one framework is called in another, and how its axes move."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from adamas.checkpoint.contents import Array, CheckpointError

SAME = "same"
SHORT = {"transpose": "OI->IO"}
_GROUPS = re.compile(r"\(([A-Z]+)\)|([A-Z])")


class Transform(NamedTuple):
    """A change of axes: "same", or letters for the axes before and after, as in "OIHW->HWIO" or "O(CHW)->(HWC)O".

    Letters in parentheses are axes that are joined in one. Their sizes must be given, except for one of them.
    """

    text: str = SAME
    sizes: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(cls, text: Any, sizes: Any) -> Transform:
        """Check the words of a rule, and return the transform.

        Raises:
            CheckpointError: the text is no transform, or the sizes are not those of its axes.
        """
        text = SHORT.get(text, text)
        if text == SAME and not sizes:
            return cls()
        sides = [_parts(side) for side in str(text).split("->")]
        letters = [sorted("".join(side or [])) for side in sides]
        if len(sides) != 2 or not letters[0] or letters[0] != letters[1] or len(set(letters[0])) < len(letters[0]):
            raise CheckpointError(
                f"transform {text!r} must be 'same', 'transpose', or the axes before and after, a capital letter each, "
                "as in 'OIHW->HWIO' or 'O(CHW)->(HWC)O'"
            )
        if not isinstance(sizes, Mapping) or not all(
            key in letters[0] and isinstance(size, int) and not isinstance(size, bool) and size > 0
            for key, size in sizes.items()
        ):
            raise CheckpointError(
                f'sizes {sizes!r} of {text!r} must map its letters to sizes > 0, as in {{"C": 8, "H": 4, "W": 4}}'
            )
        return cls(text, tuple(sizes.items()))

    @property
    def joins(self) -> bool:
        """Whether an axis is several axes joined, as after a flatten."""
        return "(" in self.text

    @property
    def parts(self) -> list[list[str]]:
        """The axes before and after, each with its letters; nothing for "same"."""
        return [] if self.text == SAME else [_parts(side) or [] for side in self.text.split("->")]

    def reverse(self) -> Transform:
        """Return the transform that undoes this one."""
        return self if self.text == SAME else Transform("->".join(reversed(self.text.split("->"))), self.sizes)

    def apply(self, array: Array) -> Array:
        """Return the array with its axes changed.

        Raises:
            CheckpointError: the array does not have the axes of the transform.
        """
        if self.text == SAME:
            return array
        before, after = (_parts(side) or [] for side in self.text.split("->"))
        sizes = self._sizes(before, array.shape)
        letters = "".join(before)
        split = array.reshape([sizes[letter] for letter in letters])
        moved = split.transpose([letters.index(letter) for letter in "".join(after)])
        return moved.reshape([prod(sizes[letter] for letter in part) for part in after])

    def _sizes(self, parts: list[str], shape: tuple[int, ...]) -> dict[str, int]:
        """Return the size of each axis for an array of this shape."""
        sizes = dict(self.sizes)
        fits = len(parts) == len(shape)
        for part, size in zip(parts, shape, strict=False):
            unknown = [letter for letter in part if letter not in sizes]
            known = prod(sizes[letter] for letter in part if letter in sizes)
            if len(unknown) > 1:
                raise CheckpointError(
                    f"{self.text!r} joins {part}, and the sizes of {' and '.join(unknown)} are not given: add "
                    f'{{"{unknown[0]}": ...}} to the rule'
                )
            if unknown:
                sizes[unknown[0]] = size // known
            fits = fits and prod(sizes[letter] for letter in part) == size
        if not fits:
            given = f" with sizes {dict(self.sizes)}" if self.sizes else ""
            raise CheckpointError(f"{self.text!r}{given} does not fit the shape {shape}: correct the rule")
        return sizes


def _parts(side: str) -> list[str] | None:
    """Return the axes of one side, each with the letters that are joined in it; None for anything else."""
    found = list(_GROUPS.finditer(side))
    return (
        [a or b for a, b in (each.groups() for each in found)]
        if "".join(map(str, (f[0] for f in found))) == side
        else None
    )


class Rule(NamedTuple):
    """What becomes of the tensors with a name, or with names that a pattern describes."""

    pattern: str  # a name, with * for any characters
    target: str | None  # the new name, with as many *; None leaves the parameter out
    transform: Transform

    def match(self, name: str) -> str | None:
        """Return the new name of a parameter, an empty one to leave it out, or None where the rule does not apply."""
        found = re.fullmatch("(.+)".join(map(re.escape, self.pattern.split("*"))), name)
        if found is None:
            return None
        parts = (self.target or "").split("*")
        return "".join(part + star for part, star in zip(parts, (*found.groups()[: len(parts) - 1], ""), strict=True))


class Rules(NamedTuple):
    """Rules in the order in which they are tried; the first that matches a name decides."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def read(cls, given: Rules | Mapping[str, Any] | str | os.PathLike[str] | None) -> Rules:
        """Return rules from a JSON file or a mapping.

        A value is a name, `[name, transform]`, `[name, transform, sizes]`, or None, which leaves the parameter out.

        Raises:
            CheckpointError: a rule cannot be understood.
        """
        if given is None:
            return cls()
        if isinstance(given, Rules):
            return given
        if not isinstance(given, Mapping):
            given = _read_json(Path(given))
        return cls(tuple(_rule(pattern, value) for pattern, value in given.items()))

    def find(self, name: str) -> tuple[Rule, str] | None:
        """Return the first rule for a name, and the new name; None where no rule is for it."""
        for rule in self.rules:
            target = rule.match(name)
            if target is not None:
                return rule, target
        return None

    def reverse(self) -> Rules:
        """Return the rules for the opposite direction. A rule that leaves a parameter out has none, and is dropped."""
        kept = (rule for rule in self.rules if rule.target is not None)
        return Rules(tuple(Rule(str(rule.target), rule.pattern, rule.transform.reverse()) for rule in kept))


def _rule(pattern: str, value: Any) -> Rule:
    """Return the rule that one line of a rules file gives."""
    words: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not 1 <= len(words) <= 3 or not ((isinstance(words[0], str) and words[0]) or value is None):
        raise CheckpointError(
            f"the rule of {pattern!r} is {value!r}: it must be a name, [name, transform], [name, transform, sizes] or "
            "null, which leaves the parameter out"
        )
    target, text, sizes = words[0], SAME if len(words) == 1 else words[1], words[2] if len(words) == 3 else {}
    if target is not None and pattern.count("*") != target.count("*"):
        raise CheckpointError(f"the rule {pattern!r} -> {target!r} must have as many * on both sides")
    return Rule(pattern, target, Transform.parse(text, sizes))


def _read_json(path: Path) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise CheckpointError(f"{path} has two rules for {double!r}: keep one")
        return dict(pairs)

    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold one JSON object of rules, as in {{'0.weight': ['out', 'transpose']}}")
    return found
