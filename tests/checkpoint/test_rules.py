"""Rules: names, and the order of axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adamas.checkpoint import CheckpointError, Rules
from adamas.checkpoint.rules import Transform


def transform(text: str, **sizes: int) -> Transform:
    return Transform.parse(text, sizes)


def test_each_transform_moves_the_axes_it_names() -> None:
    random = np.random.default_rng(0)
    linear = random.random((3, 4))
    assert np.array_equal(transform("transpose").apply(linear), linear.T)
    for text, order in [("OIW->WIO", (2, 1, 0)), ("OIHW->HWIO", (2, 3, 1, 0)), ("OIDHW->DHWIO", (2, 3, 4, 1, 0))]:
        kernel = random.random(tuple(range(2, 2 + len(order))))
        assert np.array_equal(transform(text).apply(kernel), kernel.transpose(order))
        assert np.array_equal(transform(text).reverse().apply(kernel.transpose(order)), kernel)


def test_a_layer_after_a_flatten_takes_the_same_features() -> None:
    random = np.random.default_rng(0)
    image, weight = random.random((5, 2, 3, 4)), random.random((7, 24))  # (N, C, H, W), (O, CHW)
    kernel = transform("O(CHW)->(HWC)O", C=2, H=3, W=4).apply(weight)
    assert np.allclose(image.reshape(5, -1) @ weight.T, image.transpose(0, 2, 3, 1).reshape(5, -1) @ kernel)
    assert np.array_equal(transform("O(CHW)->(HWC)O", C=2, H=3).apply(weight), kernel)  # one size follows
    assert np.array_equal(transform("O(I)->(I)O").apply(weight), weight.T)


@given(st.permutations("ABCD"), st.lists(st.integers(1, 4), min_size=4, max_size=4), st.booleans(), st.booleans())
def test_the_reverse_undoes_a_transform(after: list[str], sizes: list[int], before_joined: bool, joined: bool) -> None:
    before = "(AB)CD" if before_joined else "ABCD"
    target = "".join(after[:1]) + "(" + "".join(after[1:]) + ")" if joined else "".join(after)
    named = dict(zip("ABCD", sizes, strict=True))
    shape = (sizes[0] * sizes[1], *sizes[2:]) if before_joined else tuple(sizes)
    array = np.random.default_rng(0).random(shape)
    forward = transform(f"{before}->{target}", **named)
    assert np.array_equal(forward.reverse().apply(forward.apply(array)), array)


@pytest.mark.parametrize(
    ("text", "sizes", "shape", "message"),
    [
        ("OI->IO", {}, (2, 3, 4), "does not fit the shape"),
        ("OI->IO", {}, (), "does not fit the shape"),
        ("O(CHW)->(HWC)O", {"C": 2, "H": 3, "W": 5}, (7, 24), "with sizes"),
        ("O(CHW)->(HWC)O", {"C": 5, "H": 3}, (7, 24), "does not fit the shape"),
        ("O(CHW)->(HWC)O", {"C": 2}, (7, 24), "the sizes of H and W are not given"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    text: str, sizes: dict[str, int], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        transform(text, **sizes).apply(np.zeros(shape))


@pytest.mark.parametrize("text", ["OI->OJ", "OO->OO", "OI", "oi->io", "O(I->IO", "->", "O((I))->IO", "conv", 3, None])
def test_what_is_no_transform_is_refused(text: Any) -> None:
    with pytest.raises(CheckpointError, match="must be 'same', 'transpose', or the axes"):
        Transform.parse(text, {})


@pytest.mark.parametrize("sizes", [{"X": 2}, {"C": 0}, {"C": "2"}, {"C": True}, [2], "C"])
def test_what_is_no_size_is_refused(sizes: Any) -> None:
    with pytest.raises(CheckpointError, match="must map its letters to sizes > 0"):
        Transform.parse("O(CHW)->(HWC)O", sizes)


def test_the_first_rule_for_a_name_decides() -> None:
    rules = Rules.read(
        {"blocks.*.fc*.weight": ["blocks_*/fc_*/kernel", "transpose"], "*.bias": "*/bias", "old.*": None}
    )
    found = {
        name: rules.find(name) for name in ("blocks.3.fc1.weight", "blocks.3.fc1.bias", "old.x", "old.bias", "new")
    }
    assert {name: each and each[1] for name, each in found.items()} == {
        "blocks.3.fc1.weight": "blocks_3/fc_1/kernel",
        "blocks.3.fc1.bias": "blocks.3.fc1/bias",
        "old.x": "",
        "old.bias": "old/bias",
        "new": None,
    }
    back = rules.reverse()
    there = back.find("blocks_3/fc_1/kernel")
    assert there is not None
    assert there[1] == "blocks.3.fc1.weight"
    assert len(back.rules) == 2


def test_characters_of_names_are_no_patterns() -> None:
    rules = Rules.read({"a.b": "x", "[0]+": "y"})
    assert rules.find("a_b") is None
    assert rules.find("[0]+") is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "is not JSON"),
        ("[]", "must hold one JSON object"),
        ('{"a": "b", "a": "c"}', "two rules for 'a'"),
        ('{"a": 3}', "must be a name"),
        ('{"a": []}', "must be a name"),
        ('{"a": ["b", "same", {}, 4]}', "must be a name"),
        ('{"*.a": "b"}', "must have as many"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rules.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        Rules.read(tmp_path / "rules.json")
