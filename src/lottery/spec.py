"""What an experiment is: one tree of frozen dataclasses, the single source for Python, the command line and TOML.

A spec says *what*, never where or how fast: folders, engines, devices and jobs are not in it. Its hash names the run.
It knows ranges, not registries: whether a data set or a criterion of that name exists is `experiment.check`'s to say.
"""

import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, get_origin, get_type_hints

import tomli_w

from lottery.errors import LotteryError, check_type, known, shown
from lottery.files import read_bytes

LEVELS = REPLICATES = DRAWS = 10_000
"""Most of each that a spec may ask for."""

TRAINED = 1_000_000
"""Most networks that a spec may ask for, of all levels, replicates and draws together: each is a folder."""

RUNS = 500
"""Most experiments of a sweep: all are locked while it goes on."""

UNITS = 100_000
"""Most units of a layer."""

ITERATIONS = 1_000_000_000
"""Most of them in a level."""

BETWEEN = 100_000_000
"""Most images between two evaluations: their order is held in memory."""

PADDING = 1_000
"""Most pixels around an image."""

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "milestones", "cosine")
SCOPES = ("layer", "global")
OPTIMIZER_STATES = ("fresh", "saved")
DATA_ORDERS = ("level", "dense")

FILE = 20_000
"""Most bytes of a spec in TOML, some twenty times what one needs: the parser's time grows with their square."""


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise LotteryError(f"{name} = {shown(value)}: {remedy}")


def _choose(value: str, name: str, choices: tuple[str, ...]) -> None:
    _require(value in choices, name, value, f"use {', '.join(choices[:-1])} or {choices[-1]}")


def _within(low: int, value: int, high: int, name: str) -> None:
    _require(low <= value <= high, name, value, f"must be at least {low}, and at most {high:,}")


@cache
def _settings(part: Any) -> dict[str, Any]:
    """Name -> type of the settings of a spec, or of a part of it."""
    return get_type_hints(part)


def _check_types(part: Any, prefix: str = "") -> None:
    for name, kind in _settings(part.__class__).items():
        value = getattr(part, name)
        if value is not None or getattr(part.__class__, name, "") is not None:  # else absent, as it is by default
            check_type(prefix + name, value, kind)


@dataclass(frozen=True)
class Data:
    """The images, and what of them is held out."""

    name: str = "mnist"
    """Data set: mnist, fashion-mnist, kmnist, cifar10, cifar100; or embedded, so that they need no network: mnist-5k,
    and mnist-5k-m, the same digits in colour on photographs."""

    scaling: str = "standardize"
    """Input scaling: standardize (subtract the data set's mean, divide by its standard deviation, by channel), unit (to
    [0, 1]), or l2 (each image to length 1)."""

    validation: int = 5000
    """Training images held out, drawn by seed, to find the early-stopping iteration; 0 for none."""

    def __post_init__(self) -> None:
        _check_types(self, "data.")
        _require(self.validation >= 0, "data.validation", self.validation, "must be 0 or more images")


@dataclass(frozen=True)
class Model:
    """The network and how its weights are first drawn."""

    name: str = "lenet-300-100"
    """Architecture: lenet-300-100, mlp (with hidden sizes of your own), lenet-5, conv-2, conv-4, conv-6, resnet-8 to
    resnet-110 (6n + 2 layers), or vgg-11, vgg-13, vgg-16, vgg-19 (the last two families with batch norm)."""

    hidden: tuple[int, ...] = ()
    """Sizes of an mlp's hidden layers, in order; empty for a named architecture."""

    width: int = 0
    """Channels of the first stage of a ResNet or VGG, the later stages in proportion; 0 for the architecture's own (16
    and 64)."""

    init: str = "glorot_normal"
    """Initial weights: glorot_normal (Gaussian, variance 2 / (fan_in + fan_out)), kaiming_normal (Gaussian, variance
    2 / fan_in), or gaussian (of standard deviation model.std in every layer); biases start at zero."""

    std: float = 0.1
    """Standard deviation of gaussian initial weights."""

    def __post_init__(self) -> None:
        _check_types(self, "model.")
        remedy = f"every layer needs at least 1 unit, and has at most {UNITS:,}"
        _require(all(1 <= n <= UNITS for n in self.hidden), "model.hidden", self.hidden, remedy)
        remedy = f"must be 0 (the architecture's own) or more channels, at most {UNITS:,}"
        _require(0 <= self.width <= UNITS, "model.width", self.width, remedy)
        _require(self.std > 0, "model.std", self.std, "must be above 0 and finite")
        if self.init != "gaussian":
            _require(self.std == Model.std, "model.std", self.std, "only gaussian has it: use model.init gaussian")


