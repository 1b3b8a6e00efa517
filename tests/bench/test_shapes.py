from __future__ import annotations

from pathlib import Path

import pytest

from adamas.bench.scenario import SHAPES, Scenario, model_shapes, parse_shapes

MODEL = """
from dataclasses import dataclass
from torch import nn
import beside

@dataclass
class Sizes:
    width: int = beside.WIDTH

def make():
    model = nn.Sequential(nn.Linear(3, Sizes().width), nn.Linear(4, 2))
    model[1].bias.requires_grad_(False)
    return model

def frozen():
    return make().requires_grad_(False)

def breaks():
    raise RuntimeError("no data here")

def number():
    return 3

name = "make"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, as the current one."""
    (tmp_path / "own_model.py").write_text(MODEL)
    (tmp_path / "beside.py").write_text("WIDTH = 4\n")
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/nowhere", *__import__("sys").path])
    monkeypatch.setattr("sys.modules", dict(__import__("sys").modules))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("(3)", ((3,),)),
        ("2x(20,20) (16)", ((20, 20), (20, 20), (16,))),
        ("1x() 2x( 3 , 4 )", ((), (3, 4), (3, 4))),
        ("3x(2)(5)", ((2,), (2,), (2,), (5,))),
    ],
)
def test_shapes_are_read(text: str, shapes: tuple[tuple[int, ...], ...]) -> None:
    assert parse_shapes(text) == shapes


@pytest.mark.parametrize(
    ("text", "piece"), [("", "nothing"), ("2*(3)", "2*"), ("20,20", "20,20"), ("2x(3) x", "x"), ("(3,-1)", "(3,-1)")]
)
def test_other_text_is_refused(text: str, piece: str) -> None:
    with pytest.raises(ValueError, match="write count x") as found:
        parse_shapes(text)
    assert f"shapes={text!r}: {piece!r} is no shape" in str(found.value)


def test_named_shapes_are_as_large_as_they_say() -> None:
    sizes = [Scenario(name, parse_shapes(text)).parameters for name, text in SHAPES.items()]
    assert sizes == [9_984, 599_040, 9_474_048, 16 * 2**20]


@pytest.mark.parametrize("where", ["own_model.py:make", "own_model:make", "./own_model.py:make"])
def test_a_model_gives_its_trainable_shapes(folder: Path, where: str) -> None:
    assert model_shapes(where) == ((4, 3), (4,), (2, 4))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("own_model.py", "must name a file or module and a function"),
        (":make", "must name a file or module and a function"),
        ("absent.py:make", "there is no file absent.py"),
        ("absent_module:make", "importing absent_module raised ModuleNotFoundError"),
        ("broken.py:make", "No module named 'no_such_package'"),
        ("own_model.py:other", "own_model.py has no function 'other'"),
        ("own_model.py:name", "own_model.py has no function 'name'"),
        ("own_model.py:number", "number() returned a int; it must return an nn.Module"),
        ("own_model.py:breaks", "breaks() raised RuntimeError: no data here"),
        ("own_model.py:frozen", "the model has no trainable parameter"),
    ],
)
def test_a_model_that_is_none_is_refused(folder: Path, where: str, message: str) -> None:
    with pytest.raises(ValueError, match="model=") as found:
        model_shapes(where)
    assert message in str(found.value)


def test_nothing_to_step_is_refused() -> None:
    with pytest.raises(ValueError, match="hold no parameter"):
        Scenario("empty", ((0, 3),))
    with pytest.raises(ValueError, match="dtype='int8' is not measured"):
        Scenario("odd", ((3,),), "int8")
