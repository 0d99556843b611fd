"""The MNIST study of Frankle & Carbin 2019: two literal dicts, RUNS, what is trained, and ITEMS, what is shown.

An item names the runs and the branches that it needs and draws a figure from them; `lottery.reproduce` trains what is
missing and writes it all. Figures are named by the paper's numbers where we are sure of them, else by their appendix.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottery import claims, figures
from lottery.analysis import OpenRun
from lottery.errors import LotteryError
from lottery.plots import COLOURS
from lottery.spec import LENET_RATES, Data, Model, Pruning, Recipe, Spec

MAIN_SCALING = "l2"
"""The input scaling whose networks learn as fast as the paper's; all runs but the comparison of scalings use it."""

REINIT = "reinit"
"""One draw per level and replicate. The paper has three (reinit:3), which cost three times as much."""


@dataclass(frozen=True)
class Planned:
    """A run of a study, before it is known for how many iterations and replicates."""

    spec: Spec
    share: float = 1.0
    """Of the study's iterations."""
    replicates: int | None = None
    """At most so many."""

    def sized(self, iterations: int, replicates: int) -> Spec:
        share = max(min(1, iterations), round(self.share * iterations))  # of 1 it is 1, and 0 is Recipe's to refuse
        recipe = replace(self.spec.recipe, iterations=share)
        return replace(self.spec, recipe=recipe, replicates=min(replicates, self.replicates or replicates))


LENET = Spec(data=Data(scaling=MAIN_SCALING), pruning=Pruning(layer_rates=LENET_RATES), levels=22)


SHORT = 0.3
"""Share of the iterations for runs that only have to last until networks stop early, at the densities they have."""


def _scaled(scaling: str) -> Planned:
    return Planned(replace(LENET, data=Data(scaling=scaling), levels=7), share=SHORT, replicates=2)


def _recipes(optimizer: str, rates: Iterable[float], momentum: float = 0.0) -> dict[str, Spec]:
    return {f"{r:g}": replace(LENET, recipe=Recipe(optimizer, learning_rate=r, momentum=momentum)) for r in rates}


SWEEPS: dict[str, tuple[str, dict[str, Spec]]] = {
    "g1": ("learning rates of Adam", _recipes("adam", (2e-4, 4e-4, 8e-4, 1.2e-3, 1.6e-3, 2e-3))),
    "g2": ("learning rates of SGD", _recipes("sgd", (0.05, 0.1, 0.2, 0.4, 0.8, 1.2))),
    "g3": ("learning rates of SGD with momentum 0.9", _recipes("sgd", (0.005, 0.01, 0.025, 0.05, 0.1, 0.2), 0.9)),
    "g4": (
        "pruning rates (output layer half of it)",
        {
            f"{rate:g}": replace(LENET, pruning=Pruning(rate=rate, layer_rates={"fc3.weight": rate / 2}), levels=levels)
            for rate, levels in ((0.1, 44), (0.2, 22), (0.4, 10), (0.6, 5), (0.8, 3))
        },
    ),
    "g5": (
        "standard deviations of Gaussian initial weights",
        {f"{std:g}": replace(LENET, model=Model(init="gaussian", std=std)) for std in (0.0125, 0.025, 0.05, 0.1, 0.2)},
    ),
    "g6": (
        "sizes of the hidden layers",
        {
            f"{a}-{b}": replace(LENET, model=Model("mlp", hidden=(a, b)))
            for a, b in ((25, 9), (50, 17), (100, 34), (150, 50), (300, 100), (500, 167), (900, 300))
        },
    ),
}
"""Appendix G: what is varied, and label -> spec. The values are ours where the paper's are not in its text."""

RUNS: dict[str, Planned] = {
    "main": Planned(LENET),
    "scaling-standardize": _scaled("standardize"),
    "scaling-unit": _scaled("unit"),
    "scaling-l2": _scaled("l2"),
    "continued": Planned(replace(LENET, levels=15), share=SHORT, replicates=2),
    "appendix": Planned(LENET, share=0.2, replicates=3),
    **{
        f"{sweep}-{label}": Planned(spec, share=0.2, replicates=2)
        for sweep, (_, specs) in SWEEPS.items()
        for label, spec in specs.items()
    },
}
"""Name -> run. Two names may be one run."""

