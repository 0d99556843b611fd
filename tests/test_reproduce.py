"""A study from end to end: the real command, its runs made small; and the registry as it stands."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lottery import experiment, reproduce, study
from lottery.cli import main
from lottery.errors import LotteryError
from lottery.plots import BRANCH_COLOURS
from lottery.spec import Data, Model, Pruning, Recipe, Spec
from lottery.starts import STARTS


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
        scaling = name.removeprefix("scaling-") if name in study.SCALINGS else study.MAIN_SCALING
        spec = replace(base, data=Data("mnist-5k", scaling, 500), levels=1 if name in study.SCALINGS else 3)
        monkeypatch.setitem(study.RUNS, name, replace(study.RUNS[name], spec=spec))
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
    assert judged["run"].value_counts().to_dict() == {"main": 18, "continued": 2, **dict.fromkeys(study.SCALINGS, 20)}
    assert judged.loc[judged["run"] == "continued", "claim"].str[:2].tolist() == ["8a", "8b"]
    assert judged.loc[judged["run"] == "continued", "note"].str.endswith("12 iterations a level, 2 replicate(s)").all()
    assert set(judged["verdict"]) <= {"holds", "does not hold", "undecided"}
    levels = pd.read_csv(out / "levels.csv")
    by_run = levels.groupby(["run", "branch"]).size()
    (main_run,) = {run for run, branch in by_run.index if branch == "reinit"}
    # 2 replicates of levels 1 to 3, the trunk's of 0 to 3 too
    assert by_run[main_run].to_dict() == {"one_shot": 6, "reinit": 6, "rewind": 8}
    assert sorted(by_run.drop(main_run)) == [
        4,
        4,
        6,
        8,
    ]  # the scalings' own; that of l2 is the continued one's trunk too
    spec = Spec.from_toml((out / "main.toml").read_text())
    assert spec.uid == main_run
    printed = capsys.readouterr().out
    assert "written to runs/studies/lth-mnist-40it" in printed
    assert "| claim | paper | ours" in printed
    assert "| claim | paper | standardize | unit | l2 |" in printed

    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert call("--only", "fig4,claims") == 0  # trains nothing, and makes the same files
    assert "level  1" not in capsys.readouterr().out
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}

    assert call("--only", "fig3") == 0  # needs one run of them: the table keeps the others' rows
    assert sorted((out / "levels.csv").read_bytes().splitlines()) == sorted(before["levels.csv"].splitlines())


def test_every_default_figure_is_drawn(small: Path) -> None:
    assert call() == 0
    out = small / "runs" / "studies" / "lth-mnist-40it"
    names = {name for name, item in study.ITEMS.items() if item.default and item.draw}
    assert {path.stem for path in out.glob("*.png")} == names
    assert {path.stem for path in out.glob("*.pdf")} == names


def test_runs_are_shared() -> None:
    specs = reproduce.specs(["fig4", "fig9", "scaling"], 1000, 3)
    assert set(specs) == {"main", "continued", "scaling-standardize", "scaling-unit", "scaling-l2"}
    assert specs["main"].branches == ("reinit", "one_shot")
    assert specs["scaling-l2"] == specs["continued"]
    assert (specs["main"].levels, specs["main"].replicates) == (22, 3)
    other = specs["scaling-unit"]
    assert (other.levels, other.replicates, other.branches, other.recipe.iterations) == (7, 2, (), 300)


def test_the_main_run_is_the_papers() -> None:
    spec = reproduce.specs(["fig4"], 50_000, 5)["main"]
    assert (spec.recipe, spec.pruning.rate) == (Recipe("adam", 1.2e-3, batch_size=60, iterations=50_000), 0.2)
    assert (spec.model.name, spec.data.validation, spec.replicates) == ("lenet-300-100", 5000, 5)
    assert spec.pruning.layer_rates == {"fc3.weight": 0.1}


@pytest.mark.parametrize("name", study.ITEMS)
def test_items_name_runs_and_branches_that_there_are(name: str) -> None:
    for spec in reproduce.specs([name], 100, 1).values():
        experiment.check(spec)
        assert set(spec.draws) <= set(STARTS)
        assert set(spec.draws) <= set(BRANCH_COLOURS)


def test_cost_counts_what_is_missing(small: Path) -> None:
    runs = small / "runs"
    planned = reproduce.specs(["fig4", "claims"], 40, 2).values()
    before = reproduce.cost(planned, runs)
    assert before.total == before.missing > 0
    assert not before.measured
    assert call("--only", "fig15") == 0
    after = reproduce.cost(planned, runs)
    assert after.measured
    assert 0 < after.missing < after.total
    assert reproduce.cost(reproduce.specs(["fig15"], 40, 2).values(), runs).missing == 0
    full = reproduce.cost(reproduce.specs(["scaling"], 50_000, 1).values(), runs)
    assert full.total == full.missing


def test_the_list(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for item in study.ITEMS:
        assert f" {item} " in printed
    assert "50,000 iterations a level, 5 replicate(s)" in printed
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
