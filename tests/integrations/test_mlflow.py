"""MLflow: what its store holds of a run, read back with its own client, and what becomes of the run when it fails."""

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_trackers import SPEC, expected

import lottery
from lottery.engines import history
from lottery.runs import checkpoints, trackers
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place
from lottery.runs.store import Run
from lottery.spec import flatten

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it is read where mlflow is imported: here
mlflow: Any = pytest.importorskip("mlflow")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's use of SQLAlchemy

SMALL = replace(SPEC, replicates=1, branches=())


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Its store is the others' too, where MLFLOW_TRACKING_URI says so: to make one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("TRACKING_URI", "EXPERIMENT_NAME"):
            patch.delenv(f"MLFLOW_{name}", raising=False)
        folder = tmp_path_factory.mktemp("runs")
        yield lottery.run(SPEC, runs_dir=folder, progress=False, log=["mlflow", "tensorboard"], name="mine")


@pytest.fixture
def experiment(logged: Run, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A new one, in the store of `logged`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri(logged))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    return str(request.node.name)


def uri(logged: Run) -> str:
    return f"sqlite:///{logged.path / 'mlflow.db'}"


def read(logged: Run, experiment: str) -> dict[str, tuple[Any, dict[str, list[tuple[int, float]]]]]:
    """Chain -> the run of MLflow, and of each metric (step, value) as they came; each chain has one."""
    client, found = mlflow.MlflowClient(tracking_uri=uri(logged)), {}
    for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id]):
        assert run.info.run_name not in found
        points = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        found[run.info.run_name] = run, {name: [(p.step, p.value) for p in points[name]] for name in points}
    return found


def assert_shown(run: Run, shown: dict[str, tuple[Any, dict[str, list[tuple[int, float]]]]]) -> None:
    """MLflow has each evaluation and level of the run once, in order, and its spec."""
    assert set(shown) == set(expected(run))
    for chain, curve in expected(run).items():
        begun, points = shown[chain]
        wanted = {f"evaluation/{name}": [(step, v[name]) for step, v in curve] for name in history.COLUMNS[1:]}
        levels = defaultdict(list)
        for row in run.rows():
            for name, value in trackers.numbers(row).items() if trackers.chain_folder(row.place) == chain else ():
                levels[name].append((row.place.level, value))
        assert points == wanted | levels
        assert (points["density/fc1.weight"][-1], begun.info.status) == ((2, 0.25), "FINISHED")
        assert begun.data.params == {name: str(value) for name, value in flatten(run.spec).items()}


def test_a_chain_is_a_run_that_can_be_grouped(logged: Run) -> None:
    shown = read(logged, "lottery")
    assert_shown(logged, shown)
    assert len(shown) == 8
    for chain, (begun, _) in shown.items():
        tags = begun.data.tags
        assert (tags["run"], tags["folder"]) == ("mine", logged.path.name)
        assert trackers.chain_folder(Place(tags["branch"], int(tags["replicate"]), 0, int(tags["draw"]))) == chain


def test_a_run_that_was_interrupted_continues_its_curves(
    logged: Run, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a kill, twice, after which MLflow lacks what was not sent; and by a stop. What it has is not sent again."""
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)

    def stop_at(level: int, iteration: int) -> None:
        def stop(event: Progress) -> None:
            if (event.place.level, event.iteration) == (level, iteration):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            lottery.run(SMALL, runs_dir=tmp_path, progress=stop, log="mlflow")

    with monkeypatch.context() as patch:
        patch.setattr(trackers.MLflowRuns, "EVERY", 0.0)
        patch.setattr(trackers.MLflowRuns, "close", lambda log: log.where)
        stop_at(0, 20)
        patch.setattr(trackers.MLflowRuns, "EVERY", 1e9)
        stop_at(1, 20)
    ((killed, points),) = read(logged, experiment).values()
    assert (points["evaluation/train_loss"][-1][0], killed.info.status) == (10, "RUNNING")
    stop_at(2, 20)
    ((stopped, points),) = read(logged, experiment).values()
    assert [step for step, _ in points["evaluation/train_loss"]] == [10, 20, 30, 50, 60]
    assert stopped.info.status == "KILLED"
    run = lottery.run(SMALL, runs_dir=tmp_path, progress=False, log="mlflow")
    assert_shown(run, shown := read(logged, experiment))
    ((begun, _),) = shown.values()
    assert begun.info.run_id == killed.info.run_id == stopped.info.run_id
    lottery.run(SMALL, runs_dir=tmp_path, progress=False, log="mlflow")
    assert_shown(run, again := read(logged, experiment))
    assert [known.info.end_time for known, _ in again.values()] == [begun.info.end_time]


def test_much_goes_in_calls_that_are_not_too_large(
    logged: Run, experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers.MLflowRuns, "EVERY", 1e9)
    monkeypatch.setattr(trackers.MLflowRuns, "MOST", 11)
    sizes, send = [], mlflow.MlflowClient.log_batch

    def counted(self: Any, run_id: str, metrics: Any = (), **others: Any) -> None:
        sizes.append(len(metrics))
        send(self, run_id, metrics, **others)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", counted)
    with trackers.Logs("mlflow", logged.path) as logs:
        pass
    assert_shown(logged, read(logged, experiment))
    rows = {len(trackers.numbers(row)) for row in logged.rows()}
    assert set(sizes) == {0, 5, 10} | rows  # of parameters, one evaluation, two, or a level
    assert min(rows) > 11
    assert logs.where == {
        "mlflow": f"experiment {experiment} in {uri(logged)}; to see it: mlflow ui --backend-store-uri {uri(logged)}"
    }


def test_several_runs_in_a_process(logged: Run, experiment: str, tmp_path: Path) -> None:
    """A run of MLflow that its user has in hand is left alone."""
    other = lottery.run(replace(SMALL, levels=0), runs_dir=tmp_path, progress=False)
    with mlflow.start_run(run_name="own") as own:
        with trackers.Logs("mlflow", logged.path), trackers.Logs("mlflow", other.path):
            assert mlflow.active_run() is own
        assert mlflow.active_run() is own
        mlflow.log_metric("x", 1)
    client = mlflow.MlflowClient()
    folders = [run.data.tags.get("folder") for run in client.search_runs([own.info.experiment_id])]
    assert sorted(map(str, folders)) == sorted([*[logged.path.name] * 8, other.path.name, "None"])
    assert client.get_run(own.info.run_id).data.metrics == {"x": 1}


def test_a_store_that_fails_stops_no_run(
    logged: Run, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No database can be made, at either place; or a run of MLflow is deleted, in its UI, while it is written."""
    client = mlflow.MlflowClient()

    def delete(event: Progress) -> None:
        if (event.place.level, event.iteration) == (1, 20):
            (begun,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
            client.delete_run(begun.info.run_id)

    def warning(folder: str) -> str:
        run = lottery.run(
            SMALL, runs_dir=tmp_path / folder, progress=delete if folder == "deleted" else False, log="mlflow"
        )
        assert len(run.rows()) == 3
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lottery: warning: the run goes on without mlflow: ")
        return line

    assert "deleted" in warning("deleted")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    assert "/dev/null" in warning("elsewhere")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "here" / SMALL.uid / "mlflow.db").mkdir(parents=True)
    assert "IsADirectoryError" in warning("here")
