"""`adamas decay`: the published rules against their formulas, written out here again."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from typer.testing import CliRunner

from adamas.cli import app

CLASSIFIER = ("--lr", 1e-3, "--batch", 128, "--examples", 50_000, "--epochs", 100)
LANGUAGE = ("--lr", 3e-4, "--batch", 256, "--sequence", 2048, "--tokens", 2e9, "--parameters", 1e8)


def rules(*arguments: Any) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(app, ["decay", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    return {each["rule"]: each for each in json.loads(result.stdout)["rules"]}


def test_rules_for_a_classifier() -> None:
    found = rules(*CLASSIFIER)
    steps = 50_000 / 128
    assert found["EMA timescale"]["high"] == pytest.approx(1 / (1e-3 * steps))  # one epoch
    assert found["EMA timescale"]["low"] == pytest.approx(1 / (1e-3 * steps * 100))  # the whole run
    assert found["EMA timescale"]["longest"] == pytest.approx(100)
    # lambda = lambda_norm sqrt(b / (B T)), appendix B.1 of 1711.05101, in the paper's convention.
    assert found["normalized decay"]["low_paper"] == pytest.approx(0.025 * math.sqrt(128 / (50_000 * 100)))
    assert found["normalized decay"]["high_paper"] == pytest.approx(0.05 * math.sqrt(128 / (50_000 * 100)))
    assert found["Power Lines"]["low"] is None
    assert "--parameters" in found["Power Lines"]["note"]
    for rule in found.values():
        if rule["low"] is not None:
            assert rule["low_paper"] == pytest.approx(1e-3 * rule["low"])
            assert rule["shortest"] == pytest.approx(1 / (1e-3 * rule["high"] * steps))


def test_rules_for_a_language_model() -> None:
    found = rules(*LANGUAGE)
    batch, tokens, parameters = 256 * 2048, 2e9, 1e8
    tau = 1.084 * (tokens / parameters) ** -0.527
    assert found["Power Lines"]["low"] == pytest.approx(batch / (3e-4 * tau * tokens))
    assert found["30 times the usual"]["low"] is None
    assert rules(*LANGUAGE, "--epochs", 8)["30 times the usual"]["low"] == 3.0
    assert rules(*LANGUAGE, "--batch", batch)["Power Lines"]["low"] > found["Power Lines"]["low"]


def test_defaults_are_those_of_the_installed_frameworks() -> None:
    import inspect

    import torch

    found = rules(*CLASSIFIER)
    assert found["torch's default"]["low"] == inspect.signature(torch.optim.AdamW).parameters["weight_decay"].default
    optax = pytest.importorskip("optax")
    assert found["optax's default"]["low"] == inspect.signature(optax.adamw).parameters["weight_decay"].default


@pytest.mark.parametrize(
    "arguments",
    [
        ("--lr", 1e-3, "--batch", 8), (*CLASSIFIER, "--tokens", 5), (*CLASSIFIER, "--sequence", 5),
        ("--lr", 0, *CLASSIFIER[2:]), (*CLASSIFIER[:2], "--batch", 0, "--examples", 9), (*CLASSIFIER, "--epochs", -1),
        ("--lr", "nan", *CLASSIFIER[2:]), (*LANGUAGE, "--parameters", 0),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_numbers_are_refused(arguments: tuple[Any, ...]) -> None:
    result = CliRunner().invoke(app, ["decay", *map(str, arguments)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_the_table_says_how_far_rules_are_apart() -> None:
    result = CliRunner().invoke(app, ["decay", *map(str, CLASSIFIER)], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "The rules differ by a factor of" in result.stdout
    assert "arXiv 1711.05101" in result.stdout
