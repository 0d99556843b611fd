"""Start rules: where one level begins. Rewinding variants and controls are the same kind of function.

A rewinding variant is a pair: which state, from which iteration.

    state, first iteration     1             k + 1                    T + 1
    θ₀                         rewind, k = 0
    θ_k, of the dense run                    rewind, k > 0
    of the level before        continue      lr_rewind                finetune

Controls change weights or masks of such a start; with fresh weights they begin at the first iteration, since a fresh
network has no k steps behind it.

Every rule keeps how many weights each layer has left, and the data order: the level of a branch sees its batches in the
order in which the trunk's level saw them, so that the two can be compared in pairs. What else it keeps, its row says.

To add one: a function from Trunk to Start and a row in STARTS.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from lottery import seeds
from lottery.errors import LotteryError, own_code
from lottery.masks import Masks, Weights, apply, keep_highest
from lottery.seeds import Key
from lottery.spec import Spec

Fresh = Callable[[np.random.Generator], Weights]
"""Another draw of every tensor from the spec's initialisation."""


@dataclass(frozen=True)
class Moment:
    """A training run between two iterations: with data and recipe, all that going on from there depends on."""

    iteration: int
    """Optimizer steps behind it."""
    weights: Weights
    """The state: every parameter and buffer."""
    optimizer: Weights = field(default_factory=dict)
    """The optimizer's state: "slot:tensor" -> array, and "step" -> steps taken; empty for a fresh one."""


@dataclass(frozen=True)
class Start:
    """Everything that a training run reads but the data and the recipe. Its arrays are copies, shared with nothing.

    Learning rate, data order and augmentation follow from the iteration: whoever starts at the k-th meets those of the
    k-th.
    """

    weights: Weights
    """The state that training begins with: every parameter and buffer, pruned weights exactly 0."""
    masks: Masks
    """What it keeps."""
    order: Key
    """Names the stream of the data order."""
    first: int = 0
    """Iterations that lie behind it: the next one is first + 1."""
    last: int | None = None
    """The iteration to end with; None for the recipe's last."""
    optimizer: Weights = field(default_factory=dict)
    """The optimizer's state, zero where weights are pruned; empty for a fresh one."""


def no_fresh(rng: np.random.Generator) -> Weights:
    raise LotteryError("this start rule draws fresh weights: pass levels(..., fresh=function of a NumPy generator)")


@dataclass(frozen=True)
class Rewinding:
    """The settings that start rules follow."""

    iterations: int = 0
    """Of a whole run, T: `finetune` goes on from there."""
    saved: bool = False
    """Rewound levels begin with the optimizer's state of then, instead of a fresh one."""
    same_order: bool = False
    """All levels see their batches in the dense run's order."""

    @staticmethod
    def of(spec: Spec) -> "Rewinding":
        """Those of a spec."""
        return Rewinding(spec.recipe.iterations, spec.optimizer_state == "saved", spec.data_order == "dense")


TO_START = Rewinding()


@dataclass(frozen=True)
class Trunk:
    """What a start rule may use: the state of the level loop before a level is trained."""

    key: Key
    """The spec's seed and the replicate: the head of every stream's name."""
    level: int
    """0 is the dense network."""
    initial: Weights
    """θ₀."""
    masks: Masks
    """What this level keeps."""
    dense: Weights = field(default_factory=dict)
    """What level 0 ended with; empty at level 0."""
    before: Weights = field(default_factory=dict)
    """What the level before ended with; empty at level 0."""
    fresh: Fresh = no_fresh
    draw: int = 0
    """Which of a branch's draws: rules that draw at random draw anew for each."""
    early: Moment | None = None
    """The dense run at iteration k; None for k = 0, which is θ₀."""
    rewinding: Rewinding = TO_START

    @property
    def point(self) -> Moment:
        """To where levels are rewound: θ_k, at iteration k of the dense run."""
        return self.early or Moment(0, self.initial)

    def stream(self, rule: str, *purpose: str) -> np.random.Generator:
        """A generator of this rule's own at this level and draw, whatever was drawn before."""
        return seeds.stream(*self.key, rule, self.level, self.draw, *purpose)


def rewind(trunk: Trunk) -> Start:
    """θ_k ⊙ m from iteration k on. With k = 0: Frankle & Carbin 2019, Section 1; later: Frankle et al. 2020, Section 4.

    For a k-th of the dense run whose mask is full and whose optimizer's state is saved, that is the dense run again.
    """
    return _rewound(trunk, trunk.masks)


def reinit(trunk: Trunk) -> Start:
    """Fresh weights in the trunk's mask: Section 1 and Figure 3, "random reinit"."""
    return _start(trunk, _fresh(trunk, "reinit"), trunk.masks)


