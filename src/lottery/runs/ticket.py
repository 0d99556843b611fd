"""A ticket as a thing to take away: masks, the weights that it starts from and those that it was trained to.

In a file it takes what it weighs, in safetensors:

    mask:<name>        uint8: a mask, eight weights to a byte
    start:<name>       the weights that it starts from: of a prunable tensor those that the mask keeps, in index order
    trained:<name>     the weights that it ended with, in the same way
    optimizer:<slot>   what the optimizer begins with, where a ticket begins with any

and, under the one metadata key `lottery` (of several the order is not fixed), JSON: format, spec, network, row, source,
and the SHA-256 of all that. Reading one runs no code.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tomli_w
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from lottery import data, engines, models
from lottery.errors import LotteryError, check_type, known, own_code, shown
from lottery.masks import Masks, Weights, apply, pack, unpack
from lottery.models import Network
from lottery.runs import files
from lottery.runs.rows import Place, Row
from lottery.seeds import stream
from lottery.spec import OwnLoop, Spec
from lottery.starts import Moment, Rewinding, Start, Trunk, begin

if TYPE_CHECKING:  # two seconds
    import torch
    from torch import nn

    from lottery.engines.hold import Held
    from lottery.engines.sparse.predictor import Predictor

FORMAT = 1
"""Of a ticket's file."""

KEY = "lottery"
MASK, OPTIMIZER = "mask", "optimizer"

Which = Literal["start", "trained"]
"""Which weights of a ticket: those that it starts from, or those that it was trained to."""

WHICH: tuple[Which, ...] = ("start", "trained")


