"""What an experiment is: one tree of frozen dataclasses, the single source for Python, the command line and TOML.

A spec says *what*, never where or how fast: folders, engines, devices and jobs are not in it. Its hash names the run.
It knows ranges, not registries: whether a data set or a criterion of that name exists is `experiment.check`'s to say.
"""

import hashlib
import json
import os
import re
import tomllib
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any

import dacite
import tomli_w

from lottery.errors import LotteryError, known


def _require(condition: bool, name: str, value: object, remedy: str) -> None:
    if not condition:
        raise LotteryError(f"{name} = {value!r}: {remedy}")


@dataclass(frozen=True)
class Data:
    """The images, and what of them is held out."""

    name: str = "mnist"
    """Data set: mnist, fashion-mnist, kmnist, or mnist-5k (embedded, needs no network)."""

    scaling: str = "standardize"
    """Input scaling: standardize (subtract the data set's mean, divide by its standard deviation), unit (to [0, 1]),
    or l2 (each image to length 1)."""

    validation: int = 5000
    """Training images held out, drawn by seed, to find the early-stopping iteration; 0 for none."""

    def __post_init__(self) -> None:
        _require(self.validation >= 0, "data.validation", self.validation, "must be 0 or more images")


@dataclass(frozen=True)
class Model:
    """The network and how its weights are first drawn."""

    name: str = "lenet-300-100"
    """Architecture: lenet-300-100, or mlp with hidden sizes of your own."""

    hidden: tuple[int, ...] = ()
    """Sizes of an mlp's hidden layers, in order; empty for a named architecture."""

    init: str = "glorot_normal"
    """Initial weights: glorot_normal (Gaussian, variance 2 / (fan_in + fan_out)), or gaussian (of standard deviation
    model.std in every layer); biases start at zero."""

    std: float = 0.1
    """Standard deviation of gaussian initial weights."""

    def __post_init__(self) -> None:
        _require(all(n >= 1 for n in self.hidden), "model.hidden", self.hidden, "every layer needs at least 1 unit")
        _require(0 < self.std < inf, "model.std", self.std, "must be above 0 and finite")
        if self.init != "gaussian":
            _require(self.std == Model.std, "model.std", self.std, "only gaussian has it: use model.init gaussian")


@dataclass(frozen=True)
class Recipe:
    """How one level is trained."""

    optimizer: str = "adam"
    """adam or sgd."""

    learning_rate: float = 1.2e-3
    """Step size."""

    momentum: float = 0.0
    """SGD's momentum, in [0, 1)."""

    weight_decay: float = 0.0
    """L2 penalty: this times the weight is added to its gradient, for kept weights and biases."""

    batch_size: int = 60
    """Images per iteration."""

    drop_last: bool = False
    """Leave out the last, smaller batch of an epoch."""

    iterations: int = 50_000
    """Optimizer steps per level."""

    evaluate_every: int = 100
    """Iterations between evaluations on the validation and test images; the last iteration is always evaluated."""

    def __post_init__(self) -> None:
        _require(self.optimizer in ("adam", "sgd"), "recipe.optimizer", self.optimizer, "use adam or sgd")
        _require(0 < self.learning_rate < inf, "recipe.learning_rate", self.learning_rate, "must be above 0 and finite")
        _require(0 <= self.momentum < 1, "recipe.momentum", self.momentum, "must be in [0, 1)")
        if self.optimizer == "adam":
            _require(self.momentum == 0, "recipe.momentum", self.momentum, "only sgd has momentum: use optimizer sgd")
        _require(0 <= self.weight_decay < inf, "recipe.weight_decay", self.weight_decay, "must be 0 or more, finite")
        for name in ("batch_size", "iterations", "evaluate_every"):
            _require(getattr(self, name) >= 1, f"recipe.{name}", getattr(self, name), "must be at least 1")


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
    """Other rates for some layers, by name pattern, e.g. "fc3.weight" 0.1 or "fc*" 0.3 (layer scope only)."""

    def __post_init__(self) -> None:
        _require(self.scope in ("layer", "global"), "pruning.scope", self.scope, "use layer or global")
        _require(0 <= self.rate <= 1, "pruning.rate", self.rate, "must be in [0, 1]")
        for pattern, rate in self.layer_rates.items():
            _require(0 <= rate <= 1, f"pruning.layer_rates[{pattern!r}]", rate, "must be in [0, 1]")
        if self.scope == "global":
            _require(not self.layer_rates, "pruning.layer_rates", self.layer_rates, "has no meaning in global scope")


