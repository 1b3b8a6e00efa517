"""The command line: `adamas compare`, `claims`, `xray`, `decay`, `play`, `bench`, `convert` and `doctor`.

This file imports torch, Optuna and Plotly only when a command needs them: `adamas --help` is fast and works without.
"""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console

import adamas
from adamas import streams
from adamas.importing import uncollected
from adamas.language import chosen
from adamas.leaving import leave_last, terminated_as_interrupted

if TYPE_CHECKING:
    from adamas.compare.study.settings import Options

# The names are repeated here, so that --help and the shell's completion need not import the workloads. A test compares.
WORKLOADS = ("digits", "digits-deep", "digits-deep-layernorm", "modular", "chars", "sparse", "noise")
FRONTS = ("numpy", "jax-fused", "jax-adamw", "keras-fit", "keras-xla")  # peers of the other fronts; a test compares

USAGE_ERROR, FAILED, UNDECIDED, INTERRUPTED = 2, 1, 3, 130

Command = TypeVar("Command", bound=Callable[..., None])

app = typer.Typer(
    name="adamas",
    help="Adam and AdamW: exact, fast, and with evidence of what weight decay does to a model.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def show_version(wanted: bool) -> None:
    """Print the version and end the command."""
    if wanted:
        print(f"adamas {adamas.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Adam and AdamW: exact, fast, and with evidence of what weight decay does to a model."""


def with_options(options: type[Any]) -> Callable[[Command], Command]:
    """Let Typer read the options of a command from a data class, in place of a signature with many parameters."""

    def give_signature(command: Command) -> Command:
        command.__dict__["__signature__"] = inspect.signature(options, eval_str=True)
        return command

    return give_signature


@dataclass(frozen=True)
class CompareOptions:
    """The options of `adamas compare`, as the user typed them."""

    workloads: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="One or several jobs: " + ", ".join(WORKLOADS) + "; or your own job, as in my_job.py:job.",
            show_default="digits",
            autocompletion=lambda: list(WORKLOADS),
        ),
    ] = None
    arms: Annotated[
        str,
        typer.Option(
            help="Candidates, separated by commas: none, adam_l2, adamw, adamw_independent, and any torch optimizer as "
            "module:Class or module:Class(option=value).",
            autocompletion=lambda: ["none,adam_l2,adamw", "none,adam_l2,adamw,adamw_independent"],
        ),
    ] = "none,adam_l2,adamw"
    budget: Annotated[
        str,
        typer.Option(
            help="How many runs each arm may spend: quick, standard or thorough.",
            autocompletion=lambda: ["quick", "standard", "thorough"],
        ),
    ] = "standard"
    trials: Annotated[
        int | None,
        typer.Option(help="Runs for the search of each arm; replaces the budget's number.", show_default="budget's"),
    ] = None
    seeds: Annotated[int, typer.Option(help="Number of paired seeds on which each arm's best setting runs again.")] = 8
    margin: Annotated[
        str | None,
        typer.Option(
            help="The smallest difference that matters: relative as 2% or 0.02, absolute as 0.002abs.",
            show_default="2%, or the workload's",
        ),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            help="The figure of evaluate() that decides; lower is better. --metric=-top1: higher is better.",
            show_default="the job's",
        ),
    ] = None
    device: Annotated[str, typer.Option(help="The device to train on: cpu, cuda or cuda:N.")] = "cpu"
    workers: Annotated[
        int | None,
        typer.Option(
            help="Number of worker processes, with one thread each; 0 trains in this process. No result depends on it.",
            show_default="cores; 1 on a GPU",
        ),
    ] = None
    out: Annotated[Path, typer.Option(help="The folder of the report and the trials.")] = Path("report")
    storage: Annotated[
        str | None, typer.Option(help="The database URL of the trials.", show_default="SQLite in the folder")
    ] = None
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Discard the runs of an earlier call, or continue them.")
    ] = False
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that a run may take; a run that takes longer has failed.", show_default="no limit"),
    ] = None
    init: Annotated[
        Path | None,
        typer.Option("--init", help="Write an example job with comments into this file, and train nothing."),
    ] = None
    lang: Annotated[
        str | None,
        typer.Option(
            help="The language of the verdict and the report: en or zh. The JSON is English.",
            show_default="the locale's",
            autocompletion=lambda: ["en", "zh"],
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False
    require_verdict: Annotated[
        bool, typer.Option("--require-verdict", help="Exit with code 3 if the verdict is undecided.")
    ] = False


@app.command(
    epilog="""**Examples**

`adamas compare`: the digits workload with the standard budget, in a minute or two on 2 cores

`adamas compare digits modular --budget quick`: two workloads, one report

`adamas compare --init my_job.py`, then `adamas compare my_job.py:job`: your own training job

`adamas compare my_job.py --device cuda --metric error`: on a GPU, and another figure decides

`adamas compare --arms none,adam_l2,adamw,torch.optim:RMSprop`: one more candidate

`adamas compare --seeds 20 --margin 0.002abs`: more certainty, and a margin in the metric's own unit

`adamas compare --lang zh`: the verdict and the report in Chinese

`adamas compare --json > verdict.json`: for programs; the progress stays on the terminal

`adamas compare --storage postgresql://me@host/trials`: several machines that run this command share the work

`adamas --install-completion`: let the shell complete workloads and options

You can stop the command with Ctrl-C at any time: the same command continues the study.

Exit codes: 0 finished, 1 the job failed, 2 wrong usage, 3 undecided (with --require-verdict), 130 stopped.
"""
)
@with_options(CompareOptions)
def compare(**given: Any) -> None:
    """Should a training job use Adam with L2 or AdamW, and with what weight decay?

    The command tunes Adam without decay, Adam with L2 and AdamW at equal cost, each over its own range of weight decay.
    The best setting of each runs again on fresh paired seeds and is tested once. The verdict has an interval, a line of
    code to paste, and a page of evidence (report/index.html).
    """
    options = CompareOptions(**given)
    if options.init is not None:
        write_job(options.init)
        return
    try:
        read = read_options(given)  # reports wrong usage before torch is imported and a worker is started
        lang = chosen(options.lang)
        with uncollected():
            from adamas.compare.command import Consoles, run_command
            from adamas.compare.study.errors import StudyError
    except ModuleNotFoundError as error:
        missing(error, "compare")
    except ValueError as error:
        stop(str(error), USAGE_ERROR)
    with terminated_as_interrupted():
        try:
            out = Console(file=streams.kept_for_the_result(), highlight=False, emoji=False)
            consoles = Consoles(out, Console(stderr=True, emoji=False))
            results = run_command(options.workloads or ["digits"], read, consoles, options.as_json, lang)
        except (ValueError, OSError) as error:  # a job that cannot be used, or a folder that cannot be written
            stop(str(error), USAGE_ERROR)
        except StudyError as error:
            stop(str(error), FAILED)
        except KeyboardInterrupt:
            stop(f"stopped; every finished run is kept. Continue with: {resume_command()}", INTERRUPTED)
    if options.require_verdict and any(result.verdict.kind == "undecided" for result in results):
        raise typer.Exit(UNDECIDED)


def read_options(given: dict[str, Any]) -> Options:
    """Check the options of `adamas compare` that concern a study, without a look at the jobs."""
    from adamas.compare.study.settings import Options

    others = ("workloads", "init", "lang", "as_json", "require_verdict")
    return Options.read(**{name: value for name, value in given.items() if name not in others})


def write_job(path: Path) -> None:
    """Write the example file of a job, unless the file exists."""
    if path.suffix != ".py":
        stop(f"init={path} must end in .py, as in --init {path.with_suffix('.py')}", USAGE_ERROR)
    template = files("adamas").joinpath("compare", "job", "template.py.txt").read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template)
    except FileExistsError:
        stop(f"init={path} exists already; give another name, or move it away", USAGE_ERROR)
    except OSError as error:
        stop(f"init={path} cannot be written: {error}", USAGE_ERROR)
    command = shlex.join(["adamas", "compare", f"{path}:job", "--budget", "quick"])
    print(f"wrote {path}: fill it in, then run: {command}")


@app.command(
    epilog="""**Examples**

`adamas play`: write playground.html, and open it in a browser

`adamas play --lang zh --out docs/play.html`: in Chinese, elsewhere

Exit codes: 0 written, 2 wrong usage.
"""
)
def play(
    out: Annotated[Path, typer.Option(help="The file of the page; one that exists is replaced.")] = Path(
        "playground.html"
    ),
    lang: Annotated[
        str | None,
        typer.Option(
            help="The language that the page opens in, en or zh; the page can switch.",
            show_default="from the locale",
            autocompletion=lambda: ["en", "zh"],
        ),
    ] = None,
) -> None:
    """Write a page to play with: Adam with L2 beside AdamW on two weights, as one file that works offline.

    Move sliders and see which decay each weight gets, and what happens if the loss is scaled by ten.
    """
    from adamas.language import chosen
    from adamas.understand.playground.build import write_page

    try:
        print(write_page(out, chosen(lang)))
    except (ValueError, OSError) as error:
        stop(str(error), USAGE_ERROR)


@dataclass(frozen=True)
class ClaimsOptions:
    """The options of `adamas claims`, as the user typed them."""

    only: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure these claims: a number, several with commas, or a range. May be given several times.",
            show_default="all twenty",
        ),
    ] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False
    out: Annotated[
        Path | None,
        typer.Option(help="A folder, or an .html file, for a page with all figures.", show_default="no page"),
    ] = None
    lang: Annotated[
        str | None,
        typer.Option(
            help="The language of the results: en or zh.",
            show_default="that of the locale",
            autocompletion=lambda: ["en", "zh"],
        ),
    ] = None


