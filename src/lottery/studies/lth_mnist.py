"""The MNIST study of Frankle & Carbin 2019, Section 2 and the appendices: RUNS, what is trained; ITEMS, what is shown;
CLAIMS, what the paper says of it.

Figures are named by the paper's numbers where we are sure of them, else by their appendix.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pandas as pd

from lottery.analysis.frames import curve, trunk_of
from lottery.analysis.statistics import interval
from lottery.analysis.verdicts import EARLY, LAST, LATER, STOP, Condition, unstopped
from lottery.errors import LotteryError
from lottery.spec import LENET_RATES, Data, Model, Pruning, Recipe, Spec
from lottery.studies.claims import (
    EARLIER,
    LESS,
    TIMES,
    Claim,
    Single,
    average,
    best,
    down_to,
    every,
    falls_below,
    gain,
    gain_at,
    near,
    number,
    pruned,
    single,
    sooner,
    sooner_at,
    values,
    within,
)
from lottery.studies.study import (
    BARS,
    MARKS,
    Draw,
    Item,
    Panels,
    Planned,
    Results,
    Stated,
    Study,
    branches,
    claims_files,
    mark_stated,
    sweep,
)
from lottery.views import plots

TRAIN = "train_accuracy"

MAIN_SCALING = "l2"
"""The input scaling whose networks learn as fast as the paper's; all runs but the comparison of scalings use it."""

REINIT = "reinit"
"""One draw per level and replicate. The paper has three (reinit:3), which cost three times as much."""

# --- what is trained -------------------------------------------------------------------------------------------------

LENET = Spec(data=Data(scaling=MAIN_SCALING), pruning=Pruning(layer_rates=LENET_RATES), levels=22)

SHORT = 0.3
"""Share of the iterations for runs that only have to last until networks stop early, at the densities they have."""

SCALINGS = {name: f"scaling-{name}" for name in ("standardize", "unit", "l2")}
"""Input scaling -> its run."""


def _recipes(optimizer: str, rates: Iterable[float], momentum: float = 0.0) -> dict[str, Spec]:
    return {f"{r:g}": replace(LENET, recipe=Recipe(optimizer, learning_rate=r, momentum=momentum)) for r in rates}


def _rate(rate: float, levels: int) -> Spec:
    """Pruned at that rate, the output layer at half of it."""
    return replace(LENET, pruning=Pruning(rate=rate, layer_rates={"fc3.weight": rate / 2}), levels=levels)


SWEEPS: dict[str, tuple[str, dict[str, Spec]]] = {
    "g1": ("G.1: learning rates of Adam", _recipes("adam", (2e-4, 4e-4, 8e-4, 1.2e-3, 1.6e-3, 2e-3))),
    "g2": ("G.2: learning rates of SGD", _recipes("sgd", (0.05, 0.1, 0.2, 0.4, 0.8, 1.2))),
    "g3": ("G.3: learning rates of SGD with momentum 0.9", _recipes("sgd", (0.005, 0.01, 0.025, 0.05, 0.1, 0.2), 0.9)),
    "g4": (
        "G.4: pruning rates (output layer half of it)",
        {f"{rate:g}": _rate(rate, levels) for rate, levels in ((0.1, 44), (0.2, 22), (0.4, 10), (0.6, 5), (0.8, 3))},
    ),
    "g5": (
        "G.5: standard deviations of Gaussian initial weights",
        {f"{std:g}": replace(LENET, model=Model(init="gaussian", std=std)) for std in (0.0125, 0.025, 0.05, 0.1, 0.2)},
    ),
    "g6": (
        "G.6: sizes of the hidden layers",
        {
            f"{a}-{b}": replace(LENET, model=Model("mlp", hidden=(a, b)))
            for a, b in ((25, 9), (50, 17), (100, 34), (150, 50), (300, 100), (500, 167), (900, 300))
        },
    ),
}
"""Appendix G: what is varied, and label -> spec. The values are ours where the paper's are not in its text."""