@dataclass(frozen=True)
class Spec:
    """One experiment. Levels, replicates and branches say how much of it is wanted, the rest says what it is."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    recipe: Recipe = field(default_factory=Recipe)
    pruning: Pruning = field(default_factory=Pruning)

    start: str = "rewind"
    """Where each level of the trunk starts: rewind (to the initial weights, masked), or another start rule."""

    branches: tuple[str, ...] = ()
    """Other start rules for each level of the trunk after the dense one, such as reinit or random_mask; reinit:3 draws
    and trains each level three times."""

    levels: int = 20
    """Times that the network is pruned and trained again; level 0 is the dense network."""

    replicates: int = 1
    """Times that the whole experiment is run, each from its own random streams."""

    seed: int = 0
    """Seed of every random stream: initial weights, split, data order."""

    def __post_init__(self) -> None:
        _require(self.levels >= 0, "levels", self.levels, "must be 0 (the dense network alone) or more")
        _require(self.replicates >= 1, "replicates", self.replicates, "must be at least 1")
        _require(self.seed >= 0, "seed", self.seed, "must be 0 or more")
        for entry in self.branches:
            remedy = "a branch is the name of a start rule, or name:draws with 1 draw or more, such as reinit:3"
            _require(re.fullmatch(r"[^:]+(:[1-9][0-9]*)?", entry) is not None, "branches", entry, remedy)
        for name in (names := [entry.partition(":")[0] for entry in self.branches]):
            _require(names.count(name) == 1, "branches", self.branches, f"name {name!r} once")
            _require(name != self.start, "branches", name, "is the trunk's own rule: leave it out, or change start")

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
        """Settings by dotted name that differ from the defaults; how much is wanted (EXTENT) is not among them."""
        ours, defaults = flatten(Spec.from_toml(self.to_toml())), flatten(Spec())  # 1 and 1.0 are one rate
        return {k: v for k, v in ours.items() if k not in EXTENT and v != defaults[k]}

    def differences(self, other: "Spec") -> dict[str, tuple[Any, Any]]:
        """Dotted name -> (value here, value there) of the settings in which two specs differ."""
        ours, theirs = flatten(self), flatten(other)
        return {k: (ours[k], theirs[k]) for k in ours if ours[k] != theirs[k]}

    def extended(self, other: "Spec") -> "Spec":
        """This experiment with as many levels, replicates and draws as the larger of the two, and both's branches."""
        draws = {n: max(self.draws.get(n, 1), other.draws.get(n, 1)) for n in self.draws | other.draws}
        return replace(
            self,
            levels=max(self.levels, other.levels),
            replicates=max(self.replicates, other.replicates),
            branches=tuple(name if count == 1 else f"{name}:{count}" for name, count in draws.items()),
        )

    def check_types(self) -> None:
        """Raises LotteryError for a value of another type than the setting's: a constructor doesn't look."""
        try:
            same = Spec.from_toml(self.to_toml()) == self
        except (TypeError, ValueError) as error:
            raise LotteryError(f"the spec cannot be written as TOML: {error}") from error
        if not same:
            raise LotteryError("the spec changes when written and read: use plain numbers, strings and tuples")

    def to_toml(self) -> str:
        return tomli_w.dumps(asdict(self))

    @staticmethod
    def from_toml(text: str, source: str = "spec") -> "Spec":
        """Raises LotteryError, naming `source`, for what is not TOML, an unknown setting or a value out of range."""
        try:
            config = dacite.Config(strict=True, cast=[tuple], type_hooks={int: _not_bool, float: _to_float})
            return dacite.from_dict(Spec, tomllib.loads(text), config)
        except (tomllib.TOMLDecodeError, dacite.DaciteError, LotteryError) as error:
            raise LotteryError(f"{source}: {error}") from error


EXTENT = ("levels", "replicates", "branches")
"""Settings that say how much of an experiment is wanted: no level's result depends on them."""


def _not_bool(value: object) -> object:
    if isinstance(value, bool):  # Python's True is an int: `levels = true` would be one level
        raise LotteryError(f"{value} where a number belongs")
    return value


def _to_float(value: object) -> object:
    _not_bool(value)
    return float(value) if isinstance(value, int) else value


def flatten(spec: Spec) -> dict[str, Any]:
    """Dotted name -> value, as JSON would have it."""
    flat: dict[str, Any] = {}
    for name, value in asdict(spec).items():
        if name in ("data", "model", "recipe", "pruning"):
            flat |= {f"{name}.{key}": list(v) if isinstance(v, tuple) else v for key, v in value.items()}
        else:
            flat[name] = value
    return flat


LENET_RATES = {"fc3.weight": 0.1}  # the paper's: the output layer at half the rate of the others (Figure 2)

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
}


def load(preset_or_path: str) -> Spec:
    """The preset of that name, or the spec in that TOML file. Raises LotteryError for neither."""
    if preset_or_path in PRESETS:
        return PRESETS[preset_or_path]
    path = Path(preset_or_path)
    if path.suffix == ".toml" or os.path.isfile(path):  # unlike Path's, no error for a name that no file can have
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LotteryError(f"cannot read the spec {path}: {error}") from error
        return Spec.from_toml(text, source=str(path))
    raise LotteryError(known("preset", preset_or_path, PRESETS) + ", or give the path of a .toml file")
