"""What a conversion does, what it refuses and with which reason, and the command that prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from adamas.checkpoint import CheckpointError, Rules, convert, file
from adamas.checkpoint.contents import Checkpoint, Entry, Framework, Group
from adamas.checkpoint.conversion import converted
from adamas.cli import app

LINEAR = {"a.weight": (4, 4), "a.bias": (4,)}


def example(
    shapes: dict[str, tuple[int, ...]] = LINEAR,
    layout: Framework = "torch",
    steps: tuple[int, ...] = (3,),
    amsgrad: Any = None,
    **hyper: Any,
) -> Checkpoint:
    random, entries = np.random.default_rng(0), dict[str, Entry]()
    keys = ("param", "exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) if amsgrad else ()))
    for number, (name, shape) in enumerate(shapes.items()):
        arrays = {key: random.random(shape, np.float32) for key in keys}
        entries[name] = Entry(steps[number % len(steps)], shape, arrays)
    group = Group(list(entries), {"lr": 0.1, "decay": "lr", **hyper})
    return Checkpoint(layout, "AdamW", "hat" if layout == "keras" else "alg1", amsgrad, entries, [group])


def refusals(checkpoint: Checkpoint, to: Framework, rules: Any = None) -> str:
    return "\n".join(converted(checkpoint, to, Rules.read(rules), True)[1].all_refusals())


def test_one_rule_serves_weights_and_moments() -> None:
    before = example(amsgrad="raw")
    new, report = converted(before, "keras", Rules.read({"a.weight": ["d/kernel", "transpose"], "*.bias": "d/*"}), True)
    assert report.all_refusals() == []
    assert list(new.entries) == ["d/kernel", "d/a"]
    assert new.groups == [Group(["d/kernel", "d/a"], before.groups[0].hyper)]
    assert len(new.entries["d/kernel"].arrays) == 4
    for key, array in before.entries["a.weight"].arrays.items():
        assert np.array_equal(new.entries["d/kernel"].arrays[key], array.T)
    assert (new.layout, new.eps_mode, new.amsgrad) == ("keras", "alg1", "raw")


def test_a_square_matrix_without_a_rule_is_refused() -> None:
    for layout, to in [("torch", "keras"), ("torch", "jax"), ("jax", "keras"), ("keras", "torch"), ("numpy", "jax")]:
        found = refusals(example(layout=layout), to)  # pyright: ignore[reportArgumentType]
        assert "a.weight: a" in found
        assert "no rule tells" in found
        assert "a.bias" not in found
    assert refusals(example(), "torch") == ""


def test_a_layer_after_a_flatten_is_not_merely_transposed() -> None:
    shapes = {"conv.weight": (8, 3, 3, 3), "conv.bias": (8,), "fc.weight": (10, 72), "out.weight": (10, 80)}
    rules: dict[str, Any] = {"conv.weight": ["conv.weight", "OIHW->HWIO"], "*.weight": ["*.weight", "transpose"]}
    found = refusals(example(shapes), "keras", rules)
    assert found.startswith("fc.weight: its 72 inputs look like a flattened feature map of the 8 channels before it")
    assert '"O(CHW)->(HWC)O", {"C": 8, "H": ..., "W": ...}' in found
    assert "out.weight" not in found
    right = {"fc.weight": ["fc.weight", "O(CHW)->(HWC)O", {"C": 8, "H": 3, "W": 3}], **rules}
    assert refusals(example(shapes), "keras", right) == ""
    assert refusals(example(shapes), "keras", {"fc.weight": ["fc.weight", "O(I)->(I)O"], **rules}) == ""
    back, _ = converted(example(shapes), "keras", Rules.read(right), True)
    found = refusals(back, "torch", {"conv.weight": ["c", "HWIO->OIHW"], "*.weight": ["*.weight", "transpose"]})
    assert '"(HWC)O->O(CHW)"' in found
    assert refusals(back, "jax", {"*": ["*", "same"]}) == ""  # both have the order HWC
    again, report = converted(back, "torch", Rules.read(right).reverse(), True)
    assert report.all_refusals() == []
    assert np.array_equal(
        again.entries["fc.weight"].arrays["exp_avg"], example(shapes).entries["fc.weight"].arrays["exp_avg"]
    )


def test_after_a_global_pool_a_linear_layer_is_transposed() -> None:
    shapes = {"conv.weight": (8, 3, 3, 3), "fc.weight": (10, 8)}
    rules = {"conv.weight": ["conv.weight", "OIHW->HWIO"], "*.weight": ["*.weight", "transpose"]}
    assert refusals(example(shapes), "keras", rules) == ""


def test_two_parameters_with_one_new_name_are_refused() -> None:
    shapes = {"a.bias": (4,), "b.bias": (4,)}
    assert (
        refusals(example(shapes), "torch", {"a.bias": "b.bias"})
        == "b.bias: a.bias becomes 'b.bias' too: correct the rules"
    )


def test_a_rule_that_does_not_fit_is_refused() -> None:
    assert "'OIHW->HWIO' does not fit the shape (4, 4)" in refusals(
        example(), "keras", {"a.weight": ["k", "OIHW->HWIO"]}
    )


@pytest.mark.parametrize("to", ["jax", "keras"])
def test_different_steps_do_not_become_one_count(to: Framework) -> None:
    rules = Rules.read({"*": ["*", "same"]})
    before = example(steps=(3, 5))
    found = "\n".join(converted(before, to, rules, True)[1].all_refusals())
    assert f"different numbers of steps (3, 5; 'a.weight' 3), and {to} counts once for all: strict=False" in found
    with pytest.warns(UserWarning, match="5 is used for all"):
        new, report = converted(before, to, rules, False)
    assert {entry.step for entry in new.entries.values()} == {5}
    assert report.all_refusals() == []
    for own in ("torch", "numpy"):
        assert converted(before, own, rules, True)[0].entries["a.weight"].step == 3
    left_out = Rules.read({"a.bias": None, "*": ["*", "same"]})
    assert converted(before, to, left_out, True)[1].all_refusals() == []


def test_a_corrected_maximum_does_not_become_a_raw_one() -> None:
    rules = {"*": ["*", "same"]}
    for to in ("torch", "keras", "numpy"):
        found = refusals(example(layout="jax", amsgrad="corrected"), to, rules)  # pyright: ignore[reportArgumentType]
        assert found.startswith("amsgrad: the checkpoint has the maximum of bias-corrected second moments (optax)")
    assert refusals(example(layout="jax", amsgrad="raw"), "torch", rules) == ""
    assert refusals(example(layout="keras", amsgrad="raw"), "torch", rules) == ""


def test_the_notes_tell_what_means_something_else_there() -> None:
    rules = Rules.read({"*": ["*", "same"], "lost": "x"})

    def notes(checkpoint: Checkpoint, to: Framework) -> str:
        return "\n".join(converted(checkpoint, to, rules, True)[1].notes)

    assert "eps: torch, optax and Adamas add it to the bias-corrected root, keras.optimizers to" in notes(
        example(), "keras"
    )
    assert "eps" not in notes(example(), "jax")
    assert "decay: L2 in the gradient" in notes(example(decay="l2"), "keras")
    assert "options of Adamas only" in notes(example(decay="independent"), "jax")
    assert "amsgrad: the maximum is of raw moments" in notes(example(amsgrad="raw"), "jax")
    assert "the rule 'lost' is for no parameter" in notes(example(), "torch")
    unknown = example()
    del unknown.groups[0].hyper["lr"]
    assert "lr: it is not recorded" in notes(unknown, "keras")


def test_names_alone_change_within_a_framework() -> None:
    new, report = converted(example(steps=(3, 5)), "torch", Rules.read({"a.*": "b.*"}), True)
    assert list(new.entries) == ["b.weight", "b.bias"]
    assert report.notes == report.all_refusals() == []


def test_nothing_is_written_where_something_is_refused(tmp_path: Path) -> None:
    file.write(example(), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be converted:\n  a.weight: a torch tensor of shape \(4, 4\)"):
        convert(tmp_path / "x.safetensors", tmp_path / "y.safetensors", to="keras")
    report = convert(tmp_path / "x.safetensors", to="keras")
    assert [row.refusal is None for row in report.rows] == [False, True]
    with pytest.raises(CheckpointError, match="to='mlx' must be one of torch, jax, keras, numpy"):
        convert(tmp_path / "x.safetensors", to="mlx")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_checkpoint_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no parameter"):
        file.write(replace(example(), entries={}, groups=[]), tmp_path / "x.safetensors")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    file.write(example(), "x.safetensors")
    Path("rules.json").write_text(json.dumps({"a.weight": ["d/kernel", "transpose"], "a.bias": "d/bias"}))
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["convert", *arguments])
    return result.exit_code, result.output


def test_the_command_writes_the_new_file(folder: Path) -> None:
    code, output = run("x.safetensors", "y.safetensors", "--to", "keras", "--map", "rules.json")
    assert code == 0, output
    assert "written to y.safetensors" in output
    assert list(file.read("y.safetensors").entries) == ["d/kernel", "d/bias"]
    code, output = run("y.safetensors", "z.safetensors", "--to", "torch", "--map", "rules.json", "--reverse")
    assert code == 0, output
    there, back = file.read("x.safetensors").entries, file.read("z.safetensors").entries
    assert all(np.array_equal(there[n].arrays[key], back[n].arrays[key]) for n in there for key in there[n].arrays)


def test_a_dry_run_prints_what_would_become_of_each_parameter(folder: Path) -> None:
    code, output = run("x.safetensors", "--to", "keras", "--map", "rules.json", "--dry-run")
    assert code == 0
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert "a.weight 4 x 4 d/kernel 4 x 4 OI->IO" in lines
    assert "a.bias 4 d/bias 4 same" in lines
    assert "note: eps:" in output
    code, output = run("x.safetensors", "--to", "keras", "--dry-run")
    assert code == 1
    assert "a.weight: a torch tensor of shape (4, 4) may have its axes in another order" in output
    assert not Path("y.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("x.safetensors", "--to", "keras"), 2, "give either a file to write, or --dry-run"),
        (("x.safetensors", "y", "--dry-run", "--to", "keras"), 2, "give either a file to write, or --dry-run"),
        (("x.safetensors", "y", "--to", "mlx"), 2, "to=mlx must be torch, jax, keras or numpy"),
        (("none.safetensors", "y", "--to", "keras"), 2, "No such file"),
        (("rules.json", "y", "--to", "keras"), 1, "not a whole safetensors file"),
        (("x.safetensors", "y", "--to", "keras", "--map", "x.safetensors"), 1, "is not JSON"),
        (("x.safetensors", "y", "--to", "keras"), 1, "no rule tells"),
    ],
)
def test_the_command_says_what_is_wrong(folder: Path, arguments: tuple[str, ...], code: int, message: str) -> None:
    found, output = run(*arguments)
    assert (found, message in output) == (code, True), output


def test_the_command_takes_the_largest_step_when_asked(folder: Path) -> None:
    file.write(example(steps=(3, 5)), "x.safetensors")
    arguments = ("x.safetensors", "y", "--to", "keras", "--map", "rules.json")
    assert run(*arguments)[0] == 1
    code, output = run(*arguments, "--no-strict")
    assert code == 0
    assert "5 is used for all" in output


MISSING = """
import sys
for name in ("torch", "jax", "keras"):
    sys.modules[name] = None