RUNS: dict[str, Planned] = {
    "main": Planned(LENET),
    **{run: Planned(replace(LENET, data=Data(scaling=name), levels=7), share=SHORT) for name, run in SCALINGS.items()},
    "continued": Planned(replace(LENET, levels=15), share=SHORT),
    "appendix": Planned(LENET, share=0.2),
    **{
        f"{name}-{label}": Planned(spec, share=0.2, replicates=2)
        for name, (_, specs) in SWEEPS.items()
        for label, spec in specs.items()
    },
}

# --- what the paper claims -------------------------------------------------------------------------------------------


def _about(percent: float) -> tuple[float, float]:
    """Levels of 20 % pruning from the paper's to the next sparser one: half a step beyond either."""
    return 0.8**1.5 * percent, percent / 0.8**0.5


def _sooner_per_level(levels: pd.DataFrame) -> Single:
    """The slope of a straight line through the logarithms from dense to 21.1 %."""
    at = down_to(levels, 0.211)
    if len(at) < 2:
        raise LotteryError("a trend needs two levels above 21.1 % of the weights")
    pairs = sooner(levels, at)
    logarithms = pairs.values[at].copy()
    logarithms.insert(0, 0, 0.0)  # the dense network is as soon as itself
    x = np.arange(len(at) + 1) - len(at) / 2
    return single((logarithms * x).sum(axis=1, skipna=False) / (x @ x), pairs.error / sqrt(x @ x))


def _best_at_the_end(levels: pd.DataFrame) -> Single:
    """Points above the dense network after the last iteration."""
    return best(gain(levels, LAST, pruned(levels)), pruned(levels))


def _one_shot_sooner(levels: pd.DataFrame) -> tuple[Condition, list[int]]:
    at = within(levels, 0.675, 0.176)
    return sooner(levels, at, "one_shot"), at


def _one_shot_gain(levels: pd.DataFrame) -> tuple[Condition, list[int]]:
    at = within(levels, 0.95, 0.0517)
    return gain(levels, EARLY, at, "one_shot"), at


def _training_accuracy(levels: pd.DataFrame) -> tuple[Condition, list[int]]:
    at = [0, *down_to(levels, 0.02)]
    return Condition(100 * values(levels, TRAIN, None, at), 0.0), at


def _than_training_on(levels: pd.DataFrame) -> tuple[Condition, list[int]]:
    at = down_to(levels, 0.036)
    return gain(levels, EARLY, at, other="continue"), at


def _sooner_than_training_on(levels: pd.DataFrame) -> tuple[Condition, list[int]]:
    at = down_to(levels, 0.036)
    return sooner(levels, at, other="continue"), at