@dataclass(frozen=True)
class Recipe:
    """How one level is trained."""

    optimizer: str = "adam"
    """adam, adamw (weight decay apart from the gradient) or sgd."""

    learning_rate: float = 1.2e-3
    """Step size; where it follows a schedule, the highest."""

    schedule: str = "constant"
    """How the learning rate goes on: constant, milestones (times gamma after each), or cosine (to 0 at the end)."""

    milestones: tuple[int, ...] = ()
    """Iterations after which the learning rate is multiplied by gamma, in order; for schedule milestones."""

    gamma: float = 0.1
    """Factor of the learning rate at each milestone."""

    warmup: int = 0
    """Iterations in which the learning rate first rises, in equal steps; 0 for none."""

    momentum: float = 0.0
    """SGD's momentum, in [0, 1)."""

    nesterov: bool = False
    """Nesterov's form of that momentum."""

    weight_decay: float = 0.0
    """L2 penalty: this times the weight is added to its gradient, for kept weights and biases; under adamw the weight
    shrinks by this times the learning rate instead."""

    decay_biases: bool = True
    """Biases and the gains of norms decay too; without it, only what has two axes or more."""

    crop_padding: int = 0
    """Pixels of black around a training image, of which each iteration draws a crop of its own size; 0 for none."""

    flip: bool = False
    """Mirror half of the training images, drawn in each iteration."""

    batch_size: int = 60
    """Images per iteration."""

    drop_last: bool = False
    """Leave out the last, smaller batch of an epoch."""

    iterations: int = 50_000
    """Optimizer steps per level."""

    evaluate_every: int = 100
    """Iterations between evaluations on the validation and test images; the last iteration is always evaluated."""

    def __post_init__(self) -> None:
        _check_types(self, "recipe.")
        _choose(self.optimizer, "recipe.optimizer", OPTIMIZERS)
        _require(self.learning_rate > 0, "recipe.learning_rate", self.learning_rate, "must be above 0 and finite")
        _require(0 <= self.momentum < 1, "recipe.momentum", self.momentum, "must be in [0, 1)")
        if self.optimizer != "sgd":
            _require(self.momentum == 0, "recipe.momentum", self.momentum, "only sgd has momentum: use optimizer sgd")
        _require(self.momentum > 0 or not self.nesterov, "recipe.nesterov", True, "needs a recipe.momentum above 0")
        _require(self.weight_decay >= 0, "recipe.weight_decay", self.weight_decay, "must be 0 or more, finite")
        self._check_schedule()
        _within(0, self.crop_padding, PADDING, "recipe.crop_padding")
        for name in ("batch_size", "iterations", "evaluate_every"):
            _within(1, getattr(self, name), ITERATIONS, f"recipe.{name}")
        between = min(self.evaluate_every, self.iterations) * self.batch_size
        remedy = (
            f"{between:,} images between two evaluations are too many: at most {BETWEEN:,} of recipe.batch_size each"
        )
        _require(between <= BETWEEN, "recipe.evaluate_every", self.evaluate_every, remedy)

    def _check_schedule(self) -> None:
        last, marks = self.iterations, self.milestones
        _choose(self.schedule, "recipe.schedule", SCHEDULES)
        if self.schedule == "milestones":
            _require(marks != (), "recipe.milestones", marks, "give the iterations after which the rate falls")
            _require(list(marks) == sorted(set(marks)), "recipe.milestones", marks, "must rise: each iteration once")
            remedy = f"must lie between 0 and recipe.iterations = {last:,}"
            _require(all(0 < m < last for m in marks), "recipe.milestones", marks, remedy)
        else:
            remedy = "only the schedule milestones has them: use recipe.schedule milestones"
            _require(not marks, "recipe.milestones", marks, remedy)
            _require(self.gamma == Recipe.gamma, "recipe.gamma", self.gamma, remedy.replace("them", "it"))
        _require(0 < self.gamma <= 1, "recipe.gamma", self.gamma, "must be above 0, and at most 1")
        remedy = f"must be 0 or more iterations, and at most recipe.iterations = {last:,}"
        _require(0 <= self.warmup <= last, "recipe.warmup", self.warmup, remedy)


