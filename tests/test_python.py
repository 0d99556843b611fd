"""What Python users see: names, help, bars."""

import inspect
import io
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import lottery
from lottery import fields, notebook
from lottery.cli import CHOICES, main
from lottery.errors import LotteryError
from lottery.runs import experiment
from lottery.runs.experiment import Progress
from lottery.runs.rows import Row, wanted
from lottery.spec import Spec
from lottery.views import plots, terminal

ROOT = Path(__file__).parent.parent
PARTS = [lottery.Spec, lottery.Data, lottery.Model, lottery.Recipe, lottery.Pruning]


def test_dir_shows_the_public_names() -> None:
    assert dir(lottery) == sorted(lottery.__all__)
    assert all(hasattr(lottery, name) for name in dir(lottery))


def test_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    """pyproject.toml's: where this fails after a new version, `make setup` installs it."""
    said = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert lottery.__version__ == said
    assert f"\nversion: {said}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {said} (" in (ROOT / "CHANGELOG.md").read_text()
    assert main(["--version"]) == 0
    module = subprocess.run([sys.executable, "-m", "lottery", "--version"], capture_output=True, text=True, check=True)
    assert capsys.readouterr().out == module.stdout == f"lottery {said}\n"


def test_the_module_ends_as_the_command_does() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lottery", "show", "none"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stderr.startswith("lottery: error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("part", PARTS)
def test_help_describes_every_field(part: type) -> None:
    text = inspect.getdoc(part) or ""
    said = fields.texts(part)
    assert list(said) == list(inspect.signature(part).parameters)
    for name, description in said.items():
        assert f"\n    {name}: {description}" in text
        assert len(description) > 5
    assert "lambda" not in str(inspect.signature(part))


def public() -> Iterator[tuple[str, Any]]:
    """Functions, classes and methods that users call."""
    for module in (lottery, notebook, plots):
        for name, thing in vars(module).items():
            if (
                name.startswith("_")
                or not callable(thing)
                or not str(getattr(thing, "__module__", "")).startswith("lot")
            ):
                continue
            yield f"{module.__name__}.{name}", thing
            for inner, method in vars(thing).items() if inspect.isclass(thing) else ():
                if not inner.startswith("_") and inspect.isfunction(inspect.unwrap(getattr(method, "fget", method))):
                    yield f"{module.__name__}.{name}.{inner}", method


@pytest.mark.parametrize(("name", "thing"), list(public()))
def test_what_is_public_is_documented(name: str, thing: Any) -> None:
    if name.endswith(".forward"):  # PyTorch's own, said in its class
        return
    assert inspect.getdoc(thing), name


def chosen(spec: Spec, kind: type, name: str, choice: str) -> Spec:
    """The spec with that setting of that part."""
    values: dict[str, Any] = {name: choice}
    if kind is lottery.Model and name == "name":
        values["hidden"] = (5, 4) if choice == "mlp" else ()
    if choice in ("lr_rewind", "saved"):
        values["rewind_to"] = 3
    if choice == "milestones":
        values["milestones"] = (3,)
    part = next((p for p in ("data", "model", "recipe", "pruning") if type(getattr(spec, p)) is kind), None)
    spec = replace(spec, pruning=lottery.Pruning())  # other networks have other layers
    return replace(spec, **({part: replace(getattr(spec, part), **values)} if part else values))


@pytest.mark.parametrize(("kind", "name"), list(CHOICES))
def test_choices_are_what_is_taken(tiny: Spec, kind: type, name: str) -> None:
    """Each name that --help shows for a setting, and no other."""
    for choice in CHOICES[kind, name]:
        experiment.check(chosen(tiny, kind, name, choice))
    with pytest.raises(LotteryError, match="nope"):
        experiment.check(chosen(tiny, kind, name, "nope"))


# --- bars


