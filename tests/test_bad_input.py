"""Bad input of every kind, by seed and by the hundred: one line that names it, exit code 2, and nothing is written.

It comes in through all doors: command lines through `main`, TOML texts, Python's arguments, and the files of data sets.
"""

import contextlib
import gzip
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lottery
from lottery.cli import main
from lottery.data.idx import read_idx
from lottery.errors import LotteryError
from lottery.runs import store
from lottery.spec import PRESETS, Data, Model, Pruning, Recipe, Spec, flatten, load

RNG = np.random.default_rng(7)


def pick(values: list[Any], count: int) -> list[Any]:
    """Some of the values, drawn by the seed."""
    return [values[i] for i in RNG.permutation(len(values))[:count]]


def shown(words: object) -> str:
    return repr(words)[:60]


def refused(call: Callable[[], object], what: object) -> str:
    """What the LotteryError says that the call must raise."""
    try:
        call()
    except LotteryError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"{shown(what)} raised {error!r}") from error
    raise AssertionError(f"{shown(what)} was taken")


# --- command lines

WHOLE = ["levels", "replicates", "seed", "recipe.iterations", "recipe.batch-size", "recipe.evaluate-every"]
WHOLE += ["data.validation", "jobs", "iterations"]
REAL = ["recipe.learning-rate", "recipe.momentum", "recipe.weight-decay", "pruning.rate", "model.std"]
NAMES = ["data.name", "data.scaling", "model.name", "model.init", "recipe.optimizer", "pruning.criterion"]
NAMES += ["pruning.scope", "start", "engine", "device", "data", "branches", "log"]
NO_WHOLE = ["x", "", "1.5", "1e3", "nan", "True", "None", "0x10", "one\ntwo", "\x1b[31mred", "-1", "-999999999999"]
NO_WHOLE += [str(2**63), "9" * 5000, "[1]", "1,000", "é", "\udcff"]
NO_REAL = ["x", "", "1,5", "nan", "inf", "-inf", "1e999", "-1", "0.1.2", "9" * 400, "1/2", "[/red]", "\udcff"]
NO_NAME = [
    "nope",
    "",
    "Quickstart",
    "mnist ",
    "../x",
    "[/red]",
    "\x1b[2J",
    "x" * 10_000,
    "é",
    "\udcff",
    "rewind:2",
    "a\nb",
]