@dataclass(frozen=True)
class Pruning:
    """What leaves the network after each level."""

    criterion: str = "magnitude"
    """Score by which weights compete, lowest out first: magnitude or random."""

    scope: str = "layer"
    """layer: weights compete within their layer; global: across the network."""

    rate: float = 0.2
    """Fraction of the surviving weights pruned after each level, in [0, 1]."""

    layer_rates: dict[str, float] = field(default_factory=dict)
    """Other rates for some layers, by name pattern, e.g. "fc3.weight" 0.1 or "fc*" 0.3; in global scope 0 alone, for
    layers that are not pruned."""

    def __post_init__(self) -> None:
        _check_types(self, "pruning.")
        _choose(self.scope, "pruning.scope", SCOPES)
        _require(0 <= self.rate <= 1, "pruning.rate", self.rate, "must be in [0, 1]")
        for pattern, rate in self.layer_rates.items():
            name = f"pruning.layer_rates[{pattern!r}]"
            _require(0 <= rate <= 1, name, rate, "must be in [0, 1]")
            remedy = "in global scope layers have one rate, or 0 to be left unpruned"
            _require(self.scope == "layer" or rate == 0, name, rate, remedy)


@dataclass(frozen=True)
class Spec:
    """One experiment. Levels, replicates and branches say how much of it is wanted, the rest says what it is."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    recipe: Recipe = field(default_factory=Recipe)
    pruning: Pruning = field(default_factory=Pruning)

    start: str = "rewind"
    """Where each level of the trunk starts: rewind (to the initial weights, masked), or another start rule."""

    rewind_to: int | str = 0
    """Iteration of the dense run to whose weights tickets are rewound; 0 for the initial weights. "2%" is that share of
    recipe.iterations."""

    optimizer_state: str = "fresh"
    """What a rewound level's optimizer begins with: fresh (nothing), or saved (what the dense run's had then)."""

    data_order: str = "level"
    """In which order a level sees its batches: level (its own), or dense (that of the dense run)."""

    branches: tuple[str, ...] = ()
    """Other start rules for each level of the trunk after the dense one, such as reinit or random_mask; reinit:3 draws
    and trains each level three times."""

    levels: int = 20
    """Times that the network is pruned and trained again; level 0 is the dense network."""

    replicates: int = 1
    """Times that the whole experiment is run, each from its own random streams."""

    seed: int = 0
    """Seed of every random stream: initial weights, split, data order."""

    use: tuple[str | Path, ...] = ()
    """Python files that fill the registries with models, data sets, criteria or start rules of your own."""

    def __post_init__(self) -> None:
        _check_types(self)
        object.__setattr__(self, "use", tuple(map(os.fspath, self.use)))
        if isinstance(self.rewind_to, str):  # so that 2% and the iterations that it is are one experiment
            object.__setattr__(self, "rewind_to", _share(self.rewind_to, self.recipe))
        remedy = f"must be 0 (the dense network alone) or more, at most {LEVELS:,}"
        _require(0 <= self.levels <= LEVELS, "levels", self.levels, remedy)
        _within(1, self.replicates, REPLICATES, "replicates")
        _within(0, self.seed, 2**63 - 1, "seed")  # what TOML can write
        for entry in self.branches:
            remedy = "a branch is the name of a start rule, or name:draws with 1 draw or more, such as reinit:3"
            _require(re.fullmatch(r"[^:]+(:[1-9][0-9]*)?", entry) is not None, "branches", entry, remedy)
            name, _, draws = entry.partition(":")
            _require(len(draws) <= 5 and int(draws or 1) <= DRAWS, "branches", entry, f"at most {DRAWS:,} draws")
        for name in (names := [entry.partition(":")[0] for entry in self.branches]):
            _require(names.count(name) == 1, "branches", self.branches, f"name {name!r} once")
            _require(name != self.start, "branches", name, "is the trunk's own rule: leave it out, or change start")
        trained = self.replicates * (self.levels + 1 + self.levels * sum(self.draws.values()))
        remedy = f"with these levels and branches that is {trained:,} networks to train, at most {TRAINED:,}"
        _require(trained <= TRAINED, "replicates", self.replicates, remedy)
        self._check_rewinding()

    def _check_rewinding(self) -> None:
        last, k = self.recipe.iterations if self.recipe else ITERATIONS, self.rewound
        _require(0 <= k < last, "rewind_to", k, f"must be 0 or more, and below recipe.iterations = {last:,}")
        _choose(self.optimizer_state, "optimizer_state", OPTIMIZER_STATES)
        _choose(self.data_order, "data_order", DATA_ORDERS)
        if not k:
            remedy = "there is none before the first iteration: set rewind_to above 0"
            _require(self.optimizer_state == "fresh", "optimizer_state", self.optimizer_state, remedy)
            for name, value in [("start", self.start), *(("branches", name) for name in self.draws)]:
                _require(value != "lr_rewind", name, value, "needs a rewind_to above 0: at 0 it is continue")

    @property
    def network(self) -> str:
        """Name of the network that it trains."""
        return self.model.name

    @property
    def rewound(self) -> int:
        """The iteration that `rewind_to` says."""
        return int(self.rewind_to)

    @property
    def draws(self) -> dict[str, int]:
        """Branch -> how often each of its levels is drawn and trained."""
        return {name: int(draws or 1) for name, _, draws in (entry.partition(":") for entry in self.branches)}

    @property
    def uid(self) -> str:
        """Name of the run's folder: a readable part and a hash of every setting that can change a level's result.

        Only settings that differ from the defaults are hashed, so that a setting added later renames no old run.
        """
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.data.name}-{self.model.name}-{self.recipe.iterations}it-seed{self.seed}-{digest}"

    def identity(self) -> dict[str, Any]:
        """Settings by dotted name that differ from the defaults; how much is wanted (EXTENT) is not among them, nor
        where files are: a run is bound to what is in them."""
        ours, defaults = flatten(Spec.from_toml(self.to_toml())), flatten(Spec())  # 1 and 1.0 are one rate
        return {k: v for k, v in ours.items() if k not in (*EXTENT, "use") and v != defaults.get(k)}

    def differences(self, other: "Spec") -> dict[str, tuple[Any, Any]]:
        """Dotted name -> (value here, value there) of the settings in which two specs differ."""
        ours, theirs = flatten(self), flatten(other)
        return {k: (ours.get(k), theirs.get(k)) for k in ours | theirs if ours.get(k) != theirs.get(k)}

    def extended(self, other: "Spec") -> "Spec":
        """This experiment with as many levels, replicates and draws as the larger of the two, and both's branches."""
        draws = {n: max(self.draws.get(n, 1), other.draws.get(n, 1)) for n in self.draws | other.draws}
        return replace(
            self,
            levels=max(self.levels, other.levels),
            replicates=max(self.replicates, other.replicates),
            branches=tuple(name if count == 1 else f"{name}:{count}" for name, count in draws.items()),
        )

    def to_table(self) -> dict[str, Any]:
        """The settings as a file has them: what is absent is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def to_toml(self) -> str:
        """All settings as TOML, which `from_toml` reads."""
        return tomli_w.dumps(self.to_table())

    @staticmethod
    def from_toml(text: str, source: str = "spec") -> "Spec":
        """Raises LotteryError, naming `source`, for what is not TOML, an unknown setting or a value out of range."""
        with _parsing(text, source) as table:
            spec: Spec = _from_table(OwnLoop if "factory" in table else Spec, table)
            return spec


@contextmanager
def _parsing(text: str, source: str) -> Iterator[dict[str, Any]]:
    """The table that a text in TOML is. What is wrong with it, and with its settings, is said in the source's name."""
    try:
        if len(text) > FILE:
            raise LotteryError(f"{len(text):,} characters are no spec: it has at most {FILE:,}")
        yield tomllib.loads(text.removeprefix("\ufeff"))  # a mark that some editors leave
    except (tomllib.TOMLDecodeError, LotteryError) as error:
        raise LotteryError(f"{source}: {error}") from None
    except ValueError:  # Python converts no longer ones
        raise LotteryError(f"{source}: a number of over 4,300 digits: write a shorter one") from None
    except RecursionError:
        raise LotteryError(f"{source}: lists or tables hundreds deep: no setting needs more than two") from None