def events(spec: Spec) -> Iterator[Progress]:
    for place in wanted(spec):
        yield Progress(place, spec.recipe.iterations // 2, 0.5, done=0.5)
        yield Progress(place, spec.recipe.iterations, 0.5, Row(place, 0.5, 10, test_accuracy=0.5), done=1.0)


def shown(spec: Spec, monkeypatch: pytest.MonkeyPatch, **options: Any) -> str:
    """What a display prints of a whole run in which every event takes a second."""
    out = io.StringIO()
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) / 2)
    with terminal.Display(spec, Console(file=out, width=80, **options), Path("none"), "begun") as display:
        assert out.getvalue() == ""  # nothing is begun yet
        for event in events(spec):
            display(event)
    return out.getvalue()


def test_a_log_says_how_far_it_is_and_how_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    first, *lines = shown(Spec(levels=4, replicates=2), monkeypatch).splitlines()
    assert first == "begun"
    assert len(lines) == 10
    assert lines[0].startswith("rewind  replicate 0  level  0  weights left")
    assert [line.split("  ")[-1].strip().split(",")[0] for line in lines] == [f"{i} of 10 levels" for i in range(1, 11)]
    left = [int(line.split(":")[-1].split()[0]) for line in lines[:-1]]
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < left[0] < 60
    assert "left" not in lines[-1].split("levels")[-1]


def test_a_log_has_a_line_for_each_percent_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(Spec(levels=499, replicates=3), monkeypatch).splitlines()
    assert len(lines) == 1 + 100
    assert lines[-1].endswith("1500 of 1500 levels")
    assert len(shown(Spec(levels=99), monkeypatch).splitlines()) == 1 + 100


def test_levels_that_are_there_count_as_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec(levels=3)
    for place in list(wanted(spec))[:2]:
        (tmp_path / place.folder).mkdir(parents=True)
    display = terminal.Display(spec, Console(file=io.StringIO()), tmp_path)
    assert display.progress() == "2 of 4 levels"


def test_bars_have_one_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Spec(levels=3), monkeypatch, force_terminal=True)
    assert "total" in text
    assert "4 of 4 levels" in text


@pytest.mark.parametrize("progress", ["yes", 1, None])
def test_progress_is_a_switch_or_a_function(progress: Any, tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=r"progress = .*: must be True, False, or a function of one Progress"):
        lottery.run("quickstart", runs_dir=tmp_path, progress=progress)
    with pytest.raises(LotteryError, match="unknown log 'neptune': choose from tensorboard, wandb"):
        lottery.run("quickstart", runs_dir=tmp_path, log="neptune")
    with pytest.raises(
        LotteryError, match=r"log = 1: must be tensorboard, wandb, mlflow, a tracker .* see lottery\.Tracker"
    ):
        lottery.run("quickstart", runs_dir=tmp_path, log=["tensorboard", 1])  # type: ignore[list-item]  # refused: what is tested


def test_python_shows_lines_on_stderr_unless_told_not_to(
    tiny: Spec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = lottery.run(replace(tiny, levels=1), runs_dir=tmp_path, log="tensorboard")
    out, err = capsys.readouterr()
    assert (out, "2 of 2 levels" in err) == ("", True)
    assert len(list((run.path / "tensorboard").glob("*/*/events.*"))) == 1
    lottery.run(replace(tiny, levels=2), runs_dir=tmp_path, progress=False)
    assert capsys.readouterr() == ("", "")


# --- help


def help_of(*words: str) -> str:
    code = f"from lottery.cli import main; main({list(words)!r})"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_help_is_short_and_help_all_is_whole() -> None:
    short, whole = help_of("run", "--help"), help_of("run", "quickstart", "--help-all")
    assert len(short.splitlines()) < 90
    for part in ("--name", "--branches", "--recipe.iterations", "--use", "{mnist,fashion-mnist,", "examples:"):
        assert part in short
    settings = "--margin", "--recipe.momentum", "--pruning.layer-rates", "--start {rewind,", "{auto,sparse,torch}"
    for part in (*settings, "{adam,adamw,sgd}", "{layer,global}", "{fresh,saved}", "{level,dense}"):
        assert part in whole
    assert "--recipe.momentum" not in short
    assert "(default: 1000)" in whole  # the preset's


def test_a_refused_run_prints_no_banner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "quickstart", "--branches", "renit", "--runs-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "unknown branch" in err
