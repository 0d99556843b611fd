"""Code of one's own: files that fill the registries, in every process of a run as they were when it began."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lottery
from lottery import criteria
from lottery.cli import main
from lottery.criteria import CRITERIA, Evidence
from lottery.data import SCALINGS, split
from lottery.data.own import own
from lottery.errors import LotteryError
from lottery.runs import code
from lottery.runs.experiment import Progress
from lottery.runs.verify import verify
from lottery.spec import Data, Model, Pruning, Recipe, Spec, load
from lottery.starts import STARTS, Rule, Start, Trunk, begin

MINE = """\
import helper
from lottery.criteria import CRITERIA

def mine(evidence):
    return {name: helper.size(evidence.trained[name]) for name in evidence.masks}

CRITERIA["mine"] = mine
"""
HELPER = "import numpy as np\nfrom pathlib import Path\n\ndef size(weights):\n    return np.abs(weights)\n"
HELPER += "with Path(__file__).with_name('imported').open('a') as file:\n    file.write('once\\n')\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the tests are at work; what they register goes away with them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "helper.py").write_text(HELPER)
    assert not code.names()
    yield tmp_path
    code.load(code.Code())


def mine(tiny: Spec, use: str = "mine.py") -> Spec:
    return replace(tiny, pruning=replace(tiny.pruning, criterion="mine"), use=(use,))


def refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(LotteryError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


FLAGS = "--model.name mlp --model.hidden 20 10 --recipe.iterations 30 --recipe.evaluate-every 10 --branches"
FLAGS += " --replicates 2 --levels 1 --pruning.rate 0.5"


def test_a_criterion_of_ones_own_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["run", "quickstart", *FLAGS.split()]
    assert main([*flags, "--use", "mine.py", "--pruning.criterion", "mine", "--jobs", "2"]) == 0
    run = lottery.Run(next(Path("runs").iterdir()))
    other = lottery.run(replace(run.spec, use=(), pruning=replace(run.spec.pruning, criterion="magnitude")))
    assert run.spec.pruning.criterion == "mine"
    assert len(run.rows()) == 4
    for row in run.rows():  # it is magnitude by another name
        place = row.place
        for file in ("ticket.safetensors", "trained.safetensors"):
            assert (run.folder(place) / file).read_bytes() == (other.folder(place) / file).read_bytes()
    assert (folder / "imported").read_text() == "once\n" * 3  # here and in two workers
    assert sorted(os.listdir(run.path / "code")) == ["helper.py", "mine.py"]
    assert not code.names()  # the second run used nothing
    capsys.readouterr()

    name = run.path.name
    for command in (["show", name], ["list"], ["verify", name], ["report", name]):
        assert main(command) == 0
    assert "2 files of code" in capsys.readouterr().out
    assert (folder / "imported").read_text() == "once\n" * 3  # nobody who reads a run imports its code


def test_what_files_register_is_in_help_and_in_errors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "quickstart", "--use", "mine.py", "--help"])
    assert "From mine.py: pruning.criterion mine." in capsys.readouterr().out
    assert main(["run", "quickstart", "--use", "mine.py", "--pruning.criterion", "mien"]) == 2
    assert "choose from magnitude, random, mine" in capsys.readouterr().err
    assert not (folder / "runs").exists()


def test_code_that_was_edited_is_refused_until_that_is_undone(tiny: Spec, folder: Path) -> None:
    run = lottery.run(replace(mine(tiny), levels=1))
    before = sorted(run.path.rglob("*"))
    for file, text in (("helper.py", HELPER), ("mine.py", MINE)):
        Path(file).write_text(text + "raise SystemExit\n")  # nor is it imported
        refused(lambda: lottery.run(mine(tiny)), f"was begun with other code: {folder / file} has changed: undo that")
        Path(file).write_text(text)
    Path("more.py").write_text("")
    both = replace(mine(tiny), use=("mine.py", "more.py"))
    refused(lambda: lottery.run(both), f"was begun without {folder / 'more.py'}: leave it out")
    refused(lambda: lottery.run(replace(mine(tiny), use=())), "code/mine.py: use that too, or another --runs-dir")
    assert sorted(run.path.rglob("*")) == before
    assert len(lottery.run(mine(tiny)).rows()) == 3


def test_a_run_that_began_without_code_goes_on_without(tiny: Spec) -> None:
    lottery.run(replace(tiny, levels=0))
    refused(lambda: lottery.run(replace(tiny, use=("mine.py",))), "helper.py: leave it out, or use another --runs-dir")
    assert len(lottery.run(tiny).rows()) == 3


def test_workers_import_the_copy(tiny: Spec, folder: Path) -> None:
    """Saved in the middle of a run, an edit reaches none of those that begin later."""

    def edit(event: Progress) -> None:
        Path("helper.py").write_text("1 / 0")

    run = lottery.run(replace(mine(tiny), replicates=3, levels=1), jobs=2, progress=edit)
    assert len(run.rows()) == 6
    assert (folder / "imported").read_text() == "once\n" * 4


def test_from_another_folder_and_from_a_spec(tiny: Spec, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lottery.run(replace(mine(tiny), levels=0))
    (folder / "specs").mkdir()
    monkeypatch.chdir(folder / "specs")
    assert lottery.run(replace(mine(tiny, "../mine.py"), levels=1), runs_dir="../runs").path.samefile(folder / run.path)
    (folder / "mine.toml").write_text(mine(tiny).to_toml())
    assert len(lottery.run("../mine.toml", runs_dir="../runs").rows()) == 3
    saved = load(folder / run.path / "spec.toml")  # it is a spec like any other: its code lies beside it
    for file in ("mine.py", "helper.py"):
        (folder / file).rename(folder / f"former-{file}")
    assert len(lottery.run(replace(saved, levels=3), runs_dir="../runs").rows()) == 4
    assert saved.uid == mine(tiny).uid


def test_where_files_are_is_no_part_of_a_name(tiny: Spec) -> None:
    assert replace(tiny, use=("mine.py",)).uid == tiny.uid
    assert "code" not in lottery.run(tiny).info
    assert Spec(use=(Path("a/b.py"),)).use == ("a/b.py",)


def test_a_copy_that_is_damaged_is_named(tiny: Spec) -> None:
    run = lottery.run(replace(mine(tiny), levels=0))
    assert not verify(run.path).wrong
    copy = run.path / "code" / "helper.py"
    copy.write_text("")
    (wrong,) = verify(run.path).wrong
    assert wrong.startswith(f"{copy} is damaged: its SHA-256 is ")
    refused(lambda: code.of_run(run), f"{copy} is damaged")
    lottery.run(mine(tiny))  # the originals are what it was begun with: they are copied again
    assert copy.read_text() == HELPER


NET = """\
from torch import nn
from lottery.models import MODELS