@dataclass(frozen=True)
class OwnLoop(Spec):
    """An experiment that `lottery.tickets` runs: networks and training are its script's own, so that it has no data
    set, no model and no recipe here."""

    data: None = None  # type: ignore[assignment]
    model: None = None  # type: ignore[assignment]
    recipe: None = None  # type: ignore[assignment]
    pruning: Pruning = None  # type: ignore[assignment]
    """Absent where somebody else pruned."""

    factory: str = ""
    """Name of the function that makes its networks."""

    prunable: tuple[str, ...] = ()
    """Name patterns of the tensors that masks cover; none for the weights of linear layers and of convolutions."""

    def __post_init__(self) -> None:
        remedy = "give the iteration: how many your loop has is not known here"
        _require(not isinstance(self.rewind_to, str), "rewind_to", self.rewind_to, remedy)
        for name in ("finetune", "finetune:1"):
            remedy = "trains on at the rate of a recipe's last iteration, and a loop of one's own has no recipe"
            _require(name not in self.branches, "branches", name, remedy)
        super().__post_init__()

    @property
    def network(self) -> str:
        """Name of the function that makes its networks."""
        return self.factory

    @property
    def title(self) -> str:
        """What trains it, in words."""
        return f"a loop of one’s own: {self.factory}"

    @property
    def uid(self) -> str:
        """A name for it; its folder has the one that it was given."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:8]
        return f"{re.sub('[^A-Za-z0-9]+', '-', self.factory).strip('-')}-seed{self.seed}-{digest}"


def _share(text: str, recipe: Recipe) -> int:
    """Iterations from "500" or "2%". Raises LotteryError for any other text."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(%?)", text)
    remedy = "must be an iteration, or a share of recipe.iterations such as 2%"
    _require(found is not None and ("." not in text or bool(found[2])), "rewind_to", text, remedy)
    assert found
    return round(float(found[1]) * recipe.iterations / 100) if found[2] else int(found[1])


