"""A made-up language: a small grammar, a fixed seed, and a text of any length.

A model can learn the spelling of words, that a verb agrees with its subject, and that an answer repeats its question.
With time it can also learn the pronoun and the town of each of 120 people, which never change. The choice of words is
random: a model can only memorise it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

_SEED = 20170604

_NOUNS = (
    "crow", "miller", "lantern", "river", "sailor", "goat", "kettle", "baker", "orchard", "wagon", "hound", "tailor",
    "mountain", "drum", "weaver", "candle", "beetle", "farmer", "bridge", "pigeon", "clock", "potter", "badger",
    "garden", "singer", "barrel", "willow", "porter", "anchor", "lizard",
)  # fmt: skip
_VERBS = (
    "sleep", "wander", "sing", "fall", "listen", "burn", "wait", "turn", "laugh", "sink", "tremble", "work", "dream",
    "return", "stumble", "shine", "grow", "complain", "vanish", "dance",
)  # fmt: skip
_ADJECTIVES = (
    "old", "quiet", "crooked", "green", "hungry", "pale", "clever", "heavy", "lost", "golden", "slow", "narrow",
    "bitter", "merry", "dusty", "humble",
)  # fmt: skip
_PLACES = ("by the mill", "at dawn", "in the snow", "under the oak", "near the sea", "after dark", "on the hill")
_NUMBERS = ("two", "three", "four")
_ONSETS, _VOWELS, _CODAS = "bdfgjklmnprstvz", "aeiou", ("", "", "l", "n", "r", "s", "m")
_PEOPLE, _TOWNS = 120, 40

T = TypeVar("T")


def _third_person(verb: str) -> str:
    """Return the form of a verb of the list that goes with "he", "she" and "it".

    Example:
        >>> _third_person("sing"), _third_person("vanish")
        ('sings', 'vanishes')
    """
    return verb + ("es" if verb.endswith("sh") else "s")


@dataclass(frozen=True)
class Person:
    """A person with a name, a pronoun and a town that never change."""

    name: str
    pronoun: str
    town: str


def _invented_name(random: Random) -> str:
    """Return a made-up name of two syllables."""
    return "".join(random.choice(_ONSETS) + random.choice(_VOWELS) + random.choice(_CODAS) for _ in range(2))


def _population(random: Random) -> list[Person]:
    """Return all people of the language."""
    towns = [_invented_name(random) for _ in range(_TOWNS)]
    return [Person(_invented_name(random), random.choice(("he", "she")), random.choice(towns)) for _ in range(_PEOPLE)]


class Speaker:
    """Draws one sentence after another from its random numbers."""

    def __init__(self) -> None:
        self.random = Random(_SEED)
        self.people = _population(self.random)

    def _one_of(self, choices: Sequence[T]) -> T:
        """Draw the n-th choice with weight 1/(n + 4): like the words of a language, a few of them are common."""
        return self.random.choices(choices, [1 / (rank + 5) for rank in range(len(choices))])[0]

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.random.random() < probability

    def _statement(self) -> str:
        """Return a sentence like "the old crow sings at dawn": the verb agrees with the noun."""
        adjective = f"{self._one_of(_ADJECTIVES)} " if self.chance(0.5) else ""
        noun, verb = self._one_of(_NOUNS), self._one_of(_VERBS)
        clause = f"{noun} {_third_person(verb)}" if self.chance(0.5) else f"{noun}s {verb}"
        place = f" {self._one_of(_PLACES)}" if self.chance(0.4) else ""
        return f"the {adjective}{clause}{place}."

    def _anecdote(self) -> str:
        """Return a sentence like "Oda waits, then she sings": the pronoun belongs to the person."""
        person = self._one_of(self.people)
        first, then = (_third_person(self._one_of(_VERBS)) for _ in range(2))
        return f"{person.name} {first}, then {person.pronoun} {then}."

    def _origin(self) -> str:
        """Return a sentence like "Oda of Tessan waits": the town belongs to the person."""
        person = self._one_of(self.people)
        return f"{person.name} of {person.town} {_third_person(self._one_of(_VERBS))}."

    def _echo(self) -> str:
        """Return a pair like "do goats dream? goats dream": the answer repeats the question."""
        noun, verb = self._one_of(_NOUNS), self._one_of(_VERBS)
        if self.chance(0.5):
            return f"do {noun}s {verb}? {noun}s {verb}."
        name = self._one_of(self.people).name
        return f"does {name} {verb}? {name} {_third_person(verb)}."

    def _count(self) -> str:
        """Return a sentence like "one drum, two drums, three drums": the noun repeats, its number changes."""
        noun, last = self._one_of(_NOUNS), self.random.choice((2, 3, 4))
        return f"one {noun}, {', '.join(f'{number} {noun}s' for number in _NUMBERS[: last - 1])}."

    def sentence(self) -> str:
        """Draw a sentence of one of the five kinds."""
        kinds = (self._statement, self._anecdote, self._origin, self._echo, self._count)
        return self.random.choices(kinds, (3, 3, 2, 2, 1))[0]()


def write(length: int) -> str:
    """Return the first `length` characters of the text, which is always the same.

    Example:
        >>> write(12) == write(100)[:12]
        True
    """
    speaker = Speaker()
    sentences: list[str] = []
    written = 0
    while written < length:
        sentences.append(speaker.sentence() + ("\n" if speaker.chance(0.2) else " "))
        written += len(sentences[-1])
    return "".join(sentences)[:length]
