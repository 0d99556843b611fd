"""A study from end to end: the real command, its runs made small; and the registry as it stands."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest

from lottery.analysis.cost import cost
from lottery.api import open_run
from lottery.cli import main
from lottery.errors import LotteryError
from lottery.runs import experiment
from lottery.runs.store import Run
from lottery.spec import Data, Model, Pruning, Recipe, Spec, flatten
from lottery.starts import STARTS
from lottery.studies import STUDIES, claims_of, lth_fashion_mnist, reproduce
from lottery.studies.claims import Claim, gain_at
from lottery.studies.lth_mnist import ITEMS, MAIN_SCALING, RUNS, SCALINGS, STUDY, SWEEPS
from lottery.studies.study import Item, Planned, Results, Study, branches
from lottery.views.measures import BRANCH_COLOURS
from lottery.words import branch_name

SCALING_RUNS = ["scaling-standardize", "scaling-unit", "scaling-l2"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The main run and those of the scalings, on the embedded digits: three levels of a small network."""
    base = Spec(
        model=Model("mlp", hidden=(20, 10)),
        recipe=Recipe(evaluate_every=10),
        pruning=Pruning(rate=0.2, layer_rates={"fc3.weight": 0.1}),
        levels=3,
    )
    for name in ("main", "continued", "scaling-l2", "scaling-unit", "scaling-standardize"):
        scaling = name.removeprefix("scaling-") if name in SCALING_RUNS else MAIN_SCALING
        spec = replace(base, data=Data("mnist-5k", scaling, 500), levels=1 if name in SCALING_RUNS else 3)
        monkeypatch.setitem(RUNS, name, replace(RUNS[name], spec=spec))
    fashion = lth_fashion_mnist.STUDY.runs
    spec = replace(fashion["main"].spec, **{f: getattr(RUNS["main"].spec, f) for f in ("model", "recipe", "levels")})
    monkeypatch.setitem(fashion, "main", Planned(replace(spec, data=Data("mnist-5k", MAIN_SCALING, 400))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*words: str) -> int:
    return main(["reproduce", "lth-mnist", "--iterations", "40", "--replicates", "2", "--jobs", "1", *words])


def test_the_command_leaves_figures_claims_and_tables(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--only", "fig4,claims") == 0
    out = small / "runs" / "studies" / "lth-mnist-40it"
    assert (out / "fig4.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "fig4.pdf").read_bytes().startswith(b"%PDF")
    judged = pd.read_csv(out / "claims.csv", keep_default_na=False)
    assert judged.columns[:7].tolist() == ["claim", "paper", "ours", "low", "high", "replicates", "verdict"]
    assert judged["run"].value_counts().to_dict() == {"main": 18, "continued": 2, **dict.fromkeys(SCALING_RUNS, 20)}
    assert judged.loc[judged["run"] == "continued", "claim"].str[:2].tolist() == ["8a", "8b"]
    dense = open_run(Spec.from_toml((out / "main.toml").read_text()).uid).levels().query("level == 0")
    p = dense["test_accuracy_early_stop"].mean()
    margin = 100 * (p * (1 - p) / 1000) ** 0.5  # mnist-5k has 1,000 test images
    true_if = judged.loc[judged["run"] == "main"].set_index("claim")["true_if"]
    assert true_if[true_if.index.str.startswith("3a")].tolist() == [f"> {-margin:.3g}"]
    assert judged.loc[judged["run"] == "continued", "note"].str.endswith("12 iterations a level, 2 replicates").all()
    assert set(judged.loc[judged["verdict"] == "no verdict", "claim"].str[:2]) == {"8a"}
    assert set(judged["verdict"]) <= {"holds", "does not hold", "undecided", "no verdict"}
    assert (judged.loc[judged["verdict"] == "undecided", "note"] != "").all()
    levels = pd.read_csv(out / "levels.csv")
    by_run = levels.groupby(["run", "branch"]).size()
    (main_run,) = {run for run, branch in by_run.index if branch == "reinit"}
    # 2 replicates of levels 1 to 3, the trunk's of 0 to 3 too
    assert by_run[main_run].to_dict() == {"one_shot": 6, "reinit": 6, "rewind": 8}
    # the scalings' own; that of l2 is the continued one's trunk too
    assert sorted(by_run.drop(main_run)) == [4, 4, 6, 8]
    spec = Spec.from_toml((out / "main.toml").read_text())
    assert spec.uid == main_run
    printed = capsys.readouterr().out
    assert "written to runs/studies/lth-mnist-40it" in printed
    assert "| claim | paper | ours" in printed
    assert "| claim | paper | standardize | unit | l2 |" in printed
    assert f"The margin is {margin:.3g} points: one standard error of an accuracy of" in printed

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call("--only", "fig4,claims") == 0  # trains nothing, and makes the same files
    assert "level  1" not in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}

    assert call("--only", "fig3") == 0  # needs one run of them: the table keeps the others' rows
    assert sorted((out / "levels.csv").read_bytes().splitlines()) == sorted(before["levels.csv"].splitlines())


def test_every_default_figure_is_drawn(small: Path) -> None:
    assert call() == 0
    out = small / "runs" / "studies" / "lth-mnist-40it"
    names = {name for name, item in ITEMS.items() if item.default} - {"claims"}
    assert {path.stem for path in out.glob("*.png")} == names
    assert {path.stem for path in out.glob("*.pdf")} == names


def test_runs_are_shared() -> None:
    assert list(SCALINGS.values()) == SCALING_RUNS
    specs = reproduce.specs(STUDY, ["fig4", "fig9", "scaling"], 1000, 3)
    assert set(specs) == {"main", "continued", "scaling-standardize", "scaling-unit", "scaling-l2"}
    assert specs["main"].branches == ("reinit", "one_shot")
    assert specs["scaling-l2"] == specs["continued"]
    assert (specs["main"].levels, specs["main"].replicates) == (22, 3)
    other = specs["scaling-unit"]
    assert (other.levels, other.replicates, other.branches, other.recipe.iterations) == (7, 3, (), 300)


def test_whatever_is_claimed_or_shown_by_default_has_all_replicates() -> None:
    for name, study in STUDIES.items():
        default = reproduce.specs(study, reproduce.choose(name, ""), 1000, 10)
        assert {spec.replicates for spec in default.values()} == {10}
    appendix = reproduce.specs(STUDY, ["fig14", "f3", "f4", "f7"], 1000, 10)
    assert [spec.replicates for spec in appendix.values()] == [10]
    assert {spec.replicates for spec in reproduce.specs(STUDY, list(SWEEPS), 1000, 10).values()} == {2}


def test_fashion_mnist_is_the_same_study_of_other_images() -> None:
    study = STUDIES["lth-fashion-mnist"]
    items = reproduce.choose("lth-fashion-mnist", "")
    assert items == ["claims", "fig1", "fig3", "fig4", "fig11", "fig12"]
    (spec,) = reproduce.specs(study, items, 10_000, 10).values()
    assert reproduce.specs(study, ["claims"], 10_000, 10)["main"].branches == ("reinit", "one_shot")
    (mnist,) = reproduce.specs(STUDY, ["fig4"], 10_000, 10).values()
    assert (spec.data.name, spec.data.scaling, spec.branches) == ("fashion-mnist", "l2", ("reinit", "one_shot"))
    assert replace(spec, data=replace(spec.data, name="mnist")) == mnist
    assert list(study.claims) == [name for name in STUDY.claims if name not in ("8a", "8b")]
    assert all(study.claims[name] is STUDY.claims[name] for name in study.claims)


def test_fashion_mnist_with_a_margin_of_its_own(small: Path) -> None:
    paths = reproduce.reproduce("lth-fashion-mnist", iterations=40, replicates=2, margin=1.25)
    out = small / "runs" / "studies" / "lth-fashion-mnist-40it"
    assert {path.parent for path in paths} == {Path("runs/studies/lth-fashion-mnist-40it")}
    assert {path.stem for path in out.glob("*.png")} == {"fig1", "fig3", "fig4", "fig11", "fig12"}
    judged = pd.read_csv(out / "claims.csv").set_index("claim")
    assert judged.index.str[:2].tolist() == [name for name in STUDY.claims if name not in ("8a", "8b")]
    assert judged["true_if"].filter(like="3a").tolist() == ["> -1.25"]
    text = (out / "claims.md").read_text()
    assert "The margin is 1.25 points: set by --margin." in text
    assert "The paper's numbers are those of MNIST" in text
    (run,) = [path for path in (small / "runs").iterdir() if path.name != "studies"]
    rows = claims_of(open_run(run), 2.5)
    assert rows is not None
    assert [row["claim"] for row in rows] == judged.index.tolist()
    assert rows[4]["true_if"] == "> -2.5"


def test_the_main_run_is_the_papers() -> None:
    spec = reproduce.specs(STUDY, ["fig4"], 50_000, 5)["main"]
    assert (spec.recipe, spec.pruning.rate) == (Recipe("adam", 1.2e-3, batch_size=60, iterations=50_000), 0.2)
    assert (spec.model.name, spec.data.validation, spec.replicates) == ("lenet-300-100", 5000, 5)
    assert spec.pruning.layer_rates == {"fc3.weight": 0.1}


@pytest.mark.parametrize("name", ITEMS)
def test_items_name_runs_and_branches_that_there_are(name: str) -> None:
    for spec in reproduce.specs(STUDY, [name], 100, 1).values():
        experiment.check(spec)
        assert set(spec.draws) <= set(STARTS)
        assert set(spec.draws) <= set(BRANCH_COLOURS)


def test_the_sweeps_are_what_they_say() -> None:
    """Each run of appendix G differs from the main one in what is varied, and in nothing else."""
    base = flatten(RUNS["main"].spec)
    varied = {
        name: {label: {k: v for k, v in flatten(spec).items() if v != base[k]} for label, spec in specs.items()}
        for name, (_, specs) in SWEEPS.items()
    }
    adam = {label: {} if rate == 1.2e-3 else {"recipe.learning_rate": rate} for label, rate in rates("g1").items()}
    assert varied["g1"] == adam
    sgd = {label: {"recipe.optimizer": "sgd", "recipe.learning_rate": rate} for label, rate in rates("g2").items()}
    assert varied["g2"] == sgd
    assert varied["g3"] == {
        label: {"recipe.optimizer": "sgd", "recipe.learning_rate": rate, "recipe.momentum": 0.9}
        for label, rate in rates("g3").items()
    }
    assert varied["g4"] == {
        "0.1": {"pruning.rate": 0.1, "pruning.layer_rates": {"fc3.weight": 0.05}, "levels": 44},
        "0.2": {},
        "0.4": {"pruning.rate": 0.4, "pruning.layer_rates": {"fc3.weight": 0.2}, "levels": 10},
        "0.6": {"pruning.rate": 0.6, "pruning.layer_rates": {"fc3.weight": 0.3}, "levels": 5},
        "0.8": {"pruning.rate": 0.8, "pruning.layer_rates": {"fc3.weight": 0.4}, "levels": 3},
    }
    assert varied["g5"] == {
        label: {"model.init": "gaussian"} | ({} if std == 0.1 else {"model.std": std})
        for label, std in rates("g5").items()
    }
    assert varied["g6"] == {
        label: {"model.name": "mlp", "model.hidden": [int(size) for size in label.split("-")]}
        for label in SWEEPS["g6"][1]
    }
    for name, specs in varied.items():
        assert {f"{name}-{label}" for label in specs} == set(ITEMS[name].needs)


def rates(sweep: str) -> dict[str, float]:
    """Label -> the number that it says."""
    return {label: float(label) for label in SWEEPS[sweep][1]}


class Recorded:
    """Stands for a finished run: its levels are made up."""

    def __init__(self, spec: Spec, levels: pd.DataFrame) -> None:
        self.spec = spec
        self.path = Path(spec.uid)
        self.frame = levels
        self.info = {"images": {"test": 10_000}}

    def levels(self) -> pd.DataFrame:
        return self.frame


MEASURED = ("early_stop_iteration", "test_accuracy_early_stop", "test_accuracy", "train_accuracy")


def recorded(trunk: str = "rewind", branches: tuple[str, ...] = ("reinit", "one_shot", "one_shot_reinit")) -> Results:
    """The main run with a number of its own in each column of each branch at each level."""
    rows = []
    for b, branch in enumerate((trunk, *branches)):
        for level in range(0 if branch == trunk else 1, 5):
            of_its_own = {column: 0.9 + 0.02 * c + 0.004 * b + 0.0007 * level for c, column in enumerate(MEASURED)}
            of_its_own["early_stop_iteration"] *= 1000
            row = {"branch": branch, "replicate": 0, "draw": 0, "level": level, "density": 0.8**level}
            rows.append(row | of_its_own | {"iterations": 50_000})
    run = Recorded(RUNS["main"].spec, pd.DataFrame(rows))
    return Results(STUDY, cast(Mapping[str, Run], {"main": run}))


def drawn(ax: Any) -> dict[str, list[float]]:
    """Label -> values of the lines of a panel."""
    handles, labels = ax.get_legend_handles_labels()
    return {label: list(handle.lines[0].get_ydata()) for handle, label in zip(handles, labels, strict=True)}


@pytest.mark.parametrize("trunk", ["rewind", "continue"])
def test_figure_4_draws_each_column_where_it_belongs(trunk: str) -> None:
    results = recorded(trunk)
    axes = cast(list[Any], ITEMS["fig4"].make(results))
    assert [ax.get_title() for ax in axes] == ["4a", "4a", "4b", "4c one-shot", "4c one-shot", "training accuracy"]
    stop, early, last, train = MEASURED
    one_shot = ["one_shot", "one_shot_reinit"]
    for ax, column, names in zip(
        axes,
        (stop, early, last, stop, early, train),
        (*(3 * [[trunk, "reinit", *one_shot]]), one_shot, one_shot, [trunk, "reinit", *one_shot]),
        strict=True,
    ):
        check_panel(ax, results.levels(), trunk, column, names)


@pytest.mark.parametrize(
    ("item", "columns", "names"),
    [
        ("fig1", MEASURED[:2], ["rewind", "reinit"]),
        ("fig12", ("train_accuracy", "test_accuracy"), ["rewind", "reinit", "one_shot", "one_shot_reinit"]),
    ],
)
def test_other_figures_of_branches_too(item: str, columns: tuple[str, ...], names: list[str]) -> None:
    results = recorded()
    for ax, column in zip(cast(list[Any], ITEMS[item].make(results)), columns, strict=True):
        check_panel(ax, results.levels(), "rewind", column, names)


def deeper(levels: int = 16) -> Results:
    """The main run down to 2.8 %: dense network 98 % and 8,000 iterations, tickets 98.2 % and 6,000, reinit 97 % and
    9,000."""
    numbers = {"rewind": (0.982, 6000.0), "reinit": (0.97, 9000.0)}
    rows = []
    for branch, (accuracy, stop) in numbers.items():
        for level in range(0 if branch == "rewind" else 1, levels + 1):
            row = {"branch": branch, "replicate": 0, "draw": 0, "level": level, "density": 0.8**level}
            found = (accuracy, stop) if level else (0.98, 8000.0)
            row |= {"test_accuracy_early_stop": found[0], "early_stop_iteration": found[1], "iterations": 50_000}
            rows.append(row | {"test_accuracy": found[0], "train_accuracy": 1.0})
    return Results(STUDY, cast(Mapping[str, Run], {"main": Recorded(RUNS["main"].spec, pd.DataFrame(rows))}))


def points(ax: Any) -> dict[str, list[Any]]:
    """What is drawn of the paper, by label: percent of the weights, and value."""
    marks: dict[str, list[Any]] = {}
    for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
        if ", paper" in label:
            marks.setdefault(label, []).append(
                (float(handle.lines[0].get_xdata()[0]), float(handle.lines[0].get_ydata()[0]))
            )
    return marks


@pytest.mark.parametrize("item", ["fig1", "fig4"])
def test_the_papers_numbers_are_drawn_beside_ours(item: str) -> None:
    """38 % earlier at 21.1 %, equal at 3.6 %, and reinit 2.51 times later; 0.3 points better at 13.5 %, equal at 3.6 %,
    and reinit half a point worse than tickets."""
    axes = cast(list[Any], ITEMS[item].make(deeper()))
    dense, reinit = "ticket, paper", "random reinitialisation, paper"
    x = {level: 100 * 0.8**level for level in (7, 9, 15)}
    assert points(axes[0]) == {
        dense: [(x[7], pytest.approx(0.62 * 8000)), (x[15], pytest.approx(8000))],
        reinit: [(x[7], pytest.approx(2.51 * 6000))],
    }
    assert axes[0].get_ylim()[1] > 2.51 * 6000
    assert points(axes[1]) == {
        "ticket, paper: more": [(x[9], pytest.approx(98.3))],
        dense: [(x[15], pytest.approx(98))],
        reinit: [(x[7], pytest.approx(97.7))],
    }
    assert not any(points(ax) for ax in axes[2:])
    assert axes[0].figure.get_suptitle().splitlines()[2:] == [
        "bars: lowest to highest replicate",
        "marks: the paper's, relative to our dense network or ticket",
    ]


def test_what_a_run_lacks_is_not_drawn_of_the_paper() -> None:
    shallow = cast(list[Any], ITEMS["fig1"].make(deeper(4)))
    assert not any(points(ax) for ax in shallow)


@pytest.mark.parametrize("item", ["fig1", "fig4", "fig12"])
def test_figures_say_what_bars_mean(item: str) -> None:
    """And no word of the paper's marks where there are none."""
    results = recorded()
    results.study = STUDIES["lth-fashion-mnist"]
    axes = cast(list[Any], ITEMS[item].make(results))
    assert axes[0].figure.get_suptitle().splitlines()[-1] == "bars: lowest to highest replicate"
    assert "bars" not in results.title("Figure")


def test_titles_count_the_replicates_that_are_there() -> None:
    """Not those that a run was begun for."""
    one = recorded()
    levels = one.levels()
    begun_for_ten = replace(RUNS["main"].spec, replicates=10)
    two = Recorded(begun_for_ten, pd.concat([levels, levels.assign(replicate=1)]))
    assert one.title("Figure").endswith("50,000 iterations a level, 1 replicate")
    both = Results(STUDY, cast(Mapping[str, Run], {"main": one.run(), "other": two}))
    assert both.title("Figure", "other").endswith(" 2 replicates")
    assert both.title("Figure", "other", "main").endswith(" 1 to 2 replicates")


def check_panel(ax: Any, levels: pd.DataFrame, trunk: str, column: str, names: list[str]) -> None:
    lines = drawn(ax)
    assert list(lines) == [branch_name(name) for name in names]
    for name, values in zip(names, lines.values(), strict=True):
        rows = levels[(levels["branch"] == name) | ((levels["branch"] == trunk) & (levels["level"] == 0))]
        factor = 100 if "accuracy" in column else 1
        assert values == pytest.approx(list(factor * rows.sort_values("level")[column]), rel=1e-9)


def test_sparse_levels_are_expected_to_cost_less(tmp_path: Path) -> None:
    """0.86 ms an iteration at all weights and 0.57 ms at 21.1 %, for 266,200 weights: a thousand iterations each."""
    spec = replace(RUNS["main"].spec, recipe=Recipe(iterations=1000), levels=0)
    up_to = [cost([replace(spec, levels=level)], tmp_path).total for level in (0, 6, 7, 22)]
    assert up_to[0] == pytest.approx(0.86)
    assert up_to[2] - up_to[1] == pytest.approx(0.57, abs=0.01)
    assert up_to[3] < 0.6 * 23 * up_to[0]
    fast = replace(spec, pruning=Pruning(rate=0.789), levels=1)  # 21.1 % after one level
    assert cost([fast], tmp_path).total == pytest.approx(0.86 + 0.57)
    wide = replace(spec, model=Model("mlp", hidden=(600, 200)))
    assert cost([wide], tmp_path).total == pytest.approx(0.86 * (784 * 600 + 600 * 200 + 2000) / 266_200)


def test_cost_counts_what_is_missing(small: Path) -> None:
    runs = small / "runs"
    planned = reproduce.specs(STUDY, ["fig4", "claims"], 40, 2).values()
    before = cost(planned, runs)
    assert before.total == before.missing > 0
    assert not before.measured
    assert call("--only", "fig15") == 0
    after = cost(planned, runs)
    assert after.measured
    assert 0 < after.missing < after.total
    assert cost(reproduce.specs(STUDY, ["fig15"], 40, 2).values(), runs).missing == 0
    full = cost(reproduce.specs(STUDY, ["scaling"], 50_000, 1).values(), runs)
    assert full.total == full.missing


def test_another_paper_is_one_more_row(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its main run has a name of its own and trains on; another run of it draws noise. None of it is the first's."""
    base = replace(RUNS["main"].spec, start="continue", levels=2)
    paper = Study(
        runs={"whole": Planned(base, share=0.5), "noisy": Planned(replace(base, start="noise_1"))},
        items={
            "curve": Item("curves", {"whole": ("rewind",)}, branches("whole", "Curves", ("rewind",))),
            "said": Item("claims", {"whole": (), "noisy": ()}, lambda r: {"said.csv": r.judged().to_csv()}),
        },
        main="whole",
        claims={
            "a": Claim("training on helps", "> 0", lambda levels: gain_at(levels, "test_accuracy", 0.8)),
            "b": Claim("noise helps", "> 0", lambda levels: gain_at(levels, "test_accuracy", 0.8), run="noisy"),
        },
    )
    monkeypatch.setitem(STUDIES, "other", paper)
    assert main(["reproduce", "other", "--iterations", "40", "--replicates", "2", "--jobs", "1"]) == 0
    out = small / "runs" / "studies" / "other-40it"
    names = ["curve.pdf", "curve.png", "levels.csv", "noisy.toml", "said.csv", "whole.toml"]
    assert sorted(path.name for path in out.iterdir()) == names
    judged = pd.read_csv(out / "said.csv", keep_default_na=False)
    assert judged["run"].tolist() == ["whole", "noisy"]
    assert judged["claim"].tolist() == ["a training on helps", "b noise helps"]
    whole, noisy = judged["note"]
    assert "iterations a level" not in whole
    assert noisy.endswith("40 iterations a level, 2 replicates")
    for name, ours in zip(judged["run"], judged["ours"], strict=True):
        run = open_run(Spec.from_toml((out / f"{name}.toml").read_text()).uid)
        assert ours == pytest.approx(gain_at(run.levels(), "test_accuracy", 0.8).ours.mean)
    assert judged["ours"].nunique() == 2
    capsys.readouterr()
    assert main(["reproduce", "--list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "whole (rewind)" in printed
    assert "lth-mnist" in printed

    uid = Spec.from_toml((out / "whole.toml").read_text()).uid
    rows = claims_of(open_run(uid))
    assert rows is not None
    assert [row["claim"] for row in rows] == judged["claim"].tolist()
    assert rows[0]["number"].endswith(" points")
    assert claims_of(open_run(Spec.from_toml((out / "noisy.toml").read_text()).uid)) is None


def test_the_main_run_is_known_at_any_size() -> None:
    spec = RUNS["main"].spec
    other = replace(spec, seed=7, replicates=3, levels=2, branches=("reinit",), recipe=Recipe(iterations=123))
    assert STUDY.is_main(other)
    assert not STUDY.is_main(replace(other, data=Data(scaling="unit")))
    assert not STUDY.is_main(replace(other, recipe=Recipe(iterations=123, learning_rate=1e-3)))


def test_the_list(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for item in ITEMS:
        assert f" {item} " in printed
    assert "50,000 iterations a level, 5 replicates" in printed
    assert "estimates" in printed
    assert not (small / "runs").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reproduce", "imagenet"], "unknown study 'imagenet': choose from lth-mnist"),
        (["reproduce", "lth-mnist", "--only", "fig4,fig5"], "unknown item 'fig5': choose from claims, scaling, fig1"),
        (["reproduce", "lth-mnist", "--replicates", "0"], "replicates = 0: must be at least 1"),
        (["reproduce", "lth-mnist", "--iterations", "0"], "iterations = 0: must be at least 1"),
        (["reproduce", "--list", "imagenet"], "unknown study 'imagenet'"),
    ],
)
def test_mistakes_are_one_line_before_any_work(
    words: list[str], message: str, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not list(small.iterdir())


def test_items_by_name_only() -> None:
    assert reproduce.choose("lth-mnist", " fig4, claims ,") == ["fig4", "claims"]
    with pytest.raises(LotteryError, match="unknown item"):
        reproduce.choose("lth-mnist", "fig4 claims")