def command_lines() -> list[tuple[str, list[str]]]:
    """(kind, arguments)."""
    run = ["run", "quickstart"]
    lines: list[tuple[str, list[str]]] = []
    whole = [(flag, word) for flag in WHOLE for word in NO_WHOLE]
    real = [(flag, word) for flag in REAL for word in NO_REAL]
    names = [(flag, word) for flag in NAMES for word in NO_NAME if (flag, word) != ("branches", "")]
    lines += [("no whole number", [*run, f"--{flag}", word]) for flag, word in pick(whole, 30)]
    lines += [("no number", [*run, f"--{flag}={word}"]) for flag, word in pick(real, 20)]
    lines += [("unknown name", [*run, f"--{flag}", word]) for flag, word in pick(names, 24)]
    lines += [("no such flag", [*run, f"--{flag[:-1]}x", "1"]) for flag in pick(WHOLE + REAL, 5)]
    lines += [("no value", [*run, f"--{flag}"]) for flag in pick(WHOLE + REAL + NAMES[:10], 6)]
    for word in ["nope", "", " ", "x" * 300, "nowhere.toml", "folder.toml", "pipe.toml", "big.toml", "/dev/zero", "."]:
        lines += [("no preset", ["run", word]), ("no preset", ["run", "--runs-dir", "quickstart", word])]
    lines += [("no preset", ["run"]), ("no preset", ["run", "--levels", "1"]), ("no preset", ["run", "--seed=1"])]
    lines += [("two presets", [*run, "notebook"]), ("no command", ["rn"]), ("no command", ["--levels", "1"])]
    for command in ("show", "figures", "report"):
        for word in ("nope", "", "x" * 300, "[/red]", "\x1b[2J", "\udcff"):
            lines += [("no run", [command, word])]
    lines += [("no run", ["show"]), ("no run", ["figures", "x", "--format", "gif"]), ("no run", ["report"])]
    for words in (
        ["x"],
        ["lth-mnist", "--only", "x"],
        ["lth-mnist", "--replicates", "0"],
        ["lth-mnist", "--jobs", "x"],
    ):
        lines += [("no study", ["reproduce", *words])]
    lines += [("no study", ["reproduce", "lth-mnist", "--iterations", word]) for word in ("-1", "0", "x", "9" * 30)]
    lines += [("no folder", [*run, "--data-dir", word]) for word in ("nowhere", "big.toml", "\udcff", "a" * 300)]
    mlp = [*run, "--model.name", "mlp", "--model.hidden"]
    lines += [("too large", [*mlp, *word.split()]) for word in ("0", "-3", "1000000000", "90000 90000", "x", "2 " * 60)]
    lines += [("too large", [*run, "--levels", "9999", "--replicates", "9999"])]
    rates = ["fc1.weight", "fc1.weight 2", "fc1.weight x", "nope 0.1", "fc* 0.1 fc1* 0.2", "fc1.weight nan"]
    lines += [("no rates", [*run, "--pruning.layer-rates", *word.split()]) for word in rates]
    return lines


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which no run may begin, with a few files that are no specs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "big.toml").write_text("# much\n" * 10_000)

    def no_lock(path: Path) -> None:
        raise AssertionError(f"{path} was to be written")

    monkeypatch.setattr(store, "lock", no_lock)
    return tmp_path


def test_command_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds: Counter[str] = Counter()
    before = sorted(folder.iterdir())
    for kind, arguments in command_lines():
        assert main(arguments) == 2, shown(arguments)
        errors = capsys.readouterr().err
        assert errors.startswith("lottery: error: "), shown(arguments)
        assert errors.count("\n") == 1, shown(arguments)
        assert errors[:-1].isprintable(), shown(arguments)
        assert len(errors) < 2000, shown(arguments)
        assert "levels are kept" not in errors, shown(arguments)
        kinds[kind] += 1
    assert sorted(folder.iterdir()) == before
    assert kinds.total() >= 150, kinds
    assert len(kinds) >= 12, kinds


# --- TOML

SETTINGS = {name: value for name, value in flatten(Spec()).items() if name != "pruning.layer_rates"}


def toml_texts() -> list[tuple[str, str]]:
    """(kind, text)."""
    other = [
        "true",
        "5",
        "-7",
        "1.5",
        "nan",
        "-inf",
        '"x"',
        '""',
        "[]",
        "[[1]]",
        "{}",
        "{a = 1}",
        "1979-05-27",
        "[true]",
    ]
    other += ['["x", 1]', "9" * 30, f'"{"x" * 1000}"', "[" * 40 + "]" * 40]
    texts: list[tuple[str, str]] = []
    for name, right in SETTINGS.items():
        valid = {
            bool: ["true"],
            int: ["5"],
            float: ["5", "1.5", "9" * 30],
            str: ['"x"', '""'],
            list: ["[]"],
            tuple: ["[]"],
        }
        wrong = [v for v in other if v not in valid[type(right)]]
        wrong = [v for v in wrong if (name, v) != ("data.validation", "9" * 30)]  # the data set says how many it has
        texts += [("wrong type", f"{name} = {value}") for value in pick(wrong, 3)]
        texts += [("unknown", f"{name}x = 1")]
    for name in ("data", "model", "recipe", "pruning"):
        texts += [("no table", f"{name} = {value}") for value in ("1", "[]", '"x"')] + [("no table", f"[[{name}]]")]
        texts += [("unknown", f"[{name}.more]\nx = 1")]
    texts += [("no list", text) for text in ("model.hidden = 5", "model.hidden = true", "branches = 3", "[branches]")]
    texts += [("no list", text) for text in ('branches = "reinit"', 'branches = [["reinit"]]', 'model.hidden = ["5"]')]
    texts += [
        ("rates", f"[pruning]\nlayer_rates = {value}") for value in ("1", "[]", "{a = true}", "{a = nan}", "{a = []}")
    ]
    texts += [("number", f"levels = {digits}") for digits in ("9" * 5000, "0x" + "f" * 5000, "1e9999", "9" * 19)]
    texts += [("nested", "levels = " + "[" * n + "]" * n) for n in (500, 5000)]
    texts += [("nested", "x." * n + "x = 1") for n in (10, 5000, 20_000)]
    texts += [("long", "# " + "x" * 30_000), ("long", "levels = 3\n" * 10_000)]
    for _ in range(25):
        garbage = "".join(chr(c) for c in RNG.integers(1, 300, int(RNG.integers(1, 60))))
        texts += [("garbage", "levels = 3\n" + garbage.replace("#", "") + "\n= =")]
    return texts