class Net(nn.Sequential):
    def __init__(self):
        layers = nn.Conv2d(1, 3, 5, stride=3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10)
        super().__init__(*layers)

MODELS["net"] = Net
"""
SQUARES = """\
import numpy as np
from lottery.data import DATASETS

def squares():
    x = np.random.default_rng(0).normal(3, 5, (400, 6)).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype(int)
    return x[:300], y[:300], x[300:], y[300:]

DATASETS["squares"] = squares
"""


def test_a_network_of_ones_own(tiny: Spec) -> None:
    Path("net.py").write_text(NET)
    spec = replace(tiny, model=Model("net"), pruning=Pruning(rate=0.5), use=("net.py",), levels=1, replicates=2)
    run = lottery.run(spec, jobs=2)
    assert run.network.inputs == (1, 28, 28)
    assert run.network.prunable == ["0.weight", "4.weight"]
    first, second = (run.load("rewind", replicate, 0).start["0.weight"] for replicate in (0, 1))
    assert not np.array_equal(first, second)
    assert run.levels()["test_accuracy"].min() > 0.3
    assert {name: mask.sum() for name, mask in run.load("rewind", 0, 1).masks.items()} == {
        "0.weight": 37,
        "4.weight": 960,
    }
    again = lottery.run(spec, runs_dir="again")
    for row in run.rows():
        one, other = (r.folder(row.place) / "trained.safetensors" for r in (run, again))
        assert one.read_bytes() == other.read_bytes()


def test_data_of_ones_own(tiny: Spec) -> None:
    Path("squares.py").write_text(SQUARES)
    data = Data("squares", validation=50)
    spec = replace(tiny, data=data, recipe=Recipe(iterations=200), levels=1, replicates=2, use=("squares.py",))
    run = lottery.run(spec, jobs=2)
    assert run.network.inputs == (6,)
    assert run.info["images"] == {"train": 300, "test": 100}
    assert run.levels()["test_accuracy"].min() > 0.8
    Path("squares.py").write_text(SQUARES.replace("rng(0)", "rng(1)"))
    refused(lambda: lottery.run(spec), "squares.py has changed")
    unit = replace(spec, data=replace(data, scaling="unit"))
    refused(
        lambda: lottery.run(unit), "data.scaling = 'unit': is for images of bytes, and those of squares are float32"
    )


def test_data_that_changes_where_its_code_does_not(tiny: Spec) -> None:
    """Data beside the file is found also from the copy, and is bound as all data is."""
    source = "import numpy as np\nfrom pathlib import Path\nfrom lottery.data import DATASETS\n"
    source += "x = np.load(Path(__file__).with_name('x.npy'))\nDATASETS['x'] = x, x[:, 0] % 2, x, x[:, 0] % 2\n"
    Path("x.py").write_text(source)
    x = np.arange(120, dtype=np.uint8).reshape(40, 3)
    np.save("x.npy", x)
    spec = replace(tiny, data=Data("x", validation=10), use=("x.py",), levels=0, replicates=2)
    assert len(lottery.run(spec, jobs=2).rows()) == 2
    np.save("x.npy", x[::-1])
    code.load(code.Code())  # as in another process
    refused(lambda: lottery.run(replace(spec, replicates=3)), "was begun with data ")


def test_a_start_rule_of_ones_own(tiny: Spec) -> None:
    source = "from lottery.starts import STARTS, Rule, rewind\nSTARTS['again'] = Rule(lambda trunk: rewind(trunk))\n"
    Path("again.py").write_text(source)
    run = lottery.run(replace(tiny, branches=("again",), use=("again.py",)), jobs=2)
    ours, theirs = (run.load(branch, 0, 2).trained for branch in ("rewind", "again"))
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


SCRIPT = """\
import lottery
from lottery.criteria import CRITERIA, magnitude