MEASURED_ON = {"8a": "continued", "8b": "continued"}
"""Claim -> run, where it is not the main one."""


class Results:
    """The finished runs of a study, by the names of RUNS."""

    def __init__(self, runs: dict[str, OpenRun]):
        self.runs = runs
        self._levels: dict[str, pd.DataFrame] = {}

    def levels(self, run: str) -> pd.DataFrame:
        """`OpenRun.levels`, read once."""
        if run not in self._levels:
            self._levels[run] = self.runs[run].levels()
        return self._levels[run]

    @property
    def main(self) -> pd.DataFrame:
        return self.levels("main")

    def tickets(self, run: str, level: int) -> pd.DataFrame:
        """A level's tickets of all replicates, one below the other, with a column `replicate`."""
        frame = self.levels(run)
        there = frame.loc[(frame["branch"] == "rewind") & (frame["level"] == level), "replicate"]
        return pd.concat([self.runs[run].ticket(level, r).assign(replicate=r) for r in there], ignore_index=True)

    def title(self, run: str, what: str) -> str:
        spec = self.runs[run].spec
        return (
            f"{what}\n{spec.model.name} on {spec.data.name} ({spec.data.scaling}), {spec.recipe.iterations:,} "
            f"iterations a level, {spec.replicates} replicate(s)"
        )

    def near(self, run: str, percents: Iterable[float]) -> list[int]:
        """Those levels of the paper's densities that the run has. Raises LotteryError if it has none."""
        found: list[int] = []
        for percent in percents:
            try:
                found.append(claims.near(self.levels(run), percent / 100))
            except LotteryError:
                continue
        if not found:
            raise LotteryError(
                f"{self.runs[run].path} has no level near {', '.join(map(str, percents))} % of the weights"
            )
        return list(dict.fromkeys(found))

    def history(self, run: str, curves: Iterable[tuple[str, int]]) -> pd.DataFrame:
        """The histories of those pairs of branch and level that there are."""
        there = set(self.levels(run)[["branch", "level"]].itertuples(index=False, name=None))
        found = [self.runs[run].history(branch, level=level) for branch, level in curves if (branch, level) in there]
        return pd.concat(found, ignore_index=True)


def _figure(axes: list[Axes]) -> Figure:
    figure = axes[0].get_figure()
    assert isinstance(figure, Figure)
    return figure


STOP, EARLY, LAST, TRAIN = "early_stop_iteration", "test_accuracy_early_stop", "test_accuracy", "train_accuracy"


def _branches(run: str, what: str, branches: tuple[str, ...], *columns: str) -> Callable[[Results], Figure]:
    """A figure of branches of one run against density, a panel for each column."""

    def draw(results: Results) -> Figure:
        axes = figures.panels(len(columns), results.title(run, what))
        lines = figures.branch_lines(results.levels(run), ("rewind", *branches))
        for ax, column in zip(axes, columns, strict=True):
            figures.against_density(lines, column, ax)
        figures.shared_legend(axes)
        return _figure(axes)

    return draw


def _sweep(name: str) -> Callable[[Results], Figure]:
    what, specs = SWEEPS[name]

    def draw(results: Results) -> Figure:
        lines = figures.value_lines({label: results.levels(f"{name}-{label}") for label in specs})
        axes = figures.panels(3, results.title(f"{name}-{next(iter(specs))}", f"{name.upper()}: {what}"))
        for ax, column in zip(axes, (STOP, EARLY, LAST), strict=True):
            figures.against_density(lines, column, ax)
        figures.shared_legend(axes)
        return _figure(axes)

    return draw


