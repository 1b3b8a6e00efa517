"""A made-up language to read: a small grammar, a fixed seed, and as much text as is asked for.

A model can learn from it how words are spelt, that a verb agrees with its subject, and that an echo repeats what it
answers; with time also whether each of many people is a he or a she and which town is theirs, for that never changes.
What it cannot learn, only memorise, is which words were drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

SEED = 20170604

NOUNS = (
    "crow", "miller", "lantern", "river", "sailor", "goat", "kettle", "baker", "orchard", "wagon", "hound", "tailor",
    "mountain", "drum", "weaver", "candle", "beetle", "farmer", "bridge", "pigeon", "clock", "potter", "badger",
    "garden", "singer", "barrel", "willow", "porter", "anchor", "lizard",
)  # fmt: skip
VERBS = (
    "sleep", "wander", "sing", "fall", "listen", "burn", "wait", "turn", "laugh", "sink", "tremble", "work", "dream",
    "return", "stumble", "shine", "grow", "complain", "vanish", "dance",
)  # fmt: skip
ADJECTIVES = (
    "old", "quiet", "crooked", "green", "hungry", "pale", "clever", "heavy", "lost", "golden", "slow", "narrow",
    "bitter", "merry", "dusty", "humble",
)  # fmt: skip
PLACES = ("by the mill", "at dawn", "in the snow", "under the oak", "near the sea", "after dark", "on the hill")
NUMBERS = ("two", "three", "four")
ONSETS, VOWELS, CODAS = "bdfgjklmnprstvz", "aeiou", ("", "", "l", "n", "r", "s", "m")
PEOPLE, TOWNS = 120, 40

T = TypeVar("T")


def plural(noun: str) -> str:
    """The plural of a noun in the list."""
    return noun + "s"


def third_person(verb: str) -> str:
    """The form of a verb in the list that goes with he, she and it.

    Example:
        >>> third_person("sing"), third_person("vanish")
        ('sings', 'vanishes')
    """
    return verb + ("es" if verb.endswith("sh") else "s")


@dataclass(frozen=True)
class Person:
    """Somebody to speak of, always in the same way."""

    name: str
    pronoun: str
    town: str


def invented(random: Random, syllables: int) -> str:
    """A name nobody has."""
    return "".join(random.choice(ONSETS) + random.choice(VOWELS) + random.choice(CODAS) for _ in range(syllables))


def population(random: Random) -> list[Person]:
    """Everybody there is."""
    towns = [invented(random, 2) for _ in range(TOWNS)]
    return [Person(invented(random, 2), random.choice(("he", "she")), random.choice(towns)) for _ in range(PEOPLE)]


class Speaker:
    """Says one sentence after another, drawn from its random stream."""

    def __init__(self) -> None:
        self.random = Random(SEED)
        self.people = population(self.random)

    def one_of(self, choices: Sequence[T]) -> T:
        """One of them, the first ones more often: the n-th with weight 1/(n + 4), as common words are."""
        return self.random.choices(choices, [1 / (rank + 5) for rank in range(len(choices))])[0]

    def chance(self, probability: float) -> bool:
        """True that often."""
        return self.random.random() < probability

    def statement(self) -> str:
        """The old crow sings at dawn: the verb agrees with the noun."""
        adjective = f"{self.one_of(ADJECTIVES)} " if self.chance(0.5) else ""
        noun, verb = self.one_of(NOUNS), self.one_of(VERBS)
        clause = f"{noun} {third_person(verb)}" if self.chance(0.5) else f"{plural(noun)} {verb}"
        place = f" {self.one_of(PLACES)}" if self.chance(0.4) else ""
        return f"the {adjective}{clause}{place}."

    def anecdote(self) -> str:
        """Oda waits, then she sings: the pronoun is the person's."""
        who = self.one_of(self.people)
        first, then = (third_person(self.one_of(VERBS)) for _ in range(2))
        return f"{who.name} {first}, then {who.pronoun} {then}."

    def origin(self) -> str:
        """Oda of Tessan waits: the town is the person's."""
        who = self.one_of(self.people)
        return f"{who.name} of {who.town} {third_person(self.one_of(VERBS))}."

    def echo(self) -> str:
        """Do goats dream? goats dream: the answer repeats the question."""
        noun, verb = self.one_of(NOUNS), self.one_of(VERBS)
        if self.chance(0.5):
            return f"do {plural(noun)} {verb}? {plural(noun)} {verb}."
        name = self.one_of(self.people).name
        return f"does {name} {verb}? {name} {third_person(verb)}."

    def count(self) -> str:
        """One drum, two drums, three drums: the noun repeats, its number changes."""
        noun, last = self.one_of(NOUNS), self.random.choice((2, 3, 4))
        return f"one {noun}, {', '.join(f'{number} {plural(noun)}' for number in NUMBERS[: last - 1])}."

    def sentence(self) -> str:
        """One of the above."""
        kinds = (self.statement, self.anecdote, self.origin, self.echo, self.count)
        return self.random.choices(kinds, (3, 3, 2, 2, 1))[0]()


def write(length: int) -> str:
    """The first `length` characters of the text: the same ones always.

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