CLAIMS: dict[str, Claim] = {
    "1a": Claim(
        "at 21.1 % tickets stop earlier than the dense network",
        "38",
        lambda levels: sooner_at(levels, 0.211),
        unit="% earlier",
        scale=EARLIER,
    ),
    "1b": Claim(
        "down to 21.1 % tickets stop earlier with every level",
        "> 0",
        _sooner_per_level,
        unit="% earlier a level",
        scale=EARLIER,
    ),
    "2a": Claim(
        "at 13.5 % tickets are more accurate at early stop than the dense network",
        "> 0",
        lambda levels: gain_at(levels, EARLY, 0.135),
    ),
    "2b": Claim(
        "at 13.5 % they are so by more than 0.3 points",
        "> 0.3",
        lambda levels: gain_at(levels, EARLY, 0.135),
        (0.3, inf),
    ),
    "3a": Claim(
        "at 3.6 % tickets are at most the margin less accurate than the dense network",
        "≈ 0",
        lambda levels: gain_at(levels, EARLY, 0.036),
        margin=True,
    ),
    "3b": Claim(
        "at 3.6 % tickets stop at most 10 % later than the dense network",
        "≈ 0",
        lambda levels: sooner_at(levels, 0.036),
        (100 * (1 - LATER), inf),
        unit="% earlier",
        scale=EARLIER,
    ),
    "4a": Claim(
        "at 21.1 % reinitialised tickets are less accurate than the dense network",
        "< 0",
        lambda levels: gain_at(levels, EARLY, 0.211, "reinit"),
        LESS,
    ),
    "4b": Claim(
        "at 2.9 % tickets are less accurate than the dense network",
        "< 0",
        lambda levels: gain_at(levels, EARLY, 0.029),
        LESS,
    ),
    "4c": Claim(
        "reinitialised tickets fall below the dense network at 21.1 % (or the next level)",
        "≈ 21.1",
        lambda levels: falls_below(levels, 0.211, "reinit"),
        _about(21.1),
        unit="% of the weights",
    ),
    "4d": Claim(
        "tickets fall below the dense network at 2.9 % (or the next level)",
        "≈ 2.9",
        lambda levels: falls_below(levels, 0.029),
        _about(2.9),
        unit="% of the weights",
    ),
    "5a": Claim(
        "at 21.1 % tickets stop earlier than reinitialised ones",
        "2.51",
        lambda levels: sooner_at(levels, 0.211, other=REINIT),
        (1.0, inf),
        unit="times",
        scale=TIMES,
    ),
    "5b": Claim(
        "at 21.1 % tickets are more accurate than reinitialised ones",
        "0.5",
        lambda levels: gain_at(levels, EARLY, 0.211, other=REINIT),
    ),
    "6a": Claim(
        "one-shot tickets stop earlier than the dense network at every level from 67.5 % to 17.6 %",
        "> 0",
        lambda levels: every(*_one_shot_sooner(levels)),
        unit="% earlier at the weakest",
        scale=EARLIER,
    ),
    "6b": Claim(
        "they do so on average over these levels",
        "> 0",
        lambda levels: average(*_one_shot_sooner(levels)),
        unit="% earlier",
        scale=EARLIER,
    ),
    "6c": Claim(
        "one-shot tickets are more accurate than the dense network at every level from 95.0 % to 5.17 %",
        "> 0",
        lambda levels: every(*_one_shot_gain(levels)),
        unit="points at the weakest",
    ),
    "6d": Claim("they are so on average over these levels", "> 0", lambda levels: average(*_one_shot_gain(levels))),
    "7a": Claim(
        "after the last iteration the best level is more accurate than the dense network", "0.35", _best_at_the_end
    ),
    "7b": Claim(
        "training accuracy is near 100 % at every level down to 2 %",
        "≈ 100",
        lambda levels: every(*_training_accuracy(levels)),
        (99.0, inf),
        unit="% at the weakest",
    ),
    "8a": Claim(
        "resetting stops earlier than training on, on average over the levels down to 3.6 %",
        "> 0",
        lambda levels: average(*_sooner_than_training_on(levels)),
        unit="% earlier",
        scale=EARLIER,
        run="continued",
        ill_posed="a continued network starts trained, so its lowest validation loss comes at once, and says nothing "
        "of how fast it learns",
    ),
    "8b": Claim(
        "resetting is more accurate than training on, on average over the levels down to 3.6 %",
        "> 0",
        lambda levels: average(*_than_training_on(levels)),
        run="continued",
    ),
}

STATED = (
    Stated(STOP, 0.211, 0.62),
    Stated(EARLY, 0.135, 0.3, at_least=True),
    Stated(STOP, 0.036, 1.0),
    Stated(EARLY, 0.036, 0.0),
    Stated(STOP, 0.211, 2.51, REINIT, than="rewind"),
    Stated(EARLY, 0.211, -0.5, REINIT, than="rewind"),
)
"""The numbers of claims 1a, 2b, 3b, 3a, 5a and 5b, for the figures."""

# --- what is shown ---------------------------------------------------------------------------------------------------


def _claims(results: Results) -> dict[str, str]:
    """Of the runs that claims are measured on, and what can be said under each input scaling."""
    judged = {name: results.judged_on(run).assign(run=run, scaling=name) for name, run in SCALINGS.items()}
    return claims_files(results, _scalings_table(results, judged), list(judged.values()))


