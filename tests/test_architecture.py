"""DESIGN's rules A, B and E, read from the source: where arithmetic on tensors lives, who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import adamas

PACKAGE = Path(adamas.__file__).parent
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
# compare/ trains models; bench/ runs others' phases as their users write them, and measures errors; understand/
# measures what weight decay does to weights.
MEASURING = ("compare/", "bench/", "understand/")
ARITHMETIC_IS_ALLOWED = ("reference.py", "scalars.py", "decay.py", "kernels/", "formats/", *MEASURING)
FRAMEWORKS = ("torch", "jax", "keras", "tensorflow", "triton", "optax")

# Methods and functions of tensors that compute; making, copying, moving and viewing them does not.
COMPUTES = {
    "add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "pow", "pow_", "sqrt", "sqrt_", "rsqrt", "lerp",
    "lerp_", "addcmul", "addcmul_", "addcdiv", "addcdiv_", "neg", "neg_", "clamp", "clamp_", "clamp_min",
    "clamp_min_", "maximum", "minimum", "square", "square_", "exp", "log", "reciprocal", "matmul", "mean", "norm",
}  # fmt: skip


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_arithmetic_on_tensors_lives_in_its_places(path: Path) -> None:
    """Rule A: fronts move tensors about; they never compute with them."""
    if name_of(path).startswith(ARITHMETIC_IS_ALLOWED):
        return
    tree = ast.parse(path.read_text())
    calls = [
        f"{node.func.attr} at line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.func.attr in COMPUTES or node.func.attr.startswith("_foreach_"))
        and not ast.unparse(node.func.value).endswith("seen")  # a set
    ]
    operators = [
        f"{ast.unparse(node)} at line {node.lineno}"
        for node in ast.walk(tree)
        if name_of(path).startswith("torch/")
        and isinstance(node, ast.BinOp)
        and isinstance(node.op, ast.Mult | ast.Div | ast.Pow | ast.MatMult)
        and "numel" not in ast.unparse(node)  # counting bytes
        and not isinstance(node.left, ast.List)
    ]
    assert not calls + operators, f"{name_of(path)} computes: {calls + operators}"


def test_the_arithmetic_rule_can_fail() -> None:
    planted = ast.parse("param.mul_(1 - lr)")
    assert any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in COMPUTES
        for node in ast.walk(planted)
    )


ROOMS = ("formats", "state", "kernels", "torch")  # each may import those before it


def core_imports() -> dict[str, set[str]]:
    """For each module outside of compare, bench and the command line: the modules of ours that it imports, anywhere."""
    names = {"adamas." + name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__"): path
             for path in SOURCES if not name_of(path).startswith(("compare/", "bench/", "cli.py"))}  # fmt: skip
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        found = [module for module in imports(ast.parse(path.read_text())) if module in names]
        # `from adamas.kernels import native` names the package and the module: the module is what is imported.
        graph[name] = {one for one in found if not any(other.startswith(one + ".") for other in found)} - {name}
    return graph


def test_no_module_of_the_core_imports_itself_in_a_circle() -> None:
    graph, done = core_imports(), set[str]()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in graph[name]:
                visit(other, (*path, name))
            done.add(name)

    assert len(graph) > 40
    for name in graph:
        visit(name, ())


def test_rooms_are_used_from_above() -> None:
    """A walk from a front down to a codec has no way back up."""
    for name, used in core_imports().items():
        room = name.split(".")[1:2]
        for other in used:
            below = other.split(".")[1:2]
            if room and below and room[0] in ROOMS and below[0] in ROOMS:
                assert ROOMS.index(below[0]) <= ROOMS.index(room[0]), f"{name} imports {other}"


COMPARE = "adamas.compare"
FACE = {"__init__", "api", "command", "expectations", "study_result"}  # compare's top level brings the rooms together
MAY_IMPORT = {  # DESIGN, section 2
    "study": set(),
    "job": {"study"},
    "search": {"study"},
    "verdict": {"study", "search"},
    "runner": {"study", "job"},
    "report": {"study", "search", "verdict"},
    "workloads": {"job", "study"},
}


def compare_imports() -> dict[str, set[str]]:
    """For each module of compare, as "room.module": the modules of compare that it imports."""
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        if name_of(path).startswith("compare/"):
            name = name_of(path).removeprefix("compare/").removesuffix(".py").replace("/", ".")
            modules = [each for each in imports(ast.parse(path.read_text())) if each.startswith(COMPARE + ".")]
            found[name] = {each.removeprefix(COMPARE + ".") for each in modules}
    return found


def test_the_rooms_of_compare_import_what_the_design_says() -> None:
    for name, used in compare_imports().items():
        room = name.partition(".")[0]
        if name in FACE:
            continue
        assert room in MAY_IMPORT, f"compare/{name} is in no room"
        for other in {each.partition(".")[0] for each in used} - {room}:
            # A job's file and a workload's say `from adamas.compare import Job`, as users do.
            assert other in MAY_IMPORT[room] or other in ("Job", "OwnLoop"), f"compare/{name} imports {other}"


def test_the_rooms_of_compare_are_small() -> None:
    modules = list(compare_imports())
    assert len([name for name in modules if "." not in name]) <= 10
    for room in MAY_IMPORT:
        inside = [name for name in modules if name.startswith(f"{room}.")]
        assert 2 <= len(inside) <= 14, f"{room}: {len(inside)} files"
        text = ast.get_docstring(ast.parse((PACKAGE / "compare" / room / "__init__.py").read_text())) or ""
        assert "?" in text.splitlines()[0], f"{room} does not say which question it answers"


def test_only_the_command_line_looks_into_compare() -> None:
    """And the claims, which train the built-in jobs."""
    for path in SOURCES:
        if name_of(path).startswith("compare/"):
            continue
        used = [each for each in imports(ast.parse(path.read_text())) if each.startswith(COMPARE + ".")]
        names = {each.removeprefix(COMPARE + ".") for each in used}
        allowed = {"command", "study", "study.settings", "study.errors"} if name_of(path) == "cli.py" else set()
        allowed = {"job", "workloads"} if name_of(path).startswith("understand/claims/") else allowed
        assert {name for name in names if not name.startswith(tuple(allowed))} == set() if allowed else not names


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_docstring_is_a_sentence(path: Path) -> None:
    """STYLE, section 3: at least five words."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            name = getattr(node, "name", name_of(path))
            if text and not (name.startswith("__") and name.endswith("__")):
                assert len(text.split()) >= 5, f"{name}: {text!r}"