if {where}:
    CRITERIA["mine"] = lambda evidence: magnitude(evidence)

if __name__ == "__main__":
    spec = lottery.Spec(
        data=lottery.Data("mnist-5k", validation=500),
        model=lottery.Model("mlp"),
        recipe=lottery.Recipe(iterations=5),
        pruning=lottery.Pruning(criterion="mine"),
        levels=1,
        replicates=2,
    )
    print(len(lottery.run(spec, jobs={jobs}).rows()))
"""


@pytest.mark.parametrize(("where", "jobs", "works"), [("True", 2, True), ("__name__ == '__main__'", 2, False)])
def test_what_a_script_registers_reaches_its_workers_or_is_refused(where: str, jobs: int, works: bool) -> None:
    Path("script.py").write_text(SCRIPT.format(where=where, jobs=jobs))
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False)
    if works:
        assert done.stdout == "4\n", done.stderr
    else:
        message = (
            "pruning.criterion = 'mine': was registered by a script in its own process, and the workers of jobs > 1"
        )
        assert message in done.stderr
        assert not Path("runs").exists()


def test_a_script_needs_no_file_for_one_job(tiny: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "mine", criteria.magnitude)
    assert len(lottery.run(replace(mine(tiny), use=(), levels=0)).rows()) == 1
    monkeypatch.setitem(CRITERIA, "magnitude", criteria.random)  # the workers' would be the package's
    refused(lambda: lottery.run(tiny, jobs=2), "pruning.criterion = 'magnitude': was registered by a script")


def test_a_file_can_be_edited_and_used_again_in_one_process(tiny: Spec) -> None:
    code.load(code.read(["mine.py"]))
    first = CRITERIA["mine"]
    code.load(code.read(["mine.py"]))
    assert CRITERIA["mine"] is first
    Path("helper.py").write_text("size = len\n")
    Path("mine.py").write_text(MINE.replace('["mine"]', '["other"]'))
    code.load(code.read(["mine.py"]))
    assert code.names() == {"pruning.criterion": ["other"]}
    assert CRITERIA["other"].__globals__["helper"].size is len


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(:\n", "bad.py, line 1: SyntaxError: "),
        ("\n1 / 0\n", "bad.py, line 2: ZeroDivisionError: division by zero"),
        ("import helper2\nhelper2.f()\n", "helper2.py, line 2: KeyError: 'x'"),
        ("import nowhere_to_be_found\n", "bad.py, line 1: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("raise SystemExit(3)\n", "bad.py, line 1: SystemExit: 3"),
        ("x = 1\n", 'registers nothing; it needs a line such as CRITERIA["mine"] = my_function'),
        ("CRITERIA['magnitude'] = len", "registers 'magnitude' as pruning.criterion: the package has it: give yours"),
        (
            "del CRITERIA['random']",
            "registers 'random' as pruning.criterion: the package has it: give yours another name",
        ),
        ("CRITERIA['../x'] = len", "registers '../x' as pruning.criterion: a name is made of letters, digits, - and _"),
        ("CRITERIA[3] = len", "registers 3 as pruning.criterion: a name is made of letters"),
        ("CRITERIA['x'] = 3", "registers 'x' as pruning.criterion: is 3: must be a function"),
        ("STARTS['x'] = len", "registers 'x' as start: is <built-in function len>: must be a lottery.starts.Rule"),
        ("MODELS['x'] = 'x'", "registers 'x' as model.name: is 'x': must be a function"),
    ],
)
def test_bad_files(source: str, message: str) -> None:
    Path("helper2.py").write_text("def f():\n    return {}['x']\n")
    header = (
        "from lottery.criteria import CRITERIA; from lottery.starts import STARTS; from lottery.models import MODELS; "
    )
    Path("bad.py").write_text(header + source if "[" in source else source)
    before = {setting: dict(registry) for setting, registry in code.REGISTRIES.items()}
    refused(lambda: code.load(code.read(["bad.py"])), message)
    assert before == code.REGISTRIES
    assert main(["run", "quickstart", "--use", "bad.py"]) == 2
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py", "cannot read "),
        ("mine", "must be a Python file, such as nets.py"),
        ("mine.txt", "must be a Python file"),
        ("a.b.py", "with no other dot in its name"),
        ("folder.py", "cannot read "),
        ("pipe.py", "not a regular file"),
        ("json.py", "Python has another module json, "),
        ("shadow.py", "Python has another module json, "),
        ("twice.py", "registers 'mine' as pruning.criterion: another file registers it too"),
        ("other/helper.py", "helper.py have one name: rename one of them"),
    ],
)
def test_files_that_are_none_or_have_names_of_others(name: str, message: str, folder: Path) -> None:
    (folder / "folder.py").mkdir()
    os.mkfifo(folder / "pipe.py")
    (folder / "json.py").write_text(MINE)
    (folder / "shadow.py").write_text("import json\n" + MINE)
    (folder / "twice.py").write_text(MINE)
    (folder / "other").mkdir()
    (folder / "other" / "helper.py").write_text("")
    refused(lambda: code.load(code.read(["mine.py", name])), message)


def test_packages_are_taken_whole_and_files_may_use_each_other(folder: Path) -> None:
    (folder / "pack" / "deep").mkdir(parents=True)
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "a.py").write_text("from .deep.b import size\n")
    (folder / "pack" / "deep" / "b.py").write_text("import helper\nfrom numpy import abs as size\n")
    (folder / "first.py").write_text("def late():\n    import mine\n    return mine\nimport pack.a\n" + "import mine\n")
    read = code.read(["first.py", "mine.py"])
    assert sorted(read.sources) == [
        "first.py",
        "helper.py",
        "mine.py",
        "pack/__init__.py",
        "pack/a.py",
        "pack/deep/b.py",
    ]
    code.load(read)
    assert sys.modules["pack.a"].size is np.abs
    assert sys.modules["first"].late() is sys.modules["mine"]


def evidence() -> Evidence:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return Evidence(arrays, arrays, {"a": np.ones((2, 3), bool)}, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda e: None, "gives a NoneType: give a dict with an array of scores for each mask, of its shape"),
        (lambda e: {}, "gives no scores of a"),
        (lambda e: {"b": e.trained["a"]}, "gives no scores of a"),
        (lambda e: {"a": e.trained["a"][0]}, "gives scores of a as float32 of shape (3,), not numbers of shape (2, 3)"),
        (lambda e: {"a": e.trained["a"] > "x"}, "fails: "),
        (lambda e: {"a": e.trained["a"].astype(str)}, "gives scores of a as <U32 of shape (2, 3), not numbers"),
        (lambda e: {"a": [[1, 2], [3]]}, "gives scores of a that are no array"),
        (lambda e: {"a": e.trained["a"] * np.nan}, "gives 6 scores of a that are NaN or infinite: nothing was pruned"),
        (lambda e: e.nothing, "test_use.py, line"),
    ],
)
def test_bad_scores(criterion: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "mine", criterion)
    refused(lambda: criteria.prune(evidence(), Pruning(criterion="mine")), message)
    refused(lambda: criteria.prune(evidence(), Pruning(criterion="mine")), "pruning.criterion = 'mine': ")


def test_scores_may_be_lists_and_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CRITERIA, "mine", lambda e: {"a": [[3, 2, 1], [6, 5, 4]]})
    assert criteria.prune(evidence(), Pruning(criterion="mine", rate=0.5))["a"].tolist() == [[False] * 3, [True] * 3]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda trunk: None, "makes a NoneType: it must make a lottery.starts.Start"),
        (
            lambda trunk: Start({}, trunk.masks, ()),
            "its weights of a are nothing: they must be float32 of shape (2, 3)",
        ),
        (lambda trunk: Start(trunk.initial, {"a": np.ones((2, 3))}, ()), "its masks of a are float64 of shape (2, 3)"),
        (lambda trunk: Start(trunk.initial, {"a": ~trunk.masks["a"]}, ()), "5 pruned weights of a are not 0"),
        (lambda trunk: trunk.nothing, "start rule mine fails: "),
    ],
)
def test_bad_starts(rule: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STARTS, "mine", Rule(rule))
    refused(lambda: begin("mine", Trunk((), 1, evidence().start, evidence().masks)), message)


X, Y = np.arange(24, dtype=np.uint8).reshape(4, 2, 3), np.array([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (X, "is a ndarray: give train images, train labels, test images, test labels, or a function"),
        ((X, Y), "is a tuple: give train images"),
        (lambda: 1 / 0, "its function fails: "),
        (lambda n: n, "its function fails: TypeError"),
        ((X.astype(str), Y, X, Y), "train images are <U3, such as "),
        ((X.astype(complex), Y, X, Y), "train images are complex128"),
        (([[1], [2, 3]], Y, X, Y), "train images are no array"),
        ((X[:, 0, 0], Y, X, Y), "train images have shape (4,): give numbers [n, ...]"),
        ((X[:0], Y[:0], X, Y), "train images have shape (0, 2, 3): give at least one"),
        ((X, Y, X / np.nan, Y), "test images have 24 values that are NaN or infinite"),
        ((X, Y, X[:, :1], Y), "a train image is uint8 of shape (2, 3), a test image uint8 of shape (1, 3)"),
        ((X, Y, X / 255, Y), "a test image float32 of shape (2, 3): they must be alike"),
        ((X, Y[:3], X, Y), "has 4 train images and 3 train labels"),
        ((X, Y / 2, X, Y), "train labels are float64, such as [0.0]: give whole numbers [n] from 0 to classes - 1"),
        ((X, Y[:, None], X, Y), "train labels have shape (4, 1)"),
        ((X, -Y, X, Y), "train labels go from -1 to 0"),
        ((X, 100 * Y, X, Y), "has a train label 100 and 4 train images: number classes from 0"),
        ((X, 0 * Y, X, Y), "has a test label 1, and train labels up to 0 alone"),
    ],
)
def test_bad_data(value: Any, message: str) -> None:
    refused(lambda: own("x", value), message)
    refused(lambda: own("x", value), "data.name = 'x': ")


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64, np.int64])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 4, 3), (2, 2, 2, 2)])
def test_data_of_any_shape_is_standardised(kind: Any, shape: tuple[int, ...]) -> None:
    """To mean 0 and standard deviation 1 over the training images, of each channel; what does not vary becomes 0."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (1500, *shape)).astype(kind)
    images[:, 0] += (0 if kind == np.uint8 else 1000) * (len(shape) == 3)
    if len(shape) == 3:
        images[:, 1] = 7
    labels = rng.integers(0, 3, 1500)
    dataset = own("x", (images, labels, images, labels))
    assert (dataset.shape, dataset.train, dataset.classes) == (shape, 1500, 3)
    data = split(dataset.read(dataset, None), "standardize", 0, rng).train
    assert np.array_equal(data.labels, labels)
    channels = data.images.reshape(1500, shape[0] if len(shape) == 3 else 1, -1)
    assert np.allclose(channels.mean((0, 2)), 0, atol=1e-4)
    assert np.allclose(channels.std((0, 2)), [1, 0] if len(shape) == 3 else 1, atol=1e-3)
    if kind == np.uint8:
        assert all(np.isfinite(scale(images.reshape(1500, -1), dataset)).all() for scale in SCALINGS.values())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Net()", "is a network: give the function that makes it"),
        ("lambda: 3", "gives 3: it must make a torch.nn.Module"),
        ("lambda: 1 / 0", "its factory fails: "),
        ("lambda a, b, c: Net()", "is made of three arguments, and no lottery.models.Network: give"),
        ("lambda a: Net()", "missing a required argument: 'a'"),
        ("lambda: nn.Linear(3, 10)", "fails on examples [n, 1, 28, 28]: RuntimeError: "),
        ("lambda: nn.Linear(28, 10)", "makes (2, 1, 28, 10) of 2 examples in 10 classes: it must make (2, 10)"),
        ("nn.Flatten", "no linear layer and no convolution"),
    ],
)
def test_bad_networks(tiny: Spec, factory: str, message: str) -> None:
    Path("net.py").write_text(NET.replace('["net"] = Net', f'["net"] = {factory}'))
    refused(lambda: lottery.run(replace(tiny, model=Model("net"), use=("net.py",))), message)
    assert not Path("runs").exists()