GRID = "sweep"
"""The table of a TOML file that says which settings have several values."""

EXTENT = ("levels", "replicates", "branches")
"""Settings that say how much of an experiment is wanted: no level's result depends on them."""


def _from_table(part: Any, table: dict[str, Any], prefix: str = "") -> Any:
    """A spec, or a part of it, from what a TOML file says. Raises LotteryError, naming the setting."""
    settings, values = _settings(part), {}
    for name, value in table.items():
        kind = settings.get(name)
        if name == GRID and not prefix:
            raise LotteryError(f"[{GRID}] is for several experiments: lottery sweep takes it, a single run does not")
        if kind is None:
            raise LotteryError(known("setting", prefix + name, [prefix + setting for setting in settings]))
        if is_dataclass(kind):
            _require(isinstance(value, dict), name, value, f"must be a table: [{name}] and its settings below it")
            value = _from_table(kind, value, f"{name}.")
        elif get_origin(kind) is tuple and isinstance(value, list):
            value = tuple(value)
        elif get_origin(kind) is dict and isinstance(value, dict):
            value = {key: _to_float(number) for key, number in value.items()}
        elif kind is float:
            value = _to_float(value)
        values[name] = value
    return part(**values)


def _to_float(value: object) -> object:
    return float(value) if type(value) is int and abs(value) < 1 << 1000 else value


def flatten(spec: Spec) -> dict[str, Any]:
    """Dotted name -> value, as JSON would have it."""
    flat: dict[str, Any] = {}
    for name, value in spec.to_table().items():
        if name in ("data", "model", "recipe", "pruning"):
            flat |= {f"{name}.{key}": list(v) if isinstance(v, tuple) else v for key, v in value.items()}
        else:
            flat[name] = value
    return flat