@app.command(
    epilog="""**Examples**

`adamas claims`: all twenty claims, in about five minutes

`adamas claims --only 1-13`: the claims of the article, in about two minutes

`adamas claims --only 9`: does a small v weaken the decay in Adam? Measured in seconds

`adamas claims --only 3,9 --lang zh`: two claims, told in Chinese

`adamas claims --out claims`: a page with the figures, in claims/index.html

`adamas claims --json > claims.json`: for programs; the progress stays on the terminal

Seeds are fixed: two runs on one machine give the same figures. Ctrl-C shows the claims that were finished.

Exit codes: 0 measured, whatever the verdicts; 1 a claim could not be measured; 2 wrong usage; 130 stopped.
"""
)
@with_options(ClaimsOptions)
def claims(**given: Any) -> None:
    """Which claims about Adam and AdamW are true? Each is measured by a small experiment of its own.

    Claims 1 to 13 are those of the article that the project started from, 14 to 20 those of papers. Each gets a verdict
    (holds, holds under a condition, does not hold), a figure with its interval, and a sentence with the result.
    """
    options = ClaimsOptions(**given)
    try:
        from adamas.language import chosen as chosen_language

        lang = chosen_language(options.lang)
        with uncollected():
            from adamas.understand.claims import registry
            from adamas.understand.claims.command import Output, run_command

        wanted = registry.chosen(options.only or [])
    except ModuleNotFoundError as error:
        missing(error, "compare")
    except ValueError as error:
        stop(str(error), USAGE_ERROR)
    with terminated_as_interrupted():
        try:
            out = Console(file=streams.kept_for_the_result(), highlight=False, emoji=False)
            consoles = out, Console(stderr=True, highlight=False, emoji=False)
            outcome = run_command(wanted, Output(*consoles, lang, options.as_json, options.out))
        except ValueError as error:
            stop(str(error), USAGE_ERROR)
        except OSError as error:
            stop(f"out={options.out} cannot be written: {error}; free space, or give another folder", FAILED)
    if outcome.interrupted:
        done = f"{outcome.measured} of {len(wanted)} claims were finished and are shown"
        stop(f"stopped; {done}. Run the others with --only", INTERRUPTED)
    if outcome.failures:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class BenchOptions:
    """The options of `adamas bench`, as the user typed them."""

    model: Annotated[
        str | None,
        typer.Option(help="Take the shapes of your model: path/to/file.py:factory or package.module:factory."),
    ] = None
    shapes: Annotated[str | None, typer.Option(help='Take these shapes: "24x(20,20) 24x(16)".')] = None
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16 or float64.")] = "float32"
    peers: Annotated[
        str,
        typer.Option(
            help='Peers to compare with: names with commas, "installed", or "all", which says what is missing. '
            "Each is measured beside adamas.torch, except " + ", ".join(FRONTS) + ": these beside our front for their "
            "framework."
        ),
    ] = "torch-fused,torch"
    phase: Annotated[
        bool, typer.Option("--phase/--step", help="Clip, step, average and clear the gradients, or step only.")
    ] = False
    rounds: Annotated[int, typer.Option(help="Rounds of each row; the median counts.")] = 9
    threads: Annotated[
        int | None, typer.Option(help="Threads of each implementation.", show_default="as torch chooses")
    ] = None
    out: Annotated[Path | None, typer.Option(help="File for the rows in JSON, written after each row.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False


@app.command(
    epilog="""**Examples**

`adamas bench`: three sets of shapes beside torch, about a minute

`adamas bench --model train.py:make_model --phase`: your own model, with clipping and averaging

`adamas bench --shapes "24x(20,20) 24x(16)" --peers installed`: beside every peer that is installed

`adamas bench --peers numpy,jax-fused,keras-fit`: `adamas.numpy`, `adamas.jax` and `adamas.keras`, each in its framework

`adamas bench --dtype bfloat16 --peers torch-fused,optimi --out bfloat16.json`: keep the figures

A ratio below 1 means that Adamas is faster. A peer that is not installed, or that refuses, is listed with the reason.

Ctrl-C stops the run at any time: finished rows are shown, and kept in `--out`.

Exit codes: 0 finished, 1 failed, 2 wrong usage, 130 stopped.
"""
)
@with_options(BenchOptions)
def bench(**given: Any) -> None:
    """How fast and how exact is a step beside other implementations, on your shapes and your machine?

    Each peer is measured beside Adamas in a process of its own. Both take turns, with the same parameters, gradients
    and threads. Before that, peers that follow the same rule are checked to give the same result.

    A row shows the ratio of the times, how near Adamas comes to the speed of memory, and for both sides the error
    against float64 and the bytes of state.
    """
    options = BenchOptions(**given)
    try:
        with uncollected():
            import torch

            from adamas.bench import command
            from adamas.bench.clock import Effort
    except ModuleNotFoundError as error:
        missing(error, "torch")
    consoles = Console(highlight=False, emoji=False), Console(stderr=True, emoji=False)
    try:
        work = "phase" if options.phase else "step"
        scenarios = command.choose_scenarios(options.model, options.shapes, options.dtype, work)
        effort = Effort(options.rounds, torch.get_num_threads() if options.threads is None else options.threads)
        peers = command.choose_peers(options.peers)
        result = command.bench(scenarios, peers, effort, consoles, options.out, options.as_json)
    except (ValueError, OSError) as error:  # an option out of its range, or a file that cannot be written
        stop(str(error), USAGE_ERROR)
    if not result.complete:
        kept = f" and kept in {options.out}" if options.out else ""
        stop(f"stopped; what was finished ({len(result.rows)}) is shown{kept}", INTERRUPTED)


@dataclass(frozen=True)
class ConvertOptions:
    """The options of `adamas convert`, as the user typed them."""

    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="A file that adamas.checkpoint.save wrote, or a torch state dict in a .pt or .pth file."
        ),
    ]
    path: Annotated[Path | None, typer.Argument(metavar="OUT", help="The new file; not needed with --dry-run.")] = None
    to: Annotated[
        str,
        typer.Option(
            help="The framework to convert to: torch, jax, keras or numpy.",
            autocompletion=lambda: ["torch", "jax", "keras", "numpy"],
            show_default=False,
        ),
    ] = ...  # pyright: ignore[reportAssignmentType] - Typer's mark of an option that must be given
    rules: Annotated[Path | None, typer.Option("--map", help="A JSON file of rules: new names, and how axes move.")] = (
        None
    )
    reverse: Annotated[bool, typer.Option("--reverse", help="Use the rules in the opposite direction.")] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would become of each parameter, and write nothing.")
    ] = False
    strict: Annotated[
        bool,
        typer.Option(
            "--strict/--no-strict",
            help="Refuse different steps a parameter where a framework counts once for all, or take the largest.",
        ),
    ] = True


