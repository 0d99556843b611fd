"""Runs on a Ray cluster of two nodes, 127.0.0.2 and 127.0.0.3, in which workers, nodes and the driver are killed: their
bytes are those of runs in this process."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from processes import COMMAND

import lottery
from lottery.runs import machine
from lottery.runs.sweep import Sweep
from lottery.spec import Data, Model, Pruning, Recipe, Spec

pytest.importorskip("ray")

HEAD, OTHER = "127.0.0.2", "127.0.0.3"

DRIVER = """
import sys
import ray
import lottery

def told(event):
    if event.row or event.note:
        print(event.place, event.note, sep=event.note and ": ", flush=True)

if __name__ == "__main__":
    address, spec, runs, *rest = sys.argv[1:]
    ray.init(address=address, _node_ip_address="127.0.0.2", logging_level="CRITICAL", log_to_driver=False)
    try:
        lottery.run(spec, runs_dir=runs, progress=told, cluster=lottery.Ray("", *map(float, rest)))
    except lottery.LotteryError as error:
        sys.exit(f"lottery: error: {error}")
"""
"""Prints each level when it is on disk."""


class Nodes:
    """A cluster whose nodes come and go."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        self.cluster: Any = import_module("ray.cluster_utils").Cluster()
        self.others: list[Any] = []
        self.drivers: list[subprocess.Popen[str]] = []

    def add(self, address: str, cpus: int = 2, environment: dict[str, str] | None = None) -> Any:
        node = {"node_ip_address": address, "num_cpus": cpus, "object_store_memory": 100 << 20}
        made = self.cluster.add_node(**node, include_dashboard=False, env_vars=environment or {})
        if address != HEAD:
            self.others.append(made)
        return made

    def kill(self, node: Any) -> None:
        """As a machine ends that loses its power."""
        self.others.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def drive(
        self, spec: Spec, folder: Path, *rest: object, prefix: tuple[str, ...] = (), script: str = DRIVER
    ) -> "subprocess.Popen[str]":
        """A driver of its own, on the head's machine, whose runs are in `folder`."""
        folder.mkdir(exist_ok=True)
        (folder / "spec.toml").write_text(spec.to_toml())
        (folder / "drive.py").write_text(script)
        words = [sys.executable, "drive.py", self.cluster.address, "spec.toml", "runs", *map(str, rest)]
        pipe = subprocess.PIPE
        self.drivers.append(subprocess.Popen([*prefix, *words], cwd=folder, stdout=pipe, stderr=pipe, text=True))
        return self.drivers[-1]

    def end(self) -> None:
        """Leaves nothing behind of what a test has begun."""
        for driver in self.drivers:
            driver.kill()
            driver.communicate()
        for node in [*self.others]:
            self.kill(node)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """With a head that trains too."""
    made = Nodes()
    made.add(HEAD)
    yield made
    made.cluster.shutdown()


@pytest.fixture
def other(nodes: Nodes) -> Iterator[Any]:
    """The second node, for as long as a test leaves it alive."""
    yield nodes.add(OTHER)
    nodes.end()


MINE = """
import numpy as np
from lottery.criteria import CRITERIA

CRITERIA["moved"] = lambda evidence: {n: np.abs(evidence.trained[n] - evidence.start[n]) for n in evidence.masks}
"""
"""A criterion of one's own, which nodes get with the run's code."""


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Levels of a second, six chains."""
    mine = tmp_path_factory.mktemp("mine") / "mine.py"
    mine.write_text(MINE)
    return Spec(
        data=Data(name="mnist-5k", validation=500),
        model=Model(name="mlp", hidden=(100, 30)),
        recipe=Recipe(iterations=2000, evaluate_every=200),
        pruning=Pruning(rate=0.3, criterion="moved"),
        levels=3,
        replicates=3,
        branches=("reinit",),
        use=(mine,),
    )


@pytest.fixture(scope="module")
def undisturbed(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the spec, made in two processes here."""
    return lottery.run(spec, runs_dir=tmp_path_factory.mktemp("here"), jobs=2, progress=False).path