def scalars() -> list[str]:
    """Dotted names of the settings that have one value: no list, no table, and no switch."""
    parts: dict[str, Any] = {"": Spec, "data.": Data, "model.": Model, "recipe.": Recipe, "pruning.": Pruning}
    kinds = {prefix + name: kind for prefix, part in parts.items() for name, kind in _settings(part).items()}
    return [name for name in flatten(Spec()) if kinds[name] in (int, float, str, int | str)]


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings in which not all of these are alike, in a spec's order. A run of a loop of one's own lacks
    some.

    Args:
        settings: one or more as of `flatten`.
    """
    names = dict.fromkeys(name for each in settings for name in each)
    return [name for name in names if any(each.get(name) != settings[0].get(name) for each in settings)]


LENET_RATES = {"fc3.weight": 0.1}  # the paper's: the output layer at half the rate of the others (Figure 2)

_SGD: dict[str, Any] = dict(
    optimizer="sgd", schedule="milestones", momentum=0.9, weight_decay=1e-4, crop_padding=4, flip=True
)

PRESETS: dict[str, Spec] = {
    "quickstart": Spec(
        data=Data(name="mnist-5k", validation=500),
        recipe=Recipe(iterations=1000, evaluate_every=20),  # 50 evaluations: what is picked of fewer is too coarse
        pruning=Pruning(layer_rates=LENET_RATES),
        branches=("reinit",),
        levels=16,
        replicates=10,  # what it takes to show a winning ticket on 1,000 test images
    ),
    # Twenty rounds of train, record, prune, reset: levels 0 to 19. It evaluates on test alone, so nothing is held out.
    "notebook": Spec(
        data=Data(validation=0),
        recipe=Recipe(iterations=5, evaluate_every=5),
        pruning=Pruning(layer_rates=LENET_RATES),
        levels=19,
    ),
    # Frankle & Carbin 2019, Section 2 and Figure 2.
    "lenet-mnist": Spec(pruning=Pruning(layer_rates=LENET_RATES), replicates=5),
    # The same paper, Section 3 and Figure 2: convolutions lose less than linear layers, the output layer half of those.
    **{
        f"conv{depth}-cifar10": Spec(
            data=Data(name="cifar10"),
            model=Model(name=f"conv-{depth}"),
            recipe=Recipe(learning_rate=learning_rate, iterations=iterations, evaluate_every=iterations // 50),
            pruning=Pruning(layer_rates={"conv*": convolutions, "fc3.weight": 0.1}),
            replicates=5,
        )
        for depth, learning_rate, iterations, convolutions in (
            (2, 2e-4, 20_000, 0.1),
            (4, 3e-4, 25_000, 0.1),
            (6, 3e-4, 30_000, 0.15),
        )
    },
    # The same paper, Section 4 and Appendices H and I: all convolutions compete, the output layer is left whole. The
    # warmup is what their tickets need when they are rewound to the first iteration.
    "resnet20-cifar10": Spec(
        data=Data(name="cifar10"),
        model=Model(name="resnet-20", init="kaiming_normal"),
        recipe=Recipe(
            **_SGD,
            learning_rate=0.03,
            milestones=(20_000, 25_000),
            warmup=20_000,
            batch_size=128,
            iterations=30_000,
            evaluate_every=500,
        ),
        pruning=Pruning(scope="global", layer_rates={"fc.weight": 0.0}),
        replicates=3,
    ),
    "vgg19-cifar10": Spec(
        data=Data(name="cifar10"),
        model=Model(name="vgg-19", init="kaiming_normal"),
        recipe=Recipe(
            **_SGD,
            learning_rate=0.1,
            milestones=(56_240, 84_360),
            warmup=10_000,
            batch_size=64,
            iterations=112_480,
            evaluate_every=1000,
        ),
        pruning=Pruning(scope="global", layer_rates={"fc.weight": 0.0}),
        replicates=3,
    ),
    # Small ones of both kinds, on embedded data: they finish where there is no GPU.
    "conv2-mnist-5k": Spec(
        data=Data(name="mnist-5k", validation=500),
        model=Model(name="conv-2"),
        recipe=Recipe(learning_rate=2e-4, iterations=1000, evaluate_every=40),
        pruning=Pruning(layer_rates={"conv*": 0.1, "fc3.weight": 0.1}),
        levels=8,
        replicates=2,
    ),
    "resnet8-mnist-5k-m": Spec(
        data=Data(name="mnist-5k-m", validation=500),
        model=Model(name="resnet-8", width=8, init="kaiming_normal"),
        recipe=Recipe(
            optimizer="sgd",
            learning_rate=0.1,
            schedule="milestones",
            milestones=(400, 500),
            warmup=50,
            momentum=0.9,
            weight_decay=1e-4,
            iterations=600,
            evaluate_every=20,
        ),
        pruning=Pruning(scope="global", layer_rates={"fc.weight": 0.0}),
        levels=8,
        replicates=3,
    ),
}
"""Name -> spec of the experiments that `lottery run NAME` knows."""


def load(preset_or_path: str | Path) -> Spec:
    """The preset of that name, or the spec in that TOML file; its `use` is relative to the file's folder. Raises
    LotteryError for neither."""
    check_type("preset", preset_or_path, Path)
    if preset_or_path in PRESETS:
        return PRESETS[str(preset_or_path)]
    path = Path(preset_or_path)
    return _at(path, Spec.from_toml(_text(preset_or_path), source=str(path)))


def load_all(preset_or_path: str | Path) -> list[Spec]:
    """The specs of a TOML file with a table [sweep], of dotted names of settings to lists of values: every combination,
    the last setting's values fastest. Of a preset, or a file without it, the one spec that `load` gives.

    Raises:
        LotteryError: as `load` does, and as `combinations` does.
    """
    check_type("preset", preset_or_path, Path)
    path = Path(preset_or_path)
    if preset_or_path in PRESETS or GRID not in _table(preset_or_path):
        return [load(preset_or_path)]
    with _parsing(_text(path), str(path)) as table:
        grid = table.pop(GRID)
        _require(isinstance(grid, dict), GRID, grid, f"must be a table: [{GRID}] and its settings below it")
        return [_at(path, spec) for spec in combinations(table, dict(_leaves(grid)))]


def _table(given: str | Path) -> dict[str, Any]:
    with _parsing(_text(given), str(given)) as table:
        return table


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted name -> values: recipe.seed = [] is a table in a table to TOML, and "recipe.seed" = [] is not."""
    for name, value in table.items():
        yield from _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]