@app.command(
    epilog="""**Examples**

`adamas convert torch.safetensors --to keras --map rules.json --dry-run`: what would become of each parameter

`adamas convert torch.safetensors keras.safetensors --to keras --map rules.json`: write the new file

`adamas convert keras.safetensors torch.safetensors --to torch --map rules.json --reverse`: and back

`adamas convert optimizer.pt state.safetensors --to torch`: from a state dict of torch

A rules file: `{"0.weight": ["out/kernel", "transpose"], "0.bias": "out/bias"}`; see docs/checkpoints.md.

Exit codes: 0 converted, 1 refused, 2 wrong usage.
"""
)
@with_options(ConvertOptions)
def convert(**given: Any) -> None:
    """Convert the state of an Adam or AdamW between torch, JAX, Keras and NumPy.

    Moments, steps and weights get the names and shapes that the rules give them. What cannot be converted without a
    guess is refused, with the reason and the rule that would help.
    """
    options = ConvertOptions(**given)
    if (options.path is None) != options.dry_run:
        stop(
            f"OUT={options.path} with dry-run={options.dry_run}: give either a file to write, or --dry-run", USAGE_ERROR
        )
    if options.to not in ("torch", "jax", "keras", "numpy"):
        stop(f"to={options.to} must be torch, jax, keras or numpy", USAGE_ERROR)
    from adamas.checkpoint import CheckpointError, Rules
    from adamas.checkpoint.command import run_command

    try:
        rules = Rules.read(options.rules)
        rules = rules.reverse() if options.reverse else rules
        console = Console(highlight=False, emoji=False)
        complete = run_command(options.source, options.path, options.to, rules, options.strict, console)
    except OSError as error:
        stop(str(error), USAGE_ERROR)
    except (ModuleNotFoundError, CheckpointError) as error:
        stop(str(error), FAILED)
    if not complete:
        raise typer.Exit(FAILED)