def _training(column: str, what: str) -> Callable[[Results], Figure]:
    """The paper's Figures 3 and 11: three panels of a column while training."""

    def draw(results: Results) -> Figure:
        axes = figures.panels(3, results.title("main", what))
        dense_on, later, again = (
            results.near("main", percents) for percents in ((100, 51.3, 21.1), (100, 7.0, 3.6, 1.9), (51.3, 21.1))
        )
        tickets, sparser = ([("rewind", level) for level in levels] for levels in (dense_on, later))
        compared = [(branch, level) for branch in ("rewind", "reinit") for level in again]
        history = results.history("main", dict.fromkeys(tickets + sparser + compared))
        for ax, curves in zip(axes, (tickets, sparser, compared), strict=True):
            figures.while_training(history, column, curves, ax, until=0.3)
        return _figure(axes)

    return draw


def _fig4(results: Results) -> Figure:
    axes = figures.panels(6, results.title("main", "Figure 4: early stopping, and accuracy there and at the end"))
    iterative = figures.branch_lines(results.main, ("rewind", "reinit", "one_shot", "one_shot_reinit"))
    one_shot = figures.branch_lines(results.main, ("one_shot", "one_shot_reinit"))
    for ax, name, lines, column in (
        (axes[0], "4a", iterative, STOP),
        (axes[1], "4a", iterative, EARLY),
        (axes[2], "4b", iterative, LAST),
        (axes[3], "4c one-shot", one_shot, STOP),
        (axes[4], "4c one-shot", one_shot, EARLY),
        (axes[5], "training accuracy", iterative, TRAIN),
    ):
        figures.against_density(lines, column, ax)
        ax.set_title(name, fontsize=10)
    figures.shared_legend(axes)
    return _figure(axes)


def _fig15(results: Results) -> Figure:
    levels = results.near("main", (100, 41.1, 16.9, 7.0, 2.9, 1.2))
    axes = figures.panels(len(levels), results.title("main", "Figure 15: initial weights of the surviving connections"))
    for ax, level in zip(axes, levels, strict=True):
        figures.initial_weights(results.tickets("main", level), ax)
        ax.set_title(figures.percent_label(results.main, level), fontsize=10)
    return _figure(axes)


def _f5(results: Results) -> Figure:
    level = results.near("main", (21.1, 41.1, 80.0))[0]
    share = figures.percent_label(results.main, level)
    dense, ticket = results.tickets("main", 0), results.tickets("main", level)
    dense = dense[dense["replicate"].isin(ticket["replicate"].unique())]
    names = dense["tensor"].unique()
    axes = figures.panels(
        len(names), results.title("main", f"F.5: how far the dense network's weights moved; ticket of {share}")
    )
    for ax, name in zip(axes, names, strict=True):
        figures.movement(dense, ticket["kept"], name, ax)
    return _figure(axes)


def _f6(results: Results) -> Figure:
    levels = results.near("main", (80.0, 41.1, 16.9, 7.0, 2.9, 1.2))
    tickets = {figures.percent_label(results.main, level): results.tickets("main", level) for level in levels}
    names = next(iter(tickets.values()))["tensor"].unique()
    axes = figures.panels(2 * len(names), results.title("main", "F.6: connections left at each unit"), len(names))
    for i, ax in enumerate(axes):
        figures.connections(tickets, names[i % len(names)], "unit" if i < len(names) else "input", ax)
    figures.shared_legend(axes)
    return _figure(axes)


def _scalings(results: Results) -> Figure:
    there = {name: results.levels(f"scaling-{name}") for name in ("standardize", "unit", "l2")}
    axes = figures.panels(3, results.title("scaling-l2", "Input scalings").replace(" (l2)", ""))
    lines = [figures.Line(name, frame, colour=COLOURS[i]) for i, (name, frame) in enumerate(there.items())]
    for ax, column in zip(axes, (STOP, EARLY, LAST), strict=True):
        figures.against_density(lines, column, ax)
    figures.shared_legend(axes)
    return _figure(axes)


@dataclass(frozen=True)
class Item:
    """Something that a study shows."""

    says: str
    needs: Mapping[str, tuple[str, ...]]
    """Run -> the branches of it that are needed beside its trunk."""
    draw: Callable[[Results], Figure] | None
    """The figure; None for the claims."""
    default: bool = True
    """Made unless others are asked for by name."""


MAIN = {"main": (REINIT,)}
SCALINGS: dict[str, tuple[str, ...]] = {f"scaling-{name}": () for name in ("standardize", "unit", "l2")}