def combinations(table: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[Spec]:
    """Every combination of these values of settings, the last one's fastest; the other settings are the table's.

    Args:
        table: of settings, as `Spec.to_table` gives it.
        grid: dotted name -> values, two or more.

    Raises:
        LotteryError: for a setting that does not exist, one without several values, too many combinations, and for what
            a spec refuses.
    """
    names = flatten(Spec())
    for name, values in grid.items():
        if name not in names:
            raise LotteryError(known("setting", name, names))
        remedy = "give a list of two values or more; a single one is no part of a sweep"
        _require(isinstance(values, list | tuple) and len(values) > 1, f"{GRID}: {name}", values, remedy)
    for part, value in table.items():
        if any(name.startswith(f"{part}.") for name in grid):
            _require(isinstance(value, Mapping), part, value, f"must be a table: [{part}] and its settings below it")
    check_count(prod(len(values) for values in grid.values()))
    specs = []
    for chosen in product(*grid.values()):
        settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in table.items()}
        for name, value in zip(grid, chosen, strict=True):
            part, _, setting = name.rpartition(".")
            (settings.setdefault(part, {}) if part else settings)[setting] = value
        specs.append(_from_table(Spec, settings))
    return specs


def check_count(runs: int) -> None:
    """Raises LotteryError for more experiments than a sweep may have."""
    _require(runs <= RUNS, GRID, f"{runs:,} combinations", f"at most {RUNS}: give fewer values")


def _text(given: str | Path) -> str:
    """Of a spec's file. Raises LotteryError where there is none."""
    path = Path(given)
    if not (path.suffix == ".toml" or os.path.isfile(path)):  # unlike Path's, no error for a name that no file can have
        raise LotteryError(known("preset", str(given), PRESETS) + ", or give the path of a .toml file")
    try:
        return read_bytes(path, FILE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LotteryError(f"cannot read the spec {path}: {error}: save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null in it
        raise LotteryError(f"cannot read the spec {path}: {error}") from error


def _at(path: Path, spec: Spec) -> Spec:
    """A spec as it lies in that file: its `use` from there."""
    if isinstance(spec, OwnLoop):
        raise LotteryError(f"{path} is of {spec.title}: only its own script can train it, so run that again")
    return replace(spec, use=tuple(path.parent / file for file in spec.use))