def _scalings_table(results: Results, judged: Mapping[str, pd.DataFrame]) -> str:
    """How the scalings compare, where each of them has an answer, and which agree with the paper's speed-up."""
    rows = []
    for density in (1.0, 0.211):
        stops = [_stop(results.levels(run), density) for run in SCALINGS.values()]
        rows.append([f"early-stop iteration at {100 * density:g} %", "", *stops])
    for answers in zip(*(frame.to_dict("records") for frame in judged.values()), strict=True):
        if all(pd.notna(row["ours"]) for row in answers):
            rows.append([answers[0]["claim"], answers[0]["paper"], *map(number, answers)])
    lines = [["claim", "paper", *judged], (2 + len(judged)) * ["---"], *rows]
    agree = [name for name, frame in judged.items() if frame["size"].iloc[0] == "compatible"]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return (
        f"## Input scalings: {results.size(*SCALINGS.values())}\n\n{table}\n\n"
        f"The paper's number in 1a is in the interval of: {', '.join(agree) or 'none'}.\n"
    )


def _stop(levels: pd.DataFrame, density: float) -> str:
    """The mean early-stop iteration at that density."""
    try:
        level = near(levels, density)
    except LotteryError:
        return "–"
    mean = interval(curve(levels, STOP)[level]).mean
    at_least = "≥ " if (unstopped(levels)[level] > 0).any() else ""
    return "–" if np.isnan(mean) else f"{at_least}{mean:,.0f}"


def _training(column: str, what: str) -> Draw:
    """The paper's Figures 3 and 11: three panels of a column while training."""

    def draw(results: Results) -> Panels:
        axes = plots.panels(3, results.title(what, notes=(BARS,)))
        trunk = trunk_of(results.levels())
        for ax, names, percents in (
            (axes[0], (trunk,), (100, 51.3, 21.1)),
            (axes[1], (trunk,), (100, 7.0, 3.6, 1.9)),
            (axes[2], (trunk, "reinit"), (51.3, 21.1)),
        ):
            curves = [(branch, level) for branch in names for level in results.near(percents)]
            plots.while_training(results.history(curves), column, curves, ax, until=0.3)
        return axes

    return draw


def _fig4(results: Results) -> Panels:
    notes = (BARS, MARKS) if results.study.stated else (BARS,)
    title = results.title("Figure 4: early stopping, and accuracy there and at the end", notes=notes)
    axes = plots.panels(6, title)
    levels = results.levels()
    one_shot = ("one_shot", "one_shot_reinit")
    iterative = (trunk_of(levels), "reinit", *one_shot)
    for ax, name, names, column in (
        (axes[0], "4a", iterative, STOP),
        (axes[1], "4a", iterative, EARLY),
        (axes[2], "4b", iterative, LAST),
        (axes[3], "4c one-shot", one_shot, STOP),
        (axes[4], "4c one-shot", one_shot, EARLY),
        (axes[5], "training accuracy", iterative, TRAIN),
    ):
        plots.against_density(plots.branch_lines(levels, names), column, ax)
        if name == "4a":
            mark_stated(results, column, ax)
        ax.set_title(name, fontsize=10)
    plots.shared_legend(axes)
    return axes


def _fig15(results: Results) -> Panels:
    levels = results.near((100, 41.1, 16.9, 7.0, 2.9, 1.2))
    axes = plots.panels(len(levels), results.title("Figure 15: initial weights of the surviving connections"))
    for ax, level in zip(axes, levels, strict=True):
        plots.initial_weights(results.weights(level), ax)
        ax.set_title(plots.percent_label(results.levels(), level), fontsize=10)
    return axes


def _f5(results: Results) -> Panels:
    level = results.near((21.1, 41.1, 80.0))[0]
    dense, ticket = results.weights(0), results.weights(level)
    dense = dense[dense["replicate"].isin(ticket["replicate"].unique())]
    names = dense["tensor"].unique()
    share = plots.percent_label(results.levels(), level)
    title = results.title(f"F.5: how far the dense network's weights moved; ticket of {share}")
    axes = plots.panels(len(names), title)
    for ax, name in zip(axes, names, strict=True):
        plots.movement(dense, ticket["kept"], name, ax)
    return axes