from adamas.checkpoint import convert
from adamas.checkpoint.frameworks import needed
for call in (lambda: convert("x.pt", "y", to="jax"), lambda: needed("keras"), lambda: needed("jax")):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""


def test_a_missing_framework_is_named_with_its_extra() -> None:
    found = subprocess.run([sys.executable, "-c", MISSING], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [
        f"{name} is not installed: pip install 'adamas[{name}]'" for name in ("torch", "keras", "jax")
    ]


def test_importing_the_package_imports_no_framework(tmp_path: Path) -> None:
    """A conversion between files needs none either."""
    file.write(example(), tmp_path / "x.safetensors")
    code = (
        "import sys; from adamas.checkpoint import convert; "
        "convert(sys.argv[1], sys.argv[1] + '2', to='keras', rules={'a.weight': ['b', 'transpose']}); "
        "print(sorted({'torch', 'jax', 'keras', 'tensorflow', 'optax'} & sys.modules.keys()))"
    )
    path = str(tmp_path / "x.safetensors")
    found = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


FLATTENS: list[Any] = [
    ("keras", "torch", {"dw": (3, 3, 8, 1), "fc": (128, 10)}, "HWCI->CIHW"),  # depthwise
    ("keras", "torch", {"dw": (3, 3, 4, 2), "fc": (128, 10)}, "HWCI->CIHW"),  # with two outputs a channel
    ("torch", "keras", {"dw": (8, 1, 3, 3), "fc": (10, 128)}, "CIHW->HWCI"),
    ("torch", "keras", {"transposed": (6, 8, 3, 3), "fc": (10, 128)}, "IOHW->HWOI"),
    ("torch", "jax", {"conv": (8, 6, 3), "fc": (10, 128)}, "OIW->WIO"),
    ("torch", "jax", {"conv": (8, 6, 3, 3, 3), "fc": (10, 128)}, "OIDHW->DHWIO"),
    ("jax", "torch", {"classifier": (128, 10), "conv": (3, 3, 3, 8)}, "HWIO->OIHW"),  # sorted by name
    ("jax", "torch", {"conv": (3, 3, 3, 8), "gate": (8, 8), "out": (128, 10)}, "HWIO->OIHW"),
    ("numpy", "keras", {"conv": (8, 3, 3, 3), "fc": (10, 128)}, "OIHW->HWIO"),
]


@pytest.mark.parametrize(("layout", "to", "shapes", "rule"), FLATTENS)
def test_a_flatten_is_found_after_any_convolution(layout: Any, to: Any, shapes: Any, rule: str) -> None:
    rules = {name: [name, rule if len(shape) > 2 else "transpose"] for name, shape in shapes.items()}
    assert "128 inputs look like a flattened feature map of the 8 channels" in refusals(
        example(shapes, layout), to, rules
    )


def test_an_embedding_after_a_convolution_is_no_layer_after_a_flatten() -> None:
    shapes = {"conv": (8, 3, 3, 3), "emb": (100, 16), "fc": (10, 128)}
    rules = {"conv": ["conv", "OIHW->HWIO"], "emb": ["emb", "same"], "fc": ["fc", "transpose"]}
    assert refusals(example(shapes), "keras", rules).startswith("fc: its 128 inputs")


def test_projections_and_experts_are_no_convolutions() -> None:
    shapes = {"attn": (512, 8, 64), "mlp": (512, 64), "experts": (4, 16, 32), "out": (64, 10)}
    rules = {
        "attn": ["a", "IHD->(HD)I"],
        "experts": ["e", "EIO->EOI"],
        "mlp": ["m", "transpose"],
        "out": ["o", "transpose"],
    }
    assert refusals(example(shapes, "jax"), "torch", rules) == ""


def test_a_place_that_cannot_be_written_is_one_line(folder: Path) -> None:
    for place, message in (("none/y", "cannot be written"), (".", "is a folder")):
        code, output = run("x.safetensors", place, "--to", "keras", "--map", "rules.json")
        assert (code, message in output, "Traceback" in output) == (2, True, False), output