def levels(run: Path) -> dict[str, Any]:
    """Every file of every level; of its record, all but how long it took."""
    found: dict[str, Any] = {}
    for path in sorted(run.glob("*/replicate-*/**/*")):
        name = str(path.relative_to(run))
        if path.name == "level.json":
            record = json.loads(path.read_bytes())
            del record["row"]["seconds"], record["checksum"]
            found[name] = record
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def only(folder: Path) -> Path:
    """The one run there."""
    [record] = (folder / "runs").glob("*/run.json")
    return record.parent


def ended(driver: "subprocess.Popen[str]") -> list[str]:
    """The levels that a driver prints to its end, which is a good one."""
    output, errors = driver.communicate(timeout=200)
    assert driver.returncode == 0, errors
    return [line for line in output.splitlines() if re.fullmatch(r"\w+, replicate \d, level \d", line)]


def until(driver: "subprocess.Popen[str]", count: int) -> list[str]:
    """The first levels that a driver prints."""
    assert driver.stdout
    return [driver.stdout.readline().strip() for _ in range(count)]


def workers() -> dict[int, str]:
    """Process -> address of its node, of workers that are at a task."""
    found: dict[int, str] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes().startswith(b"ray::_work"):
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                node = re.search(r"node_ip_address=([\d.]+)", Path(f"/proc/{parent}/cmdline").read_text())
                found |= {int(path.name): node[1]} if node else {}
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_two_nodes_without_a_common_folder_make_the_bytes_of_one_process(
    nodes: Nodes, other: Any, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    """The driver's folder is mounted where no other process sees it, and copied out when it is done."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("mounting a folder for one process alone needs root")
    (tmp_path / "runs").mkdir()
    alone = 'mount -t tmpfs none runs && "$@" && cp -a runs/. out'
    driver = nodes.drive(spec, tmp_path, prefix=("unshare", "--mount", "sh", "-c", alone, "sh"))
    seen = set[str]()
    while driver.poll() is None:
        seen |= set(workers().values())
        time.sleep(0.2)
    ended(driver)
    assert seen == {HEAD, OTHER}
    assert not list((tmp_path / "runs").iterdir())
    [record] = (tmp_path / "out").glob("*/run.json")
    assert levels(record.parent) == levels(undisturbed)
    assert (record.parent / "levels.csv").read_text().count("\n") == 1 + 3 * (4 + 3)


def test_a_worker_that_is_killed_costs_its_level_alone(
    nodes: Nodes, other: Any, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    driver = nodes.drive(spec, tmp_path)
    finished = until(driver, 2)
    while not (at_work := workers()):
        assert driver.poll() is None
    os.kill(min(at_work), signal.SIGKILL)
    finished += ended(driver)
    assert levels(only(tmp_path)) == levels(undisturbed)
    assert set(Counter(finished).values()) == {1}


def test_a_node_that_is_killed_is_replaced_by_the_other(
    nodes: Nodes, other: Any, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    driver = nodes.drive(spec, tmp_path)
    finished = until(driver, 3)
    nodes.kill(other)
    finished += ended(driver)
    assert levels(only(tmp_path)) == levels(undisturbed)
    assert set(Counter(finished).values()) == {1}


def test_a_driver_that_is_killed_is_continued_by_the_same_command(
    nodes: Nodes, other: Any, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    driver = nodes.drive(spec, tmp_path)
    finished = until(driver, 3)
    driver.kill()
    driver.communicate()
    finished += ended(nodes.drive(spec, tmp_path))
    assert levels(only(tmp_path)) == levels(undisturbed)
    assert max(Counter(finished).values()) == 1


def test_a_node_of_other_instructions_goes_on_with_no_replicate_and_is_named(
    nodes: Nodes, spec: Spec, undisturbed: Path, tmp_path: Path
) -> None:
    """The second node's NumPy, and with it every level, is told to do without this processor's newest instructions;
    the first has no room for a task of three cores."""
    small = replace(spec, levels=1, replicates=1, branches=())
    lottery.run(replace(small, levels=0), runs_dir=tmp_path / "runs", progress=False)
    newest = machine.instructions().split()[-1]
    lesser = nodes.add(OTHER, 3, {"NPY_DISABLE_CPU_FEATURES": newest})
    try:
        _, errors = nodes.drive(small, tmp_path, 3).communicate(timeout=100)
        begun = f"replicate 0 was begun on {re.escape(machine.instructions())}"
        assert re.search(f"no machine of the Ray cluster can go on: {OTHER}: its processor is .*, and {begun}", errors)
        assert ended(nodes.drive(small, tmp_path)) == ["rewind, replicate 0, level 1"]
    finally:
        nodes.kill(lesser)
    assert levels(only(tmp_path)).items() <= levels(undisturbed).items()


def test_more_than_any_node_has_is_refused_before_anything_is_done(nodes: Nodes, spec: Spec, tmp_path: Path) -> None:
    for asked in (("5",), ("1", "0.5")):
        _, errors = nodes.drive(spec, tmp_path, *asked).communicate(timeout=100)
        assert "no machine of the Ray cluster has" in errors
    assert not list((tmp_path / "runs").glob("*/run.json"))


SWEEP = DRIVER.replace("def told(event)", "def told(spec, event)").replace(
    "lottery.run(spec, ", 'lottery.sweep(spec, {"seed": [*range(8)]}, name="eight", '
)


def test_a_node_that_is_killed_in_the_middle_of_a_sweep_of_eight_runs(
    nodes: Nodes, other: Any, spec: Spec, tmp_path: Path
) -> None:
    small = replace(spec, levels=2, replicates=1, branches=())
    here = lottery.sweep(small, {"seed": [*range(8)]}, name="eight", runs_dir=tmp_path, jobs=2, progress=False)
    driver = nodes.drive(small, tmp_path, script=SWEEP)
    finished = until(driver, 6)
    nodes.kill(other)
    finished += ended(driver)
    assert len(finished) == 8 * 3
    away = Sweep.open(tmp_path / "runs" / "sweep-eight")
    assert [levels(run.path) for run in away.runs] == [levels(run.path) for run in here.runs]
    tables = [(sweep.path / "runs.csv").read_text().splitlines() for sweep in (here, away)]
    assert len(tables[0]) == len(tables[1]) == 9
    assert (away.path / "report.html").is_file()


OTHER_RAY = """
import time
import ray
ray.__version__ = "2.9.9"
from ray.cluster_utils import Cluster
cluster = Cluster()
cluster.add_node(node_ip_address="127.0.0.4", num_cpus=1, object_store_memory=100 << 20, include_dashboard=False)
print("address", cluster.address, flush=True)
time.sleep(600)
"""
"""A cluster whose head says that its Ray is another one."""


def test_what_cannot_be_connected_to_is_one_line(tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        command = [*COMMAND, "run", "quickstart", "--runner", "ray", *words]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
        assert (ended.returncode, ended.stdout, list(tmp_path.iterdir())) == (2, "", [])
        [line] = ended.stderr.splitlines()
        return line

    assert "no Ray cluster there" in refused("--address", "127.0.0.9:6379")
    assert "must be auto, or the head's host and port" in refused("--address", "nowhere")
    assert "Ray's client cannot stream results" in refused("--address", "ray://127.0.0.9:10001")
    assert "must be a whole number, or a fraction of one" in refused("--cpus", "1.5")
    head = subprocess.Popen([sys.executable, "-c", OTHER_RAY], stdout=subprocess.PIPE, text=True)
    try:
        assert head.stdout
        *_, address = next(line for line in head.stdout if line.startswith("address ")).split()
        assert "the cluster has other versions (Ray: 2.9.9" in refused("--address", address)
    finally:
        head.terminate()
        head.communicate()


def test_a_signal_ends_a_run_on_a_cluster_of_its_own_in_one_line(spec: Spec, tmp_path: Path) -> None:
    """Ray takes SIGTERM for itself when it is started."""
    (tmp_path / "spec.toml").write_text(replace(spec, replicates=20).to_toml())
    environment = os.environ | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # which keeps it on 127.0.0.1
    command, pipe = [*COMMAND, "run", "spec.toml", "--runner", "ray", "--address", "local"], subprocess.PIPE
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout
    assert any(line.startswith("rewind") for line in process.stdout)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert (
        errors == "stopped; finished levels are kept. To continue: lottery run spec.toml --runner ray --address local\n"
    )
    assert process.returncode == 128 + signal.SIGTERM