KERNELS = ("eager", "native", "triton")


@pytest.mark.parametrize("path", [path for path in SOURCES if name_of(path).startswith("kernels/")], ids=name_of)
def test_kernels_know_neither_each_other_nor_an_optimizer(path: Path) -> None:
    """Rule B."""
    used = imports(ast.parse(path.read_text()))
    others = [f"adamas.kernels.{kernel}" for kernel in KERNELS if kernel != path.stem]
    assert not set(used) & set(others)
    assert not [module for module in used if module.startswith(("adamas.torch", "adamas.compare", "torch.optim"))]


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_have_one_signature(kernel: str) -> None:
    import importlib
    import inspect

    module = importlib.import_module(f"adamas.kernels.{kernel}")
    assert kernel == module.NAME
    signatures = {
        name: list(inspect.signature(getattr(module, name)).parameters)
        for name in ("refuses", "prepare", "take", "squares", "step", "release")
    }
    assert signatures == {
        "refuses": ["traits"], "prepare": ["bucket"], "take": ["prepared", "grads"],
        "squares": ["prepared"], "step": ["prepared", "scalars", "which", "zero_grad"], "release": ["prepared"],
    }  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a statement loads in a fresh interpreter."""
    code = f"import sys; {statement}; print(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import adamas", (*FRAMEWORKS, "numpy")),
        ("import adamas.decay, adamas.scalars, adamas.reference", FRAMEWORKS),
        ("import adamas.checkpoint", FRAMEWORKS),
        ("import adamas.torch", ("jax", "keras", "tensorflow", "optax", "rich", "typer", "optuna", "plotly")),
        ("import adamas.cli", (*FRAMEWORKS, "optuna", "plotly", "sklearn", "scipy")),
    ],
)
def test_imports_bring_no_framework_unasked(statement: str, forbidden: tuple[str, ...]) -> None:
    """Rule E."""
    assert not loaded_by(statement) & set(forbidden)


def test_nothing_is_patched_at_import() -> None:
    """Rule E: torch's classes and functions are the same objects before and after."""
    code = (  # a one-line program: what it names is torch's public surface
        "import torch, torch.optim as o, torch.optim.optimizer; "
        "names = [(o, n) for n in dir(o)] + [(o.Optimizer, n) for n in vars(o.Optimizer)]; "
        "names += [(torch, n) for n in dir(torch)]; "
        "before = {(id(m), n): id(getattr(m, n, None)) for m, n in names if n != 'optimizer'}; "
        "kept = [getattr(m, n, None) for m, n in names]; "
        "import adamas.torch; "
        "after = {(id(m), n): id(getattr(m, n, None)) for m, n in names if n != 'optimizer'}; "
        "changed = [k[1] for k in before if before[k] != after[k] and not callable(getattr(torch, k[1], None))]; "
        "print([n for n in changed if n.lower().startswith(('adam', 'step', 'optim'))])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


BENCHMARKS = sorted((PACKAGE.parent.parent / "benchmarks").rglob("*.py"))


@pytest.mark.parametrize("path", [*SOURCES, *BENCHMARKS], ids=lambda path: "/".join(path.parts[-2:]))
def test_functions_stay_small(path: Path) -> None:
    """Rule G: 60 lines and 8 parameters; constructors that follow torch's signature are as wide as torch's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            length = (node.end_lineno or 0) - first.lineno + 1
            assert length <= 60, f"{node.name} has {length} lines"
            arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
            as_wide_as_another = node.name == "__init__" or (  # torch's, Keras's and optax's signatures, and commands
                path in (PACKAGE / "cli.py", PACKAGE / "compare" / "api.py")
                or (path.parent == PACKAGE / "jax" and not node.name.startswith("_"))
            )
            assert len(arguments) <= 8 or as_wide_as_another, f"{node.name} has {len(arguments)} parameters"


def test_no_environment_variable_changes_numbers() -> None:
    """Rule E: nothing but the tools reads the environment."""
    readers = [name_of(path) for path in SOURCES if re.search(r"\benviron\b|getenv", path.read_text())]
    tools = ("compare/", "bench/", "cli.py", "doctor.py", "language.py")
    assert [name for name in readers if not name.startswith(tools)] == []


# What steps the arrays of other frameworks than torch.
OTHER_FRAMEWORKS = (
    "numpy.py", "jax/", "keras/", "checkpoint/", "formats/array_state.py",
    *(f"kernels/{name}.py" for name in ("functional", "arrays", "xla", "tensorflow")),
)  # fmt: skip


def lines_of(*names: str, without: tuple[str, ...] = ()) -> int:
    paths = [path for path in SOURCES if name_of(path).startswith(names) and name_of(path) not in without]
    return sum(len(path.read_text().splitlines()) for path in paths)


def test_core_stays_within_its_budget() -> None:
    """Rule H: 7,610 lines of Python in the core, 2,880 of C++.

    The design asks for 5,800 lines of Python. What the core gained since it had 6,089: decay rules and a schedule of
    weight decay (480 lines), checks of every tensor at every step, counts in place, matching by name through wrappers,
    whole steps under signals and threads, tracing, guards (700), and the table of options (220, of which 150 were
    elsewhere). Each room was then searched for what stands twice: 540 lines went. Trainers took 300: refusals of what
    steps in backward cannot do, clipping of gradients that are gone, two callbacks, and the objects that trainers hand
    back. Parameters that several processes share take 450: shards and their places in the whole, one norm, states
    that reshard, checkpoints of others.

    The design asks for 2,200 lines of C++, which torch's kernel has. Reading NumPy's arrays takes 180 lines, and XLA's
    foreign function interface, declared here so that nothing of XLA is needed to build, 400.
    """
    core = ("reference.py", "scalars.py", "options.py", "decay.py", "formats/", "state/", "kernels/", "torch/")
    native = PACKAGE.parent.parent / "native"
    assert lines_of(*core, without=OTHER_FRAMEWORKS) <= 7610
    if native.is_dir():
        assert sum(len(path.read_text().splitlines()) for path in native.iterdir()) <= 2880


def test_the_other_frameworks_stay_within_their_budget() -> None:
    """4,700 lines of Python: the fronts of NumPy, JAX and Keras, and 2,100 of them for checkpoints that travel."""
    assert lines_of(*OTHER_FRAMEWORKS) <= 4700


def test_compare_stays_within_its_budget() -> None:
    """Rule H: 10,050 lines of Python.

    The design asks for 7,000. It had 8,036 before jobs of every kind (closures, several optimizers, metrics that are
    better when higher, a longer look-over: 590), runs and databases that misbehave (time limits, logs, processes left
    behind, damaged files: 790), searches with an uncertainty and finals that can be extended (570), and how often the
    verdicts of a budget are right (30).
    """
    assert sum(len(path.read_text().splitlines()) for path in SOURCES if name_of(path).startswith("compare/")) <= 10_050


def test_the_x_ray_stays_within_its_budget() -> None:
    """2,400 lines of Python: live figures, checkpoints of five kinds, their page, and the published rules."""
    assert lines_of("understand/xray/", "understand/published") <= 2400


def test_the_page_stays_within_its_budget() -> None:
    """600 lines of Python: the languages, and one template and one design for all pages."""
    assert lines_of("page/", "language.py") <= 600


def test_bench_and_benchmarks_stay_within_their_budget() -> None:
    """5,020 lines of Python: one harness for CPU and GPU, and the project's own runs of it.

    Of these, 100 measure sharded steps, 145 the weight decay that one run predicts, 60 put the tables of the READMEs
    into Chinese, 45 the page to play with its maps, and 140 measure the claims and put them on their pages.

    Of these, 380 count how often verdicts are wrong: a simulated job, three real ones, and their table.

    Of these, 350 are the rows of the fronts for NumPy, JAX and Keras: ten adapters, ten steps in one compiled function,
    the time of the first call, and a table on the page.
    """
    bench = [path for path in SOURCES if name_of(path).startswith("bench/")]
    assert sum(len(path.read_text().splitlines()) for path in (*bench, *BENCHMARKS)) <= 5020


def test_import_adds_less_than_fifty_milliseconds() -> None:
    """To `import torch`, in the best of up to ten fresh interpreters: of processor time, as other tests run beside.

    Processors differ by a factor of two and more in how fast they import: where torch itself takes longer than 1.25 s,
    the limit is 4 % of that.
    """
    code = (
        "import time; a = time.process_time(); import torch; b = time.process_time(); import adamas.torch; "
        "print(b - a, time.process_time() - b)"
    )
    best = [10.0, 10.0]
    for _ in range(10):
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        best = [min(pair) for pair in zip(best, map(float, run.stdout.split()), strict=True)]
        if best[1] < max(0.05, 0.04 * best[0]):
            break
    assert best[1] < max(0.05, 0.04 * best[0])


def test_a_step_imports_no_compiler() -> None:
    """It takes two seconds; torch's own optimizers import it when they are made."""
    loop = (
        "import sys, torch; from adamas.torch import AdamW; param = torch.nn.Parameter(torch.ones(3));"
        "optimizer = AdamW([param], lr=1e-3); optimizer.zero_grad(); param.sum().backward(); optimizer.step();"
        "print('torch._dynamo' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", loop], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
