"""What a shell offers, asked in the way that a shell asks."""

import os
import pty
import select
import shlex
import shutil
import sys
import time
from pathlib import Path

import pytest

from lottery import completion
from lottery.cli import main
from lottery.export import FORMATS
from lottery.spec import PRESETS
from lottery.starts import STARTS
from lottery.studies import STUDIES

LOTTERY = Path(sys.executable).with_name("lottery")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with two runs, as far as names go."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/mnist-1", "runs/kmnist-2", "elsewhere/digits-3"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{")
    return tmp_path


def offered(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["--complete", *words]) == 0
    return capsys.readouterr().out.split()


def test_what_is_offered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert offered(capsys, "re") == ["reproduce", "report"]
    assert offered(capsys, "run", "") == list(PRESETS)
    assert offered(capsys, "run", "qu") == ["quickstart"]
    assert offered(capsys, "show", "m") == ["mnist-1"]
    assert offered(capsys, "report", "mnist-1", "") == ["kmnist-2", "mnist-1"]
    assert offered(capsys, "show", "--runs-dir", "elsewhere", "") == ["digits-3"]
    assert offered(capsys, "show", "--runs-dir", "") == []  # a folder: the shell's
    assert offered(capsys, "run", "quickstart", "--data.name", "k") == ["kmnist"]
    assert offered(capsys, "run", "quickstart", "--data", "k") == ["kmnist"]
    assert offered(capsys, "run", "x", "--branches", "") == list(STARTS)
    assert offered(capsys, "run", "--recipe.m") == ["--recipe.milestones", "--recipe.momentum"]
    assert offered(capsys, "export", "m") == ["mnist-1"]
    assert offered(capsys, "export", "x", "--to", "") == list(FORMATS)
    assert offered(capsys, "export", "x", "--weights", "s") == ["start"]
    assert offered(capsys, "figures", "--f") == ["--format"]
    assert offered(capsys, "figures", "x", "--format", "") == ["png", "pdf", "svg"]
    assert offered(capsys, "list", "--") == ["--help", "--json", "--runs-dir"]
    assert offered(capsys, "completion", "") == list(completion.SHELLS)
    assert offered(capsys, "nope", "") == []
    assert offered(capsys, "reproduce", "") == list(STUDIES)


def test_what_files_of_ones_own_register_is_offered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text("from lottery.criteria import CRITERIA\n\nCRITERIA['mine'] = lambda evidence: {}\n")
    words = ("run", "quickstart", "--use", "mine.py", "--pruning.criterion", "m")
    assert offered(capsys, *words) == ["magnitude", "mine"]
    Path("mine.py").write_text("import nothing_of_the_kind")
    assert offered(capsys, *words) == ["magnitude"]  # without a word: the command itself says what is wrong
    assert offered(capsys, "run", "--use", "mine.py", "--jobs", "2", "--pruning.criterion", "ra") == ["random"]


def test_every_flag_that_is_offered_is_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help-all"])
    said = capsys.readouterr().out
    for flag in offered(capsys, "run", "-"):
        assert f"{flag} " in said or f"{flag}," in said or flag == "--help-all", flag


def test_bash_completes(folder: Path) -> None:
    """A real shell in a terminal: what Tab makes of what was typed is then run."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    pid, terminal = pty.fork()
    if not pid:
        os.execve(bash, ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "PS1": "> ", "TERM": "dumb"})
    seen = ""

    def until(text: str) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([terminal], [], [], 1)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")
        seen = seen.partition(text)[2]

    try:
        os.write(terminal, f"PATH={shlex.quote(str(LOTTERY.parent))}:$PATH\n".encode())
        os.write(terminal, b'eval "$(lottery completion bash)"; echo rea""dy\n')
        until("ready")
        os.write(terminal, b"lottery show km\t")
        until("kmnist-2 ")
        os.write(terminal, b"\x15lottery run qu\t")
        until("quickstart ")
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)