ITEMS: dict[str, Item] = {
    "claims": Item(
        "the paper's claims, ours beside them, a verdict on each",
        {"main": (REINIT, "one_shot"), "continued": ("continue",), **SCALINGS},
        None,
    ),
    "scaling": Item("early stopping and accuracy under three input scalings", SCALINGS, _scalings),
    "fig1": Item(
        "Figure 1 (LeNet): early stopping of tickets and of reinitialised ones",
        MAIN,
        _branches(
            "main",
            "Figure 1: tickets (solid), reinitialised or at random places (dashed)",
            ("reinit", "random_mask_reinit"),
            STOP,
            EARLY,
        ),
    ),
    "fig3": Item(
        "Figure 3: test accuracy while training",
        MAIN,
        _training(LAST, "Figure 3: test accuracy while training, by weights remaining"),
    ),
    "fig4": Item(
        "Figure 4a-c: early stopping, accuracy there and at the end; one-shot pruning",
        {"main": (REINIT, "one_shot")},
        _fig4,
    ),
    "fig9": Item(
        "Figure 9 (Appendix B): resetting against continued training; three tenths of the iterations",
        {"continued": ("continue",)},
        _branches("continued", "Figure 9: resetting against continued training", ("continue",), STOP, EARLY, LAST),
    ),
    "fig11": Item(
        "Figure 11 (Appendix C): validation loss while training",
        MAIN,
        _training("validation_loss", "Figure 11: validation loss while training, by weights remaining"),
    ),
    "fig12": Item(
        "Figure 12 (Appendix D): training accuracy at the end",
        {"main": (REINIT, "one_shot")},
        _branches("main", "Figure 12: accuracies at the end", ("reinit", "one_shot", "one_shot_reinit"), TRAIN, LAST),
    ),
    "fig15": Item("Figure 15 (Appendix F.1): initial weights of the survivors", {"main": ()}, _fig15),
    "f5": Item("F.5: initial and final weights, in the ticket and outside it", {"main": ()}, _f5),
    "f6": Item("F.6: connections left at each unit", {"main": ()}, _f6),
    "fig14": Item(
        "Figure 14 (Appendix E, LeNet): reinitialised tickets and random masks; a fifth of the iterations",
        {"appendix": ("reinit", "random_mask", "random_mask_reinit")},
        _branches(
            "appendix",
            "Figure 14: lost weights (reinit) and lost places (random mask)",
            ("reinit", "random_mask", "random_mask_reinit"),
            *(STOP, EARLY, LAST),
        ),
        default=False,
    ),
    "f3": Item(
        "F.3: weights drawn anew from the tickets' own; a fifth of the iterations",
        {"appendix": ("reinit", "reinit_from_ticket", "shuffle", "same_sign")},
        _branches(
            "appendix",
            "F.3: weights drawn from the ticket's own, shuffled, or fresh with its signs",
            ("reinit", "reinit_from_ticket", "shuffle", "same_sign"),
            *(STOP, EARLY, LAST),
        ),
        default=False,
    ),
    "f4": Item(
        "F.4: the smallest initial weights pruned before training; a fifth of the iterations",
        {"appendix": ("reinit", "prune_at_init")},
        _branches("appendix", "F.4: pruned at initialisation", ("reinit", "prune_at_init"), STOP, EARLY, LAST),
        default=False,
    ),
    "f7": Item(
        "F.7: noise added to the tickets' initial weights; a fifth of the iterations",
        {"appendix": ("reinit", "noise_0.5", "noise_1", "noise_2", "noise_3")},
        _branches(
            "appendix",
            "F.7: noise on the initial weights, in standard deviations of the layer's",
            ("noise_0.5", "noise_1", "noise_2", "noise_3", "reinit"),
            *(STOP, EARLY, LAST),
        ),
        default=False,
    ),
    **{
        name: Item(
            f"{name.upper()[0]}.{name[1]}: {what}; a fifth of the iterations",
            {f"{name}-{label}": () for label in specs},
            _sweep(name),
            default=False,
        )
        for name, (what, specs) in SWEEPS.items()
    },
}