@dataclass(frozen=True)
class XRayOptions:
    """The options of `adamas xray`, as the user typed them."""

    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A file of torch.save or adamas.checkpoint.save, or a folder of Hugging Face's Trainer or Lightning.",
        ),
    ]
    optimizer: Annotated[
        str | None,
        typer.Option(
            help="adam or adamw, where the checkpoint does not say which.", autocompletion=lambda: ["adam", "adamw"]
        ),
    ] = None
    lr: Annotated[float | None, typer.Option(help="The learning rate.", show_default="the checkpoint's")] = None
    weight_decay: Annotated[
        float | None, typer.Option(help="The weight decay, as torch counts it.", show_default="the checkpoint's")
    ] = None
    names: Annotated[
        Path | None,
        typer.Option(help="A file with the names of model.parameters() in their order, one a line."),
    ] = None
    steps_per_epoch: Annotated[
        float | None, typer.Option(help="Optimizer steps in an epoch.", show_default="the trainer's record")
    ] = None
    predict: Annotated[
        bool, typer.Option("--predict", help="Predict where good weight decays lie; needs --epochs.")
    ] = False
    epochs: Annotated[float | None, typer.Option(help="The epochs of the run to predict for.")] = None
    out: Annotated[Path | None, typer.Option(help="Write a page: an .html file, or a folder for index.html.")] = None
    lang: Annotated[str | None, typer.Option(help="The language of the page: en or zh.", show_default="locale's")] = (
        None
    )
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False


