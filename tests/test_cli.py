"""The command line as a user meets it: real processes, one line for each mistake, exit code 2."""

import csv
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import lottery
from lottery import cli
from lottery.analysis import listing
from lottery.cli import main
from lottery.engines import ENGINES
from lottery.runs import experiment
from lottery.spec import PRESETS, Spec
from lottery.starts import STARTS
from lottery.views import measures, plots
from lottery.words import branch_name

LOTTERY = str(Path(sys.executable).with_name("lottery"))


def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([LOTTERY, *arguments], cwd=cwd, capture_output=True, text=True, check=False)


SMALL = ("--branches", "", "--iterations", "20", "--recipe.evaluate-every", "10", "--levels", "1", "--replicates", "1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `lottery run quickstart`, made smaller, has been run."""
    folder = tmp_path_factory.mktemp("cli")
    result = call("run", "quickstart", *SMALL, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout  # plain where it is no terminal
    assert "rewind  replicate 0  level  1  weights left  80.04 %  test accuracy" in result.stdout
    return folder


def test_a_run_leaves_its_table_and_figures(finished: Path) -> None:
    (path,) = (finished / "runs").iterdir()
    assert path.name.startswith("mnist-5k-lenet-300-100-20it-seed0-")
    rows = list(csv.DictReader((path / "levels.csv").read_text().splitlines()))
    assert [row["level"] for row in rows] == ["0", "1"]
    assert all(0 < float(row["test_accuracy"]) <= 1 and row["engine"] in ENGINES for row in rows)
    for name in ("accuracy", "layers"):
        assert (path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert Spec.from_toml((path / "spec.toml").read_text()).levels == 1
    assert lottery.Run(path).info["sessions"][0]["versions"]["torch"]


def test_run_again_says_complete_and_more_levels_continue(finished: Path) -> None:
    result = call("run", "quickstart", *SMALL, cwd=finished)
    assert result.returncode == 0
    assert "complete already" in result.stdout
    result = call("run", "quickstart", *SMALL[:-4], "--levels", "2", "--replicates", "1", cwd=finished)
    assert "level  2" in result.stdout
    assert "level  0  weights" not in result.stdout


def test_show_and_list(finished: Path) -> None:
    shown = call("show", "mnist-5k", cwd=finished)
    assert shown.returncode == 0
    assert "80.04" in shown.stdout
    assert "winning tickets" in shown.stdout
    assert "undecided" in shown.stdout  # one replicate
    assert re.search(r"finished  (2 of 2|3 of 3)  no verdict\n    mnist-5k-", call("list", cwd=finished).stdout)
    assert "begin one with: lottery run quickstart" in call("list", "--runs-dir", "nowhere", cwd=finished).stdout


def test_a_folder_name_is_no_markup(finished: Path, tmp_path: Path) -> None:
    """Rich takes [red] for a colour: what comes from a file name is printed as it is."""
    (path,) = (finished / "runs").iterdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "[red]x").symlink_to(path)
    assert "[red]x" in call("show", "[red]x", cwd=tmp_path).stdout
    assert "[red]x" in call("list", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quikstart"], "unknown preset 'quikstart': choose from quickstart, notebook, lenet-mnist"),
        (["run", "nowhere.toml"], "cannot read the spec nowhere.toml"),
        (["run", "nope", "--runs-dir", "quickstart"], "unknown preset 'nope': choose from quickstart, "),
        (["run", "--runs-dir", "quickstart", "nope"], "unknown preset 'nope'"),
        (["run", "--runs-dir", "quickstart"], "Missing from lottery run: PRESET"),
        (["run", ""], "unknown preset ''"),
        (["run", "--levels", "1", ""], "unknown preset ''"),
        (["run", "quickstart", "notebook"], "Unrecognized options: notebook"),
        (["run", "quickstart", "--levels", "three"], "--levels: 'three': must be a whole number"),
        (["run", "quickstart", "--recipe.learning-rate", "1,5"], "--recipe.learning-rate: '1,5': must be a number"),
        (
            ["run", "quickstart", "--itertions", "3"],
            "Unrecognized options: --itertions, 3; Perhaps you meant: --iterations",
        ),
        (["run", "quickstart", "--levels"], "Missing value for argument '--levels'"),
        (["figures", "x", "--format", "gif"], "invalid choice 'gif' for argument '--format'"),
        (["rn"], "Unrecognized options: rn; Available subcommands: run, sweep, reproduce"),
        (
            ["run", "quickstart", "--levels", "2000000000"],
            "levels = 2000000000: must be 0 (the dense network alone) or",
        ),
        (["run", "quickstart", "--model.name", "mlp", "--model.hidden", "90000", "90000"], "at most 100,000,000"),
        (["run", "quickstart", "--data", "mnst"], "unknown data set 'mnst'"),
        (["run", "quickstart", "--pruning.rate", "1.5"], "pruning.rate = 1.5: must be in [0, 1]"),
        (["run", "quickstart", "--pruning.layer-rates", "fc9", "0.1"], "'fc9' matches no layer"),
        (["run", "quickstart", "--levels", "-1"], "levels = -1"),
        (["run", "quickstart", "--branches", "renit"], "unknown branch 'renit': choose from rewind, reinit, "),
        (["run", "quickstart", "--branches", "shuffle,one_shot:2"], "one_shot draws nothing at random"),
        (["run", "quickstart", "--branches", "reinit", "rewind"], "'rewind': is the trunk's own rule"),
        (["run", "quickstart", "--iterations", "0"], "recipe.iterations = 0: must be at least 1"),
        (["run", "quickstart", "--jobs", "0"], "jobs = 0"),
        (["run", "quickstart", "--engine", "warp"], "unknown engine 'warp'"),
        (["run", "quickstart", "--engine", "dense"], "the engine dense is called torch now; use --engine torch"),
        (["run", "quickstart", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "quickstart", "--runs-dir", "/dev/null/runs"], "cannot write to the runs folder /dev/null/runs"),
        (["run", "quickstart", "--data-dir", "nowhere"], "data-dir = 'nowhere': there is no such folder"),
        (["run", 300 * "x"], "unknown preset 'xxx"),
        (["show", 300 * "x"], "no run 'xxx"),
        (["show", "nothing"], "no run 'nothing' in runs; there are: none yet"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("lottery: error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["reinit:2,one_shot"], ["reinit:2", "one_shot"], ["reinit:2,", "one_shot"]])
def test_branches_of_a_finished_run_train_alone_and_show_in_table_and_figure(
    finished: Path, tmp_path: Path, words: list[str]
) -> None:
    shutil.copytree(finished / "runs", tmp_path / "runs")
    (path,) = (tmp_path / "runs").iterdir()
    (tmp_path / "words.toml").write_text((path / "spec.toml").read_text())
    levels = range(1, lottery.Run(path).spec.levels + 1)
    result = call("run", "words.toml", "--branches", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    printed = [line.split("  weights")[0] for line in result.stdout.splitlines() if "  weights left" in line]
    names = ("one_shot  replicate 0", "reinit  replicate 0  draw 1", "reinit  replicate 0")
    assert sorted(printed) == [f"{name}  level  {level}" for name in names for level in levels]
    table, _, tickets = call("show", path.name, cwd=tmp_path).stdout.partition("winning tickets")
    assert _levels_by_branch(tickets) == {branch: [*levels] for branch in ("rewind", "one_shot", "reinit")}
    assert _levels_by_branch(table) == {branch: [0, *levels] for branch in ("rewind", "one_shot", "reinit")}
    assert lottery.Run(path).spec.draws == {"reinit": 2, "one_shot": 1}
    assert "finished  {0} of {0}".format(1 + 4 * len(levels)) in call("list", cwd=tmp_path).stdout
    ax = plots.accuracy(lottery.Run(path))
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == [
        branch_name(b) for b in ("rewind", "one_shot", "reinit")
    ]
    lines = [bars[0] for bars in ax.containers]
    assert [line.get_color() for line in lines] == [
        measures.BRANCH_COLOURS[n] for n in ("rewind", "one_shot", "reinit")
    ]
    assert all(
        line.get_xydata()[0].tolist() == lines[0].get_xydata()[0].tolist() for line in lines
    )  # one dense network


def _levels_by_branch(text: str) -> dict[str, list[int]]:
    """The levels that the tables list below each branch's name."""
    rows: dict[str, list[int]] = {}
    branch = ""
    for line in text.splitlines():
        if re.fullmatch(r"[a-z_]+ *", line):
            branch = line.strip()
        elif numbers := re.match(r" +(\d+) +\d+\.\d\d ", line):
            rows.setdefault(branch, []).append(int(numbers[1]))
    return rows


def test_every_start_rule_has_a_colour_of_its_own() -> None:
    assert set(measures.BRANCH_COLOURS) == set(STARTS)
    assert len(set(measures.BRANCH_COLOURS.values())) == len(STARTS)


def test_unknown_flags_exit_with_2(tmp_path: Path) -> None:
    result = call("run", "quickstart", "--itertions", "3", cwd=tmp_path)
    assert result.returncode == 2
    assert "--iterations" in result.stderr  # what was meant


@pytest.mark.parametrize(
    "words",
    [
        ["--runs-dir", "notebook", "lenet-mnist"],
        ["lenet-mnist", "--runs-dir", "quickstart"],
        ["--branches", "reinit", "--runs-dir=quickstart", "lenet-mnist"],
        ["--data", "mnist", "lenet-mnist", "--engine", "notebook"],
    ],
)
def test_the_preset_is_the_word_that_no_flag_takes(words: list[str]) -> None:
    command = cli._parse(["run", *words])
    assert isinstance(command, cli.RunCommand)
    assert command.preset == "lenet-mnist"
    branches = ("reinit",) if "reinit" in words else ()
    assert command.spec == replace(PRESETS["lenet-mnist"], branches=branches)


def test_an_empty_list_of_branches_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text('branches = ["reinit", "shuffle"]\n')
    command = cli._parse(["run", str(tmp_path / "two.toml"), "--branches", ""])
    assert isinstance(command, cli.RunCommand)
    assert command.spec.branches == ()


@pytest.mark.parametrize("name", ["[/red]", "[red]", "\x1b[31m", "a\rb", os.fsdecode(b"\xff")])
def test_names_of_folders_are_text(finished: Path, tmp_path: Path, name: str) -> None:
    """No markup, no commands for the terminal, and no encoding error: an empty runs folder of that name, and a full."""
    (path,) = (finished / "runs").iterdir()
    inside = name.replace("/", "")
    (tmp_path / "full" / inside).mkdir(parents=True)
    for file in ("run.json", "spec.toml"):
        shutil.copy(path / file, tmp_path / "full" / inside)
    for arguments in (
        ["list", "--runs-dir", name],
        ["list", "--runs-dir", "full"],
        ["show", name, "--runs-dir", "none"],
    ):
        result = call(*arguments, cwd=tmp_path)
        assert result.returncode == (2 if "show" in arguments else 0), result.stderr
        assert "Traceback" not in result.stderr
        assert not {"\x1b", "\r"} & set(result.stdout + result.stderr)
        assert (result.stdout + result.stderr).strip()
    if name.startswith("["):
        assert inside in call("list", "--runs-dir", "full", cwd=tmp_path).stdout


def test_closed_streams(finished: Path) -> None:
    for redirect, code in (("list >&-", 0), ("list 2>&-", 0), ("show mnist-5k >&- 2>&-", 0), ("show nope 2>&-", 2)):
        result = subprocess.run(
            f"{LOTTERY} {redirect}", shell=True, cwd=finished, capture_output=True, text=True, check=False
        )
        assert result.returncode == code, (redirect, result.stderr)
        assert result.stderr == ""


@pytest.mark.parametrize("locale", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}])
def test_any_locale(finished: Path, tmp_path: Path, locale: dict[str, str]) -> None:
    """Files are UTF-8 whatever the locale; what the terminal lacks is written in other characters."""
    environment = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} | locale
    (path,) = (finished / "runs").iterdir()
    (tmp_path / "spec.toml").write_text("# Größe\nlevels = -1\n", encoding="utf-8")
    for arguments, code in ((["show", path.name], 0), (["report", path.name], 0), (["run", "spec.toml"], 2)):
        folder = finished if code == 0 else tmp_path
        result = subprocess.run([LOTTERY, *arguments], cwd=folder, capture_output=True, check=False, env=environment)
        assert result.returncode == code, result.stderr
        assert b"Traceback" not in result.stderr
    assert b"levels = -1" in result.stderr


def test_only_training_says_that_levels_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def out_of_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(listing, "entries", full)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "lottery: error: [Errno 28] No space left on device\n"
    monkeypatch.setattr(experiment, "run", full)
    assert main(["run", "quickstart"]) == 2
    assert capsys.readouterr().err.endswith("No space left on device; finished levels are kept\n")
    monkeypatch.setattr(experiment, "run", out_of_memory)
    assert main(["run", "quickstart"]) == 2
    assert capsys.readouterr().err.startswith("lottery: error: not enough memory (none left): use fewer --jobs")


def test_missing_data_is_one_error(tmp_path: Path) -> None:
    """No data and no network: names the file, where it was looked for and what to do."""
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "LOTTERY_DATA": ""}
    environment |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    (tmp_path / "here").mkdir()
    command = [LOTTERY, "run", "lenet-mnist", "--data-dir", "here"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    for part in ("train-images-idx3-ubyte.gz", "here/mnist", "--data-dir", "$LOTTERY_DATA"):
        assert part in result.stderr


def test_a_second_process_on_the_same_run_is_told(tmp_path: Path) -> None:
    command = [LOTTERY, "run", "quickstart", "--jobs", "1"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            if line.startswith("rewind"):
                break
        second = call("run", "quickstart", cwd=tmp_path)
        first.kill()
    assert second.returncode == 2
    assert "another process is working on" in second.stderr


def test_bars_in_a_terminal(tmp_path: Path) -> None:
    """A real pseudo-terminal: bars with level, accuracy and the time left, in 80 columns."""
    import pty

    parent, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(
        [LOTTERY, "run", "quickstart", *SMALL], cwd=tmp_path, stdout=child, stderr=child, env=environment
    ) as process:
        os.close(child)
        shown = b""
        while True:
            try:
                shown += os.read(parent, 65536)
            except OSError:  # the other end is closed
                break
    os.close(parent)
    assert process.returncode == 0
    for part in (b"rewind 0", b"level 1/1", b" %", b"left"):
        assert part in shown


def test_flags_change_a_spec_that_is_valid_only_as_a_whole(tmp_path: Path) -> None:
    """Momentum means nothing to the defaults' Adam: the file's settings count before the flags are looked at."""
    (tmp_path / "sgd.toml").write_text('[recipe]\noptimizer = "sgd"\n[data]\nname = "mnist-5k"\nvalidation = 500\n')
    flags = ["--seed", "3", "sgd.toml", "--recipe.momentum", "0.9", "--levels", "0", "--iterations", "5"]
    result = call("run", *flags, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "runs").iterdir()
    assert lottery.Run(path).spec.recipe.momentum == 0.9
    assert lottery.Run(path).spec.seed == 3


def test_one_damaged_run_hides_no_other(finished: Path, tmp_path: Path) -> None:
    (path,) = (finished / "runs").iterdir()
    (tmp_path / "runs" / "broken").mkdir(parents=True)
    (tmp_path / "runs" / "broken" / "run.json").write_text("{")
    (tmp_path / "runs" / "whole").symlink_to(path)
    result = call("list", cwd=tmp_path)
    assert result.returncode == 0
    assert "whole" in result.stdout
    assert "is damaged" in " ".join(result.stdout.split())
    assert "80.04" in call("show", "whole", cwd=tmp_path).stdout


def test_verify_says_what_is_sound_and_what_to_do_about_the_rest(finished: Path, tmp_path: Path) -> None:
    (path,) = (finished / "runs").iterdir()
    run = shutil.copytree(path, tmp_path / "runs" / "mine")
    result = call("verify", "mine", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("sound:   run.json, ")
    assert "of 3 levels" in result.stdout or "of 2 levels" in result.stdout
    assert "wrong" not in result.stdout
    folder = run / "rewind" / "replicate-0" / "level-01"
    shutil.copytree(folder, folder.with_name("level-01-backup"))
    (folder / "trained.safetensors").write_bytes(b"")
    (run / "spec.toml").write_text("")
    result = call("verify", "mine", cwd=tmp_path)
    assert result.returncode == 1
    assert "note:    rewind/replicate-0/level-01-backup is no level of this run by its name" in result.stdout
    assert "wrong:   runs/mine/rewind/replicate-0/level-01/trained.safetensors is damaged: " in result.stdout
    assert "; move the folder runs/mine/rewind/replicate-0/level-01 out of the run directory" in result.stdout
    assert "wrong:   runs/mine/spec.toml is not what run.json and the levels say: move this file away" in result.stdout
    (run / "run.json").write_bytes((run / "run.json").read_bytes()[:-9])
    result = call("verify", "mine", cwd=tmp_path)
    assert (result.returncode, result.stdout[:17]) == (1, "sound:   nothing\n")
    assert call("verify", "yours", cwd=tmp_path).returncode == 2


def test_fewer_levels_than_there_are_train_nothing(finished: Path) -> None:
    result = call("run", "quickstart", *SMALL[:-4], "--levels", "0", "--replicates", "1", cwd=finished)
    assert result.returncode == 0
    assert "complete already" in result.stdout