@dataclass(frozen=True, eq=False)
class Ticket:
    """A sparse subnetwork: `lottery.Run.ticket` gives it, `lottery.load_ticket` reads it from a file."""

    masks: Masks
    """Name -> boolean array, True = kept, of every prunable tensor."""
    start: Weights | None
    """The state that it starts from: every parameter and buffer, pruned weights +0.0. None where its file lacks it."""
    trained: Weights | None
    """The state that it was trained to. None where its file lacks it."""
    network: Network
    """What is known of its network: tensors, shapes, what is prunable."""
    spec: Spec
    """The experiment that it is of."""
    row: Row
    """What levels.csv says of it: where in its run it is, density, accuracies."""
    source: Mapping[str, Any]
    """Where it comes from: `run`, its name; `identity`, the hash of the settings; `engine` and `device`; `data`, the
    checksums of the images; `sha256` of the level's files; `started`, `versions` and `processor` of the session that
    began the run."""
    optimizer: Weights = field(default_factory=dict)
    """The state that its optimizer begins with, "slot:tensor" -> array; empty for a fresh one, and where
    code of one's own says."""

    def __repr__(self) -> str:
        """Its network, density and place."""
        return f"<Ticket of {self.spec.network}, {100 * self.row.density:.3g} % of the weights: {self.row.place}>"

    def weights(self, which: Which = "trained") -> Weights:
        """Its trained weights, or those that it starts from. Raises LotteryError where its file lacks them."""
        if which not in WHICH:
            raise LotteryError(known("weights", which, WHICH))
        found = self.trained if which == "trained" else self.start
        if found is None:
            raise LotteryError(
                f"this ticket has no {which} weights: its file was saved without, or --keep dropped them; take it from "
                f"its run, {self.source['run']}, again, or the {'start' if which == 'trained' else 'trained'} weights"
            )
        return found

    def module(self, factory: "Callable[[], nn.Module] | None" = None, weights: Which = "trained") -> "nn.Module":
        """A plain module with its weights, in evaluation mode.

        Args:
            factory: makes the network, where that is none of the package's own: a class without arguments, or a lambda
                around one with arguments.
            weights: trained, or start: those that it starts from, to train again.

        Raises:
            LotteryError: without a factory where one is needed, for a factory of another network, or for weights that
                the ticket's file lacks.
        """
        from lottery.models.torch import built, set_weights

        values = self.weights(weights)
        if factory is None:
            module = self._network().module()
        else:
            with own_code("factory fails"):
                module = built(factory, 0)
        try:
            set_weights(module, values)
        except LotteryError as error:
            raise LotteryError(f"factory makes another network than the ticket's: {error}") from error
        return module.eval()

    def state_dict(self, weights: Which = "trained") -> "dict[str, torch.Tensor]":
        """Its weights as `load_state_dict` takes them: copies, a tied tensor once, under its first name, for which it
        needs strict=False (`module` sets them all)."""
        import torch

        return {name: torch.from_numpy(array.copy()) for name, array in self.weights(weights).items()}

    def hold(self, module: "nn.Module") -> "AbstractContextManager[Held]":
        """Keeps what the ticket pruned at +0.0 while a `with` block trains the module; see `lottery.hold`."""
        from lottery.engines.hold import hold

        return hold(module, self.masks)

    def train(self, data_dir: Path | str | None = None) -> engines.Trained:
        """Trains it again from its start, by its own spec, data order and engine: on the machine that it comes from, to
        the same bits.

        Args:
            data_dir: where data sets are looked for first, in folders of their names; then $LOTTERY_DATA, cache, then
                the network.

        Returns:
            The weights, and every evaluation.

        Raises:
            LotteryError: for a ticket of a training loop or of code of one's own, without its start, or whose data or
                engine is not here.
        """
        spec, source = self.spec, self.source
        if isinstance(spec, OwnLoop):
            raise LotteryError(f"this ticket is of {spec.title}: only its own script can train it")
        if spec.use:
            words = f"made with code of one's own, {', '.join(map(str, spec.use))}"
            raise LotteryError(f"this ticket was {words}: `lottery run` trains it, in its run")
        start = self.begin()
        network, device = self._network(), engines.resolve_device(source["device"])
        engine = engines.choose(source["engine"], network, spec.recipe, device)
        return engines.trainer(engine, device)(network, self.images(data_dir), start, spec.recipe, lambda *_: None)

    def images(self, data_dir: Path | str | None = None) -> data.Splits:
        """The images that it was trained on, its replicate's own split of them, scaled as it takes them.

        Args:
            data_dir: as in `train`.

        Raises:
            LotteryError: where they are not here, or are others.
        """
        spec = self.spec
        raw = data.load(spec.data.name, Path(data_dir) if data_dir else None)
        if raw.sha256 != self.source["data"]:
            words = f"was trained on data {self.source['data']!r}, and here is {raw.sha256!r}"
            raise LotteryError(f"this ticket {words}")
        rng = stream(spec.seed, self.row.place.replicate, "split")
        return data.split(raw, spec.data.scaling, spec.data.validation, rng)

    def begin(self) -> Start:
        """All that its training reads, but data and recipe: its level's rule says of a state and masks where to begin.

        Raises LotteryError where its file lacks the weights that it starts from.
        """
        state = self.weights("start")
        start = begun(self.spec, self.row.place, state, self.masks, self.optimizer)
        slots = {slot: array.copy() for slot, array in self.optimizer.items()}
        return replace(start, weights=apply(state, self.masks), masks=dict(self.masks), optimizer=slots)

    def shrunk(self, factory: "Callable[[], nn.Module] | None" = None) -> "nn.Module":
        """A smaller module that computes the same, without units and channels that have no way in or no way out; see
        `lottery.models.shrink`. The argument and what is raised are as in `module`."""
        from lottery.models.shrink import shrink

        return shrink(self.module(factory))

    def predictor(self) -> "Predictor":
        """Computes logits on the surviving weights alone, on one core of a CPU; see
        `lottery.engines.sparse.predictor`. Raises LotteryError for a network that is no stack of linear layers."""
        from lottery.engines.sparse.predictor import Predictor

        return Predictor(self.network, self.weights(), self.masks)

    def save(self, path: Path | str, weights: Literal["both", "start", "trained"] = "both") -> Path:
        """Writes it to one file, of the same bytes each time, and returns the path.

        Args:
            path: of the file, which is replaced if it is there.
            weights: which of them to keep: both, or those that it starts from, or its trained ones alone.
        """
        check_type("path", path, Path)
        files.check_target(Path(path))
        if weights not in ("both", *WHICH):
            raise LotteryError(known("weights", weights, ("both", *WHICH)))
        arrays = {f"{MASK}:{name}": pack(mask) for name, mask in self.masks.items()}
        for which in WHICH if weights == "both" else [weights]:
            arrays |= {f"{which}:{name}": self._kept(name, array) for name, array in self.weights(which).items()}
        if weights != "trained":
            slots = self.optimizer.items()
            arrays |= {f"{OPTIMIZER}:{slot}": self._kept(slot.partition(":")[2], array) for slot, array in slots}
        record = {
            "format": FORMAT,
            "spec": self.spec.to_table(),
            "network": self.network.to_json(),
            "row": self.row.to_json(),
            "source": dict(self.source),
        }
        text = json.dumps(record)
        sealed = json.dumps({"record": text, "sha256": files.digest(arrays, text)})
        files.write(Path(path), save_tensors(arrays, {KEY: sealed}))
        return Path(path)

    def _kept(self, name: str, array: np.ndarray) -> np.ndarray:
        return array[self.masks[name]] if name in self.masks else array

    def _network(self) -> Network:
        """Its network, if it is one of the package's own or of what was registered here."""
        name = self.spec.network
        if isinstance(self.spec, OwnLoop) or name not in models.MODELS:
            raise LotteryError(
                f"this ticket is of a network of one's own, {name}, and loading it runs no code: give the function "
                "that makes it, such as ticket.module(Net)"
            )
        row, inputs = models.MODELS[name], self.network.inputs
        if models.is_row(row):
            network = models.network(self.spec.model, inputs, self.network.tensors[self.network.prunable[-1]].shape[0])
        else:
            from lottery.models.torch import described

            network = described(row, inputs)
        if network.tensors != self.network.tensors:
            raise LotteryError(f"this version builds {name} otherwise than the ticket's run did")
        return network