def test_toml_texts() -> None:
    kinds: Counter[str] = Counter()
    for kind, text in toml_texts():
        message = refused(lambda text=text: Spec.from_toml(text, source="a.toml"), text)  # type: ignore[misc]
        assert message.startswith("a.toml: ")
        assert "\n" not in message.replace("\\n", ""), shown(text)
        assert len(message) < 700, shown(text)
        if kind in ("wrong type", "no list", "no table"):
            name = text.partition(" = ")[0].strip("[]")
            assert name in message, (shown(text), message)
        kinds[kind] += 1
    assert kinds.total() >= 80, kinds
    assert len(kinds) >= 8, kinds


@given(st.text(max_size=200))
def test_any_text_is_a_spec_or_one_error(text: str) -> None:
    with contextlib.suppress(LotteryError):
        assert Spec.from_toml(text).uid


# --- Python

THINGS: list[Any] = [
    None,
    True,
    "3",
    b"3",
    1.5,
    float("nan"),
    float("inf"),
    -1,
    10**400,
    [3],
    (3, "x"),
    {"a": "b"},
    {1: 2},
]
THINGS += [
    object(),
    np.int64(3),
    np.zeros(3),
    lambda: 3,
    set(),
    range(10**9),
    10**5000,
    complex(1),
    "x" * 1000,
    ("a",) * 99,
]


def python_calls() -> list[tuple[str, str, Callable[[], object]]]:
    """(kind, name of the argument, call)."""
    calls: list[tuple[str, str, Callable[[], object]]] = []
    right: dict[type, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}
    parts = {"data.": Data, "model.": Model, "recipe.": Recipe, "pruning.": Pruning, "": Spec}
    for prefix, part in parts.items():
        for name, value in vars(part()).items():
            wrong = [t for t in THINGS if type(t) not in right.get(type(value), (type(value),))]
            for thing in pick(wrong, 5):
                calls.append(("setting", prefix + name, lambda p=part, n=name, t=thing: p(**{n: t})))  # type: ignore[misc]
    for name in ("levels", "replicates", "branches", "model"):
        for thing in ("3", 3.0, None, b"", ["x"]):
            call = lambda n=name, t=thing: replace(PRESETS["quickstart"], **{n: t})  # noqa: E731
            calls.append(("replace", name, call))
    quick = PRESETS["quickstart"]
    for thing in (None, 3, [quick], {"levels": 3}, Data(), Spec, b"quickstart"):
        calls.append(("run", "spec", lambda t=thing: lottery.run(t)))  # type: ignore[misc]
    calls.append(("run", "preset", lambda: lottery.run("nope")))
    calls.append(("run", "nowhere.toml", lambda: lottery.run("nowhere.toml")))
    bad = {"runs_dir": (None, 3, b"x", ["x"], "a\0b"), "data_dir": (3, b"x", 1.5, "\0"), "progress": (3, "x", [])}
    bad |= {"jobs": (None, "2", 2.0, float("nan"), True, 0, -1, 10**9, 10**5000), "engine": (None, 3, b"torch", "warp")}
    bad |= {"device": (None, 0, ["cpu"], "tpu")}
    for name, things in bad.items():
        for thing in things:
            calls.append(("run", name, lambda n=name, t=thing: lottery.run(quick, **{n: t})))  # type: ignore[misc]
    for thing in (None, 3, b"x", ["x"], "a\0b"):
        calls.append(("open_run", "name", lambda t=thing: lottery.open_run(t)))  # type: ignore[misc]
        calls.append(("open_run", "runs_dir", lambda t=thing: lottery.open_run("x", t)))  # type: ignore[misc]
        calls.append(("load", "preset", lambda t=thing: load(t)))  # type: ignore[misc]
    for thing in ("x", ["x"], [None], [3]):
        calls.append(("report", "runs", lambda t=thing: lottery.report(t, "x.html")))  # type: ignore[misc]
    return calls