@app.command(
    epilog="""**Examples**

`adamas xray checkpoint.pt`: the decay of each layer, and the AdamW weight decay that it is equivalent to

`adamas xray runs/checkpoint-500 --optimizer adamw --out xray.html`: a folder of Hugging Face's Trainer, as a page

`adamas xray pilot.pt --predict --epochs 30 --steps-per-epoch 500`: where to search for weight decay

A checkpoint is read without running code from it: only tensors and plain values.

Exit codes: 0 finished, 2 a checkpoint that cannot be read, or wrong usage.
"""
)
@with_options(XRayOptions)
def xray(**given: Any) -> None:
    """What did weight decay do to each layer of a run? Read it from a checkpoint.

    For every layer: the share of a weight that decay takes in a step, and its correlation with the gradients' size; the
    RMS of the weights and their rotation beside the values at which both settle; updates lost to rounding; and the
    AdamW weight decay that Adam with L2 is equivalent to.
    """
    options = XRayOptions(**given)
    if options.predict != (options.epochs is not None):
        stop(
            f"predict={options.predict} with epochs={options.epochs}: give --predict and --epochs together", USAGE_ERROR
        )
    if options.optimizer not in (None, "adam", "adamw"):
        stop(f"optimizer={options.optimizer} must be adam or adamw", USAGE_ERROR)
    for name in ("lr", "steps_per_epoch", "epochs"):
        value = getattr(options, name)
        if value is not None and not 0 < value < float("inf"):
            stop(f"{name.replace('_', '-')}={value} must be a finite number > 0", USAGE_ERROR)
    if options.weight_decay is not None and not 0 <= options.weight_decay < float("inf"):
        stop(f"weight-decay={options.weight_decay} must be a finite number >= 0", USAGE_ERROR)
    try:
        with uncollected():
            from adamas.language import chosen
            from adamas.understand.xray.command import Overrides, Request, run_command
        chosen(options.lang)
        overrides = Overrides(options.lr, options.weight_decay, options.optimizer)
        request = Request(
            options.checkpoint,
            overrides,
            options.names,
            options.steps_per_epoch,
            options.epochs,
            options.out,
            options.lang,
        )
        run_command(request, Console(highlight=False, emoji=False), options.as_json)
    except ModuleNotFoundError as error:
        missing(error, "torch")
    except (ValueError, OSError) as error:
        stop(str(error), USAGE_ERROR)