def load(path: Path | str) -> Ticket:
    """Reads the file that `Ticket.save` wrote, and runs no code.

    Raises:
        LotteryError: for one that is missing, no ticket, of a later version, or damaged.
    """
    check_type("path", path, Path)
    path = Path(path)
    if path.is_dir():
        raise LotteryError(f"{path} is a folder: name the ticket's file in it; a run's tickets are Run.ticket(level)")
    if not files.there(path):
        raise LotteryError(f"{path}: there is no such file; `lottery export RUN --level N -o {path}` writes a ticket")
    written = files.read(path)
    try:
        tensors = load_tensors(written)
        sealed = json.loads(json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])["__metadata__"][KEY])
    except Exception as error:
        raise LotteryError(
            f"{path} is no ticket, or a damaged one: `lottery export` writes them ({type(error).__name__})"
        ) from error
    again = "take it from its run again, or from a copy"
    try:
        text = sealed["record"]
        if (found := files.digest(tensors, text)) != sealed["sha256"]:
            raise LotteryError(f"its SHA-256 is {found}, recorded is {sealed['sha256']}")
        record = json.loads(text)
        number, maker = record["format"], record["source"].get("versions", {}).get("lottery", "another version")
    except Exception as error:
        raise LotteryError(f"{path} is a damaged ticket: {error}; {again}") from error
    if number != FORMAT:
        raise LotteryError(f"{path} has format {shown(number)}, this version reads {FORMAT}: use a newer one")
    try:
        return _unpacked(record, tensors)
    except Exception as error:
        raise LotteryError(f"{path} is of lottery {maker}, and this version cannot read it: {error}") from error


def _unpacked(record: dict[str, Any], arrays: Weights) -> Ticket:
    network = Network.from_json(record["network"])
    shapes = {name: tensor.shape for name, tensor in network.tensors.items()}
    masks = {name: unpack(arrays.pop(f"{MASK}:{name}"), shapes[name]) for name in network.prunable}

    def whole(name: str, array: np.ndarray) -> np.ndarray:
        if name not in masks:
            return array
        out = np.zeros(shapes[name], array.dtype)
        out[masks[name]] = array
        return out

    def weights(which: str) -> Weights | None:
        if not any(name.startswith(f"{which}:") for name in arrays):
            return None
        return {name: whole(name, arrays.pop(f"{which}:{name}")) for name in shapes}

    start, trained = weights("start"), weights("trained")
    slots = {name.partition(":")[2]: array for name, array in arrays.items()}
    optimizer = {slot: whole(slot.partition(":")[2], array) for slot, array in slots.items()}
    for state in (start, trained):
        if state and {name: array.shape for name, array in state.items()} != shapes:
            raise LotteryError("its weights do not fit its network")
    spec = Spec.from_toml(tomli_w.dumps(record["spec"]))
    return Ticket(masks, start, trained, network, spec, Row.from_json(record["row"]), record["source"], optimizer)


def begun(spec: Spec, place: Place, state: Weights, masks: Masks, optimizer: Weights) -> Start:
    """What the rule of that place makes of a trunk that has this state wherever the rule may look: its iterations, its
    data order, and whether it begins with the optimizer's state are those of the ticket."""
    early = Moment(spec.rewound, state, optimizer) if spec.rewound and place.level else None
    key = spec.seed, place.replicate
    what = (key, place.level, state, masks, state, state, lambda rng: state, place.draw, early, Rewinding.of(spec))
    return begin(place.branch if place.level else "rewind", Trunk(*what))