def test_python_values(folder: Path) -> None:
    kinds: Counter[str] = Counter()
    before = sorted(folder.iterdir())
    for kind, name, call in python_calls():
        message = refused(call, (kind, name))
        assert name in message, (kind, message)
        assert "\n" not in message
        assert len(message) < 500
        kinds[kind] += 1
    assert sorted(folder.iterdir()) == before
    assert kinds.total() >= 120, kinds
    assert len(kinds) >= 6, kinds


# --- the files of data sets


def data_files(path: Path) -> list[tuple[str, Callable[[], object]]]:
    """(kind, what puts the file there), for an IDX file of 20 images of 5 × 5 pixels."""
    values = RNG.integers(256, size=(20, 5, 5)).astype(np.uint8)
    whole = bytes([0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 5, 0, 0, 0, 5]) + values.tobytes()
    gz = path.suffix == ".gz"

    def put(data: bytes, packed: bool = False) -> Callable[[], object]:
        return lambda: path.write_bytes(gzip.compress(data) if gz and not packed else data)

    stored = gzip.compress(whole) if gz else whole
    files: list[tuple[str, Callable[[], object]]] = []
    files += [("cut", put(stored[: int(n)], packed=True)) for n in RNG.integers(0, len(stored), 10)]
    for at in RNG.integers(0, len(whole), 10):
        files += [("changed", put(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]))]
    files += [("longer", put(whole + bytes(int(n)))) for n in (1, 5, 10_000, 3_000_000)]
    files += [("garbage", put(RNG.bytes(int(n)), packed=True)) for n in RNG.integers(1, 600, 4)]
    files += [("web page", put(b"<html>moved</html>", packed=True)), ("empty", put(b"", packed=True))]
    files += [("no file", path.mkdir), ("no file", lambda: os.mkfifo(path)), ("no file", lambda: path.symlink_to(path))]
    files += [("no file", lambda: path.symlink_to("/dev/zero")), ("shape", put(whole[:7] + b"\x15" + whole[8:]))]
    return files


@pytest.mark.parametrize("name", ["some-idx", "some-idx.gz"])
def test_data_files(tmp_path: Path, name: str) -> None:
    kinds: Counter[str] = Counter()
    path = tmp_path / name
    for kind, make in data_files(path):
        make()
        sha256 = {"some-idx": hashlib.sha256(b"other").hexdigest()}
        message = refused(lambda s=sha256: read_idx(path, (20, 5, 5), s, "replace it"), kind)  # type: ignore[misc]
        assert message.startswith(f"{path}: ")
        assert message.endswith(": replace it")
        assert "\n" not in message
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        kinds[kind] += 1
    assert kinds.total() >= 30, kinds  # of each of the two kinds of file
    assert len(kinds) == 8, kinds