def _f6(results: Results) -> Panels:
    levels = results.near((80.0, 41.1, 16.9, 7.0, 2.9, 1.2))
    tickets = {plots.percent_label(results.levels(), level): results.weights(level) for level in levels}
    names = next(iter(tickets.values()))["tensor"].unique()
    axes = plots.panels(2 * len(names), results.title("F.6: connections left at each unit"), len(names))
    for i, ax in enumerate(axes):
        plots.connections(tickets, names[i % len(names)], "unit" if i < len(names) else "input", ax)
    plots.shared_legend(axes)
    return axes


def _appendix(says: str, title: str, names: tuple[str, ...]) -> Item:
    """Branches of the run that is for appendices."""
    says = f"{says}; a fifth of the iterations"
    return Item(says, {"appendix": names}, branches("appendix", title, names), default=False)


def _swept(name: str) -> Item:
    what, specs = SWEEPS[name]
    runs = {label: f"{name}-{label}" for label in specs}
    says = f"{what}; a fifth of the iterations"
    return Item(says, dict.fromkeys(runs.values(), ()), sweep(what, runs), default=False)


ITEMS: dict[str, Item] = {
    "claims": Item(
        "the paper's claims, ours beside them, a verdict on each",
        {"main": (REINIT, "one_shot"), "continued": ("continue",), **dict.fromkeys(SCALINGS.values(), ())},
        _claims,
    ),
    "scaling": Item(
        "early stopping and accuracy under three input scalings",
        dict.fromkeys(SCALINGS.values(), ()),
        sweep("Input scalings", SCALINGS),
    ),
    "fig1": Item(
        "Figure 1 (LeNet): early stopping of tickets and of reinitialised ones",
        {"main": (REINIT,)},
        branches(
            "main",
            "Figure 1: tickets (solid), reinitialised or at random places (dashed)",
            ("reinit", "random_mask_reinit"),
            (STOP, EARLY),
        ),
    ),
    "fig3": Item(
        "Figure 3: test accuracy while training",
        {"main": (REINIT,)},
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
        branches("continued", "Figure 9: resetting against continued training", ("continue",)),
    ),
    "fig11": Item(
        "Figure 11 (Appendix C): validation loss while training",
        {"main": (REINIT,)},
        _training("validation_loss", "Figure 11: validation loss while training, by weights remaining"),
    ),
    "fig12": Item(
        "Figure 12 (Appendix D): training accuracy at the end",
        {"main": (REINIT, "one_shot")},
        branches("main", "Figure 12: accuracies at the end", ("reinit", "one_shot", "one_shot_reinit"), (TRAIN, LAST)),
    ),
    "fig15": Item("Figure 15 (Appendix F.1): initial weights of the survivors", {"main": ()}, _fig15),
    "f5": Item("F.5: initial and final weights, in the ticket and outside it", {"main": ()}, _f5),
    "f6": Item("F.6: connections left at each unit", {"main": ()}, _f6),
    "fig14": _appendix(
        "Figure 14 (Appendix E, LeNet): reinitialised tickets and random masks",
        "Figure 14: lost weights (reinit) and lost places (random mask)",
        ("reinit", "random_mask", "random_mask_reinit"),
    ),
    "f3": _appendix(
        "F.3: weights drawn anew from the tickets' own",
        "F.3: weights drawn from the ticket's own, shuffled, or fresh with its signs",
        ("reinit", "reinit_from_ticket", "shuffle", "same_sign"),
    ),
    "f4": _appendix(
        "F.4: the smallest initial weights pruned before training",
        "F.4: pruned at initialisation",
        ("reinit", "prune_at_init"),
    ),
    "f7": _appendix(
        "F.7: noise added to the tickets' initial weights",
        "F.7: noise on the initial weights, in standard deviations of the layer's",
        ("noise_0.5", "noise_1", "noise_2", "noise_3", "reinit"),
    ),
    **{name: _swept(name) for name in SWEEPS},
}

STUDY = Study(RUNS, ITEMS, main="main", claims=CLAIMS, stated=STATED)