def random_mask(trunk: Trunk) -> Start:
    """θ_k at random positions: Figure 1, dashed."""
    return _rewound(trunk, _random_masks(trunk, "random_mask"))


def random_mask_reinit(trunk: Trunk) -> Start:
    """Fresh weights at random positions: Figure 1, dashed."""
    return _start(trunk, _fresh(trunk, "random_mask_reinit"), _random_masks(trunk, "random_mask_reinit"))


def one_shot(trunk: Trunk) -> Start:
    """θ_k where the dense network ended with the largest weights, pruned at once: Section 2, "one-shot pruning"."""
    return _rewound(trunk, _largest(trunk.dense, trunk.masks))


def one_shot_reinit(trunk: Trunk) -> Start:
    """Fresh weights in the mask of `one_shot`: Figure 4, "random reinit (one-shot)"."""
    return _start(trunk, _fresh(trunk, "one_shot_reinit"), _largest(trunk.dense, trunk.masks))


def continue_(trunk: Trunk) -> Start:
    """What the level before ended with, masked, never rewound: Appendix B, "iterative pruning with continued training".

    Biases go on from where they were too.
    """
    return _start(trunk, trunk.before, trunk.masks)


def lr_rewind(trunk: Trunk) -> Start:
    """What the level before ended with, masked, trained again from iteration k on: only the learning rate is rewound.
    Renda et al. 2020, Section 3.

    Its optimizer begins fresh.
    """
    return replace(_start(trunk, trunk.before, trunk.masks), first=trunk.point.iteration)


def finetune(trunk: Trunk) -> Start:
    """What the level before ended with, masked, trained for T - k more iterations at the learning rate of the last one,
    T. Renda et al. 2020, Section 3.

    Its iterations are numbered from T + 1 on; its optimizer begins fresh.
    """
    total = trunk.rewinding.iterations
    return replace(_start(trunk, trunk.before, trunk.masks), first=total, last=2 * total - trunk.point.iteration)


def prune_at_init(trunk: Trunk) -> Start:
    """The largest of θ₀, where no training had a say: Appendix F.4."""
    return _start(trunk, trunk.initial, _largest(trunk.initial, trunk.masks))


def reinit_from_ticket(trunk: Trunk) -> Start:
    """Each survivor's weight is drawn, with replacement, from the layer's surviving weights in θ_k: Appendix F.3."""

    def draw(name: str, survivors: np.ndarray) -> np.ndarray:
        drawn: np.ndarray = trunk.stream("reinit_from_ticket", name).choice(survivors, survivors.size)
        return drawn

    return _survivors(trunk, draw)


def same_sign(trunk: Trunk) -> Start:
    """Fresh magnitudes with the signs of θ_k: Zhou et al. 2019, Section 4."""
    fresh = _fresh(trunk, "same_sign")
    return _survivors(trunk, lambda name, survivors: np.copysign(fresh[name][trunk.masks[name]], survivors))


def shuffle(trunk: Trunk) -> Start:
    """The surviving weights of θ_k, permuted within their layer: Zhou et al. 2019, Section 4."""
    return _survivors(trunk, lambda name, survivors: trunk.stream("shuffle", name).permutation(survivors))


def noise(trunk: Trunk, multiple: float) -> Start:
    """θ_k ⊙ m plus Gaussian noise, as wide as `multiple` standard deviations of the layer in θ_k: Appendix F.7."""

    def disturb(name: str, survivors: np.ndarray) -> np.ndarray:
        width = multiple * trunk.point.weights[name].std(dtype=np.float64)
        drawn = trunk.stream(f"noise_{multiple:g}", name).standard_normal(survivors.size)
        disturbed: np.ndarray = survivors + width * drawn
        return disturbed.astype(survivors.dtype)

    return _survivors(trunk, disturb)


def _start(trunk: Trunk, weights: Weights, masks: Masks) -> Start:
    """From the first iteration on."""
    order = (*trunk.key, "order", 0 if trunk.rewinding.same_order else trunk.level)
    return Start(apply(weights, masks), {n: m.copy() for n, m in masks.items()}, order)


def _rewound(trunk: Trunk, masks: Masks) -> Start:
    """θ_k in these masks, from iteration k on."""
    point = trunk.point
    slots = masked_slots(point.optimizer, masks) if trunk.rewinding.saved else {}
    return replace(_start(trunk, point.weights, masks), first=point.iteration, optimizer=slots)