@dataclass(frozen=True)
class DecayOptions:
    """The options of `adamas decay`, as the user typed them."""

    lr: Annotated[
        float, typer.Option(help="The learning rate that the schedule starts from.", show_default=False)
    ] = ...  # pyright: ignore[reportAssignmentType]
    batch: Annotated[
        float,
        typer.Option(help="Examples in a batch; tokens in a batch with --tokens.", show_default=False),
    ] = ...  # pyright: ignore[reportAssignmentType]
    examples: Annotated[float | None, typer.Option(help="Training examples in an epoch.")] = None
    epochs: Annotated[float, typer.Option(help="Epochs of the run.")] = 1.0
    tokens: Annotated[float | None, typer.Option(help="Tokens in an epoch, instead of --examples.")] = None
    sequence: Annotated[
        float | None, typer.Option(help="Tokens in an example: --batch then counts examples beside --tokens.")
    ] = None
    parameters: Annotated[float | None, typer.Option(help="Parameters of the model, for rules that need them.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False


@app.command(
    epilog="""**Examples**

`adamas decay --lr 1e-3 --batch 128 --examples 50000 --epochs 100`: an image classifier

`adamas decay --lr 3e-4 --batch 256 --sequence 2048 --tokens 2e9 --parameters 1e8`: a language model

Exit codes: 0 finished, 2 wrong usage.
"""
)
@with_options(DecayOptions)
def decay(**given: Any) -> None:
    """What do published rules say about weight decay for a run, and where do they disagree?

    Each rule is shown with its source, in torch's convention and in that of the AdamW paper, which is lr times torch's.
    """
    options = DecayOptions(**given)
    from adamas.understand.published_command import run_command, run_of

    try:
        run = run_of(
            options.lr, options.batch, options.examples, options.epochs, options.tokens, options.sequence,
            options.parameters,
        )  # fmt: skip
        run_command(run, Console(highlight=False, emoji=False), options.as_json)
    except ValueError as error:
        stop(str(error), USAGE_ERROR)


@app.command()
def doctor() -> None:
    """Show what this machine offers: for each framework its version, and what steps its arrays.

    Frameworks that are installed are imported, which may take ten seconds.
    """
    with uncollected():
        from adamas.doctor import report
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "slow": "yellow", "off": "dim"}
    table = Table(box=None, padding=(0, 2), show_header=False)
    for what, status, detail in report():
        # Text, not strings: an extra's name in brackets is no markup.
        table.add_row(Text(what), Text(status, style=styles.get(status, "red")), Text(detail))
    Console(highlight=False, emoji=False).print(table)


def resume_command() -> str:
    """Return the command line that continues the study of this command."""
    typed = [argument for argument in sys.argv[1:] if argument not in ("--fresh", "--resume")]
    return shlex.join(["adamas", *typed, "--resume"])


def missing(error: ModuleNotFoundError, extra: str) -> NoReturn:
    """End the command with a message that names the extra of the missing package."""
    package = (error.name or "").split(".")[0]
    if package == "adamas":
        raise error
    stop(f"this command needs {package}, which is not installed: pip install 'adamas[{extra}]'", FAILED)


def stop(message: str, code: int) -> NoReturn:
    """Print a message on standard error and end the command."""
    print(message, file=sys.stderr)
    raise typer.Exit(code)


def run() -> None:
    """Run the `adamas` command of a shell."""
    streams.complete()
    streams.never_refuse()
    leave_last(app)


if __name__ == "__main__":
    run()