def masked_slots(optimizer: Weights, masks: Masks) -> Weights:
    """An optimizer's state, "slot:tensor" -> array, as copies that are 0 where weights are pruned."""
    return {
        slot: apply({tensor: array}, masks)[tensor] if (tensor := slot.partition(":")[2]) else array.copy()
        for slot, array in optimizer.items()
    }


def _survivors(trunk: Trunk, change: Callable[[str, np.ndarray], np.ndarray]) -> Start:
    """θ_k ⊙ m with the surviving weights of each layer, in index order, replaced by what `change` makes of them."""
    start = rewind(trunk)
    for name, mask in trunk.masks.items():
        start.weights[name][mask] = change(name, trunk.point.weights[name][mask])
    return start


def _fresh(trunk: Trunk, rule: str) -> Weights:
    return trunk.fresh(trunk.stream(rule, "weights"))


def _random_masks(trunk: Trunk, rule: str) -> Masks:
    return {name: trunk.stream(rule, "mask", name).permuted(mask) for name, mask in trunk.masks.items()}


def _largest(weights: Weights, masks: Masks) -> Masks:
    """The largest of a layer's weights, as many as its mask keeps."""
    return {
        name: keep_highest(np.abs(weights[name]), np.ones_like(mask), int(np.count_nonzero(mask)))
        for name, mask in masks.items()
    }


WORDS = ("mask", "weights", "signs", "multiset", "biases")
"""What a rule keeps or changes, in each layer, compared with the trunk's ticket: its mask; the weights, in θ_k, of the
rule's own survivors, bit for bit; their signs; the survivors' weights in any order; the biases of θ_k."""


@dataclass(frozen=True)
class Rule:
    """A start rule and what it claims. The claims are tested, both ways: what isn't kept does change."""

    start: Callable[[Trunk], Start]
    keeps: tuple[str, ...] = ()
    """Of WORDS."""
    random: bool = False
    """Draws at random, so that there can be several draws of one level."""
    own_trunk: bool = False
    """As a branch, prunes what it has itself trained instead of following the trunk's masks."""

    @property
    def changes(self) -> tuple[str, ...]:
        return tuple(word for word in WORDS if word not in self.keeps)


STARTS: dict[str, Rule] = {
    "rewind": Rule(rewind, WORDS),
    "reinit": Rule(reinit, ("mask",), random=True),
    "random_mask": Rule(random_mask, ("weights", "signs", "biases"), random=True),
    "random_mask_reinit": Rule(random_mask_reinit, random=True),
    "one_shot": Rule(one_shot, ("weights", "signs", "biases")),
    "one_shot_reinit": Rule(one_shot_reinit, random=True),
    "continue": Rule(continue_, ("mask",), own_trunk=True),
    "lr_rewind": Rule(lr_rewind, ("mask",), own_trunk=True),
    "finetune": Rule(finetune, ("mask",), own_trunk=True),
    "prune_at_init": Rule(prune_at_init, ("weights", "signs", "biases")),
    "reinit_from_ticket": Rule(reinit_from_ticket, ("mask", "biases"), random=True),
    "same_sign": Rule(same_sign, ("mask", "signs", "biases"), random=True),
    "shuffle": Rule(shuffle, ("mask", "multiset", "biases"), random=True),
    **{
        f"noise_{multiple:g}": Rule(partial(noise, multiple=multiple), ("mask", "biases"), random=True)
        for multiple in (0.5, 1, 2, 3)
    },
}


def begin(name: str, trunk: Trunk) -> Start:
    """The start that the rule of that name makes. Raises LotteryError where it fails, or makes none of this network."""
    what = f"start rule {name}"
    with own_code(f"{what} fails"):
        start = STARTS[name].start(trunk)
    if not isinstance(start, Start):
        raise LotteryError(f"{what}: makes a {type(start).__name__}: it must make a lottery.starts.Start")
    for kind, ours, theirs in (("weights", trunk.initial, start.weights), ("masks", trunk.masks, start.masks)):
        for tensor in dict.fromkeys([*ours, *theirs]):
            one, other = (np.asarray(arrays[tensor]) if tensor in arrays else None for arrays in (ours, theirs))
            if one is None or other is None or (one.dtype, one.shape) != (other.dtype, other.shape):
                now, should = ("nothing" if a is None else f"{a.dtype} of shape {a.shape}" for a in (other, one))
                raise LotteryError(f"{what}: its {kind} of {tensor} are {now}: they must be {should}")
    for tensor, mask in start.masks.items():
        if count := np.count_nonzero(start.weights[tensor][~mask]):
            raise LotteryError(f"{what}: {count} pruned weights of {tensor} are not 0: use lottery.masks.apply")
    return start
