"""What others have open already: TensorBoard, Weights & Biases, MLflow, a tracker of one's own. Nothing is read back.

A tracker is told every evaluation and every finished level of a run, of each chain in order: those that are on disk
when it begins, then the others as they happen. So what it shows is whole after any interruption, and can be had of a
run that is finished. Whatever a tracker raises is one line of warning: it is told no more, and the run goes on.
"""

import hashlib
import importlib.util
import logging
import math
import os
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from lottery.engines import history
from lottery.errors import LotteryError, known, line, shown
from lottery.runs.replicate import Progress
from lottery.runs.rows import DENSITY, Place, Row
from lottery.runs.store import Run
from lottery.spec import flatten


class Log(Protocol):
    """What a tracker writes of one run.

    A chain is the levels of one branch, replicate and draw, the trunk's with the dense network's. Its steps grow from
    evaluation to evaluation and level to level: whatever the start rule, level l ends at step (l + 1) · T, where T is
    `recipe.iterations`, and a branch begins behind the dense network, at step T.
    """

    def evaluation(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        """Called after each evaluation.

        Args:
            place: of the level, and of its chain.
            step: of the chain.
            values: train_loss, validation_loss, test_loss (nats), validation_accuracy and test_accuracy (fractions);
                without those of validation where nothing is held out.
        """

    def level(self, row: Row, step: int) -> None:
        """Called with the row in levels.csv of each finished level, and the step of its last evaluation."""

    def close(self) -> str | None:
        """Called last, also after an error. Returns where people find what was written, if there is such a place."""


class Tracker(Protocol):
    """Where runs are followed: `lottery.run(..., log=tracker)`."""

    def begin(self, run: Run) -> Log:
        """Called before the first evaluation, or once a run is found to be finished, in the process that was asked to
        run it. Its spec, name and folder are there already."""


class Logs:
    """The trackers of one run: called with each Progress, and used as a context."""

    def __init__(self, log: "str | Tracker | Sequence[str | Tracker] | None", path: Path):
        """What will be told.

        Args:
            log: names of LOGS, or trackers.
            path: the run's folder, which need not be there yet.

        Raises:
            LotteryError: for a name that is unknown or whose tool is not installed, and for what is no tracker.
        """
        self.trackers, self.path = trackers(log), path
        self.logs: dict[str, Log] = {}
        """Of the trackers that have not failed."""
        self.where: dict[str, str] = {}
        """Name -> where to look, once all is written."""
        self.run: Run | None = None
        self.step: Counter[Place] = Counter()
        """Chain, as the place of its level 0 -> the step up to which it is told."""
        self.due: dict[Place, int] = {}
        """Chain -> the level that is to be finished next."""

    def __enter__(self) -> "Logs":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._tell_finished()
        for name, log in list(self.logs.items()):
            with self._guard(name):
                if where := log.close():
                    self.where[name] = where

    def __call__(self, event: Progress) -> None:
        if not self.trackers or event.note:
            return
        run = self._begin()
        if event.place.level > self._due(run, event.place):  # a level between others was trained anew
            self._tell_finished()
        for row in event.evaluations:
            self._evaluation(run, event.place, event.last, dict(zip(history.COLUMNS, row, strict=True)))
        if event.row:
            self._level(run, event.row)

    def _begin(self) -> Run:
        """The run, once every tracker has begun and knows what is finished."""
        if self.run is None:
            self.run = Run(self.path)
            for name, tracker in self.trackers.items():
                with self._guard(name):
                    self.logs[name] = tracker.begin(self.run)
            self._tell_finished()
        return self.run

    def _due(self, run: Run, place: Place) -> int:
        return self.due.get(replace(place, level=0), 0 if place.branch == run.spec.start else 1)

    def _tell_finished(self) -> None:
        """Tells what is on disk and was not told, of each chain up to the first gap."""
        if not self.trackers:
            return
        run = self._begin()
        for place in run.places(unreadable=[]) if self.logs else ():
            if place.level == self._due(run, place):
                with suppress(LotteryError):  # to say that a level is damaged is for those that need it
                    row, logged = run.check(place).row, run.history_of(place)
                    columns = {name: logged[name].tolist() for name in history.COLUMNS}
                    for values in zip(*columns.values(), strict=True):
                        self._evaluation(run, place, row.iterations, dict(zip(columns, values, strict=True)))
                    self._level(run, row)

    def _evaluation(self, run: Run, place: Place, last: int, values: dict[str, float]) -> None:
        chain = replace(place, level=0)
        step = self._end(run, place) - last + int(values.pop("iteration"))
        if step <= self.step[chain]:  # told from disk, before its event came, or by a worker that was lost
            return
        self.step[chain] = step
        values = {name: value for name, value in values.items() if not math.isnan(value)}
        self._tell(lambda log: log.evaluation(place, step, values))

    def _level(self, run: Run, row: Row) -> None:
        if row.place.level < self._due(run, row.place):
            return
        self.due[replace(row.place, level=0)] = row.place.level + 1
        self._tell(lambda log: log.level(row, self._end(run, row.place)))

    @staticmethod
    def _end(run: Run, place: Place) -> int:
        """The step of a level's last evaluation."""
        return (place.level + 1) * run.spec.recipe.iterations

    def _tell(self, call: Callable[[Log], object]) -> None:
        for name, log in list(self.logs.items()):
            with self._guard(name):
                call(log)

    @contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        """Whatever the tracker raises there, it is told no more."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self.logs.pop(name, None)
            words = f"{error}" if isinstance(error, LotteryError) else f"{type(error).__name__}: {error}"
            print(f"lottery: warning: the run goes on without {name}: {line(words)}", file=sys.stderr)


def numbers(row: Row) -> dict[str, float]:
    """What a row has to be drawn against the level, with names in groups: level/test_accuracy, density/fc1.weight."""
    values = {name: value for name, value in row.to_json().items() if isinstance(value, int | float)}
    densities = {name: value for name, value in values.items() if name.startswith(DENSITY)}
    others = {name: value for name, value in values.items() if name not in densities | vars(row.place)}
    return {f"level/{name}": value for name, value in others.items()} | {
        f"density/{name.removeprefix(DENSITY)}": value for name, value in densities.items()
    }


def settings(run: Run, place: Place) -> dict[str, Any]:
    """The spec, flattened, and the branch: what a chain's replicates and draws have in common."""
    return flatten(run.spec) | {"branch": place.branch}


def chain_folder(place: Place) -> str:
    """The name of a chain: rewind/replicate-0, reinit/replicate-0-draw-1."""
    return f"{place.branch}/replicate-{place.replicate}" + (f"-draw-{place.draw}" if place.draw else "")


def identity(run: Run, chain: str) -> str:
    """Of a chain, wherever it is logged: 16 hexadecimal digits, which a run that is continued has again."""
    begun = f"{run.path.resolve().name} {run.info['sessions'][0].get('started', '')}"
    return hashlib.sha256(f"{begun} {chain}".encode()).hexdigest()[:16]


class TensorBoard:
    """Event files in <run>/tensorboard, a folder for each chain, so that its curves lie over those of others.

    Evaluations are evaluation/<column>, a level's row level/<column> and density/<tensor> with the level as step, and
    the spec is there as hyperparameters. The files are written anew each time that the run is continued.
    """

    def begin(self, run: Run) -> "EventFiles":
        """Removes the files of an earlier time."""
        return EventFiles(run)


class EventFiles:
    """TensorBoard's log of one run. Each event is on disk when its call returns."""

    def __init__(self, run: Run):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.types: Any = Event, SessionLog, Summary, RecordWriter
        self.hyperparameters: Callable[..., Any] = hparams_pb
        self.run, self.folder = run, run.path / "tensorboard"
        self.open: dict[str, Any] = {}
        for left in self.folder.glob("**/events.out.tfevents.*"):
            left.unlink()

    def evaluation(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        """A scalar for each column."""
        self._scalars(place, step, {f"evaluation/{name}": value for name, value in values.items()})

    def level(self, row: Row, step: int) -> None:
        """A scalar for each number of the row; its step is the level."""
        self._scalars(row.place, row.place.level, numbers(row))
        if row.place.level >= self.run.spec.levels:  # there may be hundreds of chains, and files are few
            self.open.pop(chain_folder(row.place)).close()

    def close(self) -> str:
        """Returns the folder."""
        for file in self.open.values():
            file.close()
        return str(self.folder)

    def _scalars(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        _, _, Summary, _ = self.types
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(self._file(place), step=step, summary=summary)

    def _file(self, place: Place) -> Any:
        _, SessionLog, _, RecordWriter = self.types
        if (name := chain_folder(place)) not in self.open:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
            path = self.folder / name / f"events.out.tfevents.{time.time_ns()}.lottery"
            file = self.open[name] = RecordWriter(path.open("xb"))
            self._write(file, file_version="brain.Event:2")
            self._write(file, session_log=SessionLog(status=SessionLog.START))  # readers drop what they had before
            plain = {k: v if isinstance(v, int | float) else str(v) for k, v in settings(self.run, place).items()}
            self._write(file, summary=self.hyperparameters(plain))
        return self.open[name]

    def _write(self, file: Any, **what: Any) -> None:
        Event, *_ = self.types
        file.write(Event(wall_time=time.time(), **what).SerializeToString())
        file.flush()


class WeightsAndBiases:
    """A run of Weights & Biases for each chain, all in one group, which is the run of `lottery`.

    The names are those of TensorBoard; a level's are drawn against `level`. Environment variables (WANDB_MODE,
    WANDB_PROJECT, WANDB_DIR, ...) and wandb's own settings are followed; without them the project is `lottery`, and
    files are in <run>/wandb. A run that is continued continues its curves: the ids follow from its folder's name and
    the time when it was begun. Offline, its files are written anew.
    """

    def begin(self, run: Run) -> "WandbRuns":
        """Raises LotteryError where nobody is logged in: nothing is asked."""
        return WandbRuns(run)


class WandbRuns:
    """The log of one run for Weights & Biases."""

    def __init__(self, run: Run):
        self.wandb: Any = importlib.import_module("wandb")
        self.mode = self.wandb.setup().settings.mode
        alone = self.mode == "online" and self.wandb.run is None
        if alone and not self.wandb.login(prompt=False, verify=False):
            raise LotteryError("not logged in; type `wandb login`, or set WANDB_MODE=offline, and run again to add it")
        self.run, self.folder = run, Path(os.environ.get("WANDB_DIR") or run.path)
        self.first: dict[str, int] = {}
        """Chain -> the first step that wandb does not have yet."""
        self.begun: dict[str, Any] = {}
        self.where = f"{self.folder / 'wandb'}; to upload it: wandb sync {self.folder}/wandb/offline-run-*"

    def evaluation(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        """A step of its chain's run."""
        self._log(place, step, {f"evaluation/{name}": value for name, value in values.items()})

    def level(self, row: Row, step: int) -> None:
        """More of the step of its last evaluation."""
        self._log(row.place, step, numbers(row) | {"level": row.place.level})
        if row.place.level >= self.run.spec.levels:
            self.begun.pop(chain_folder(row.place)).finish()

    def close(self) -> str:
        """Waits until all is sent, a minute at most for each chain that is not finished; returns where it is."""
        for begun in self.begun.values():
            begun.finish()
        return self.where

    def _log(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        name = chain_folder(place)
        if name not in self.begun:
            self.begun[name] = self._begin(place, name)
        if step >= self.first[name]:
            self.begun[name].log(dict(values), step=step)

    def _begin(self, place: Place, name: str) -> Any:
        same = identity(self.run, name)
        if self.mode == "offline":
            for left in (self.folder / "wandb").glob(f"offline-run-*-{same}"):
                shutil.rmtree(left, ignore_errors=True)
        quiet = self.wandb.Settings(console="off", silent=True, finish_timeout=60, finish_timeout_raises=True)
        begun = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", "lottery"),
            group=self.run.name or self.run.path.resolve().name,
            job_type=place.branch,
            name=name,
            id=same,
            resume="allow",
            reinit="create_new",  # there may be others in this process
            dir=self.folder,
            config=settings(self.run, place) | {"replicate": place.replicate, "draw": place.draw},
            settings=quiet,
        )
        for group in ("level/*", "density/*"):
            begun.define_metric(group, step_metric="level")
        if self.mode == "online":
            self.where = f"{begun.project_url}, group {begun.group}"
        self.first[name] = begun.step
        return begun


class MLflow:
    """A run of MLflow for each chain, in the experiment $MLFLOW_EXPERIMENT_NAME, else `lottery`.

    The names are those of TensorBoard, with the level as the step of a level's; the spec is there as parameters; tags
    name the run of `lottery` (`run`, `folder`) and the chain (`branch`, `replicate`, `draw`), so that replicates can be
    grouped. MLFLOW_TRACKING_URI, or what `mlflow.set_tracking_uri` has set, says where; without it that is
    <run>/mlflow.db. A run that is continued continues its curves: a chain is found by its tag `lottery`.
    """

    def begin(self, run: Run) -> "MLflowRuns":
        """Makes the experiment, unless there is one of that name."""
        return MLflowRuns(run)


@dataclass
class Curves:
    """A chain's run of MLflow."""

    id: str
    status: str
    step: int = -1
    """Of the last evaluation that MLflow has."""
    level: int = -1
    """The last one that MLflow has."""
    due: list[list[Any]] = field(default_factory=list)
    """What is to be sent: the metrics of each call."""


class MLflowRuns:
    """The log of one run for MLflow.

    A call takes some 10 ms of a processor however little it brings, and a small network is evaluated more often: calls
    are made every few seconds, and at a chain's end.
    """

    EVERY = 2.0
    """Seconds from call to call."""
    MOST = 1000
    """Metrics of one call: MLflow's limit."""

    def __init__(self, run: Run):
        for switch in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
            os.environ.setdefault(switch, "true")
        self.mlflow: Any = importlib.import_module("mlflow")
        own = run.path.resolve() / "mlflow.db"
        if self.mlflow.is_tracking_uri_set():
            uri = self.mlflow.get_tracking_uri()
        else:
            uri = f"sqlite:///{own}"
            own.open("ab").close()  # where that fails, MLflow would try for two minutes
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)  # it tells how a new file is filled
        self.client: Any = self.mlflow.MlflowClient(tracking_uri=uri)
        self.run = run
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "lottery"
        if not (found := self.client.get_experiment_by_name(name)):
            with suppress(self.mlflow.MlflowException):  # another run may be first
                self.client.create_experiment(name)
            found = self.client.get_experiment_by_name(name)
        self.experiment: str = found.experiment_id
        self.begun: dict[str, Curves] = {}
        self.called = time.monotonic()
        public = re.sub(r"//[^/@]*@", "//", uri)  # without a password
        self.where = f"experiment {name} in {public}"
        if not uri.startswith("http"):
            self.where += f"; to see it: mlflow ui --backend-store-uri {public}"

    def evaluation(self, place: Place, step: int, values: Mapping[str, float]) -> None:
        """Metrics of its chain's run."""
        curves = self._curves(place)
        if step > curves.step:
            self._add(curves, step, {f"evaluation/{name}": value for name, value in values.items()})
        if step % self.run.spec.recipe.iterations:  # else its level is finished, and follows
            self._send_if_due()

    def level(self, row: Row, step: int) -> None:
        """Metrics of its chain's run, whose step is the level."""
        curves = self._curves(row.place)
        if row.place.level > curves.level:
            self._add(curves, row.place.level, numbers(row))
        if row.place.level >= self.run.spec.levels:
            self._end(self.begun.pop(chain_folder(row.place)), "FINISHED")
        self._send_if_due()

    def close(self) -> str:
        """Sends what is left, and says of chains that are not finished that they were stopped; returns where it is."""
        for curves in self.begun.values():
            self._end(curves, "KILLED")
        return self.where

    def _curves(self, place: Place) -> Curves:
        name = chain_folder(place)
        if name not in self.begun:
            self.begun[name] = self._begin(place, name)
        return self.begun[name]

    def _begin(self, place: Place, name: str) -> Curves:
        same, folder = identity(self.run, name), self.run.path.resolve().name
        tags = {"run": self.run.name or folder, "folder": folder, "branch": place.branch, "lottery": same}
        tags |= {"replicate": str(place.replicate), "draw": str(place.draw)}
        found = self.client.search_runs([self.experiment], f"tags.lottery = '{same}'", max_results=1)
        begun = found[0] if found else self.client.create_run(self.experiment, run_name=name, tags=tags)
        params = {key: str(value)[:6000] for key, value in flatten(self.run.spec).items()}  # MLflow's limit
        missing = [(key, value) for key, value in params.items() if key not in begun.data.params]
        if missing:  # what is there can't be changed
            self.client.log_batch(begun.info.run_id, params=[self.mlflow.entities.Param(*pair) for pair in missing])
        curves = Curves(begun.info.run_id, begun.info.status)
        if found:
            curves.step, curves.level = (
                max((point.step for point in self.client.get_metric_history(curves.id, metric)), default=-1)
                for metric in ("evaluation/test_accuracy", "level/density")
            )
        return curves

    def _add(self, curves: Curves, step: int, values: Mapping[str, float]) -> None:
        now, Metric = time.time_ns() // 1_000_000, self.mlflow.entities.Metric
        curves.due.append([Metric(name, float(value), now, step) for name, value in values.items()])

    def _send_if_due(self) -> None:
        if time.monotonic() - self.called >= self.EVERY:
            for curves in self.begun.values():
                self._send(curves)
            self.called = time.monotonic()

    def _send(self, curves: Curves) -> None:
        if curves.due and curves.status != "RUNNING":
            self.client.update_run(curves.id, status="RUNNING")
            curves.status = "RUNNING"
        while curves.due:
            metrics = curves.due.pop(0)  # whole, and in order: what is there says what is missing
            while curves.due and len(metrics) + len(curves.due[0]) <= self.MOST:
                metrics = metrics + curves.due.pop(0)
            self.client.log_batch(curves.id, metrics=metrics)

    def _end(self, curves: Curves, status: str) -> None:
        self._send(curves)
        if curves.status == "RUNNING":
            self.client.set_terminated(curves.id, status=status)


LOGS: dict[str, Callable[[], Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "mlflow": MLflow}
"""Name of a tool, which is also that of the module it needs and of the extra that installs it -> its tracker."""


def trackers(log: "str | Tracker | Sequence[str | Tracker] | None") -> dict[str, Tracker]:
    """Name -> each that is named or given.

    Raises:
        LotteryError: for an unknown name, one whose tool is not installed, and for what is no tracker.
    """
    given: list[Any] = [] if log is None else list(log) if isinstance(log, list | tuple) else [log]
    found: dict[str, Tracker] = {}
    for one in given:
        if isinstance(one, str):
            check(one)
            found[one] = LOGS[one]()
        elif callable(getattr(one, "begin", None)):
            name = type(one).__name__
            found[f"{name} {len(found)}" if name in found else name] = one
        else:
            remedy = f"must be {', '.join(LOGS)}, a tracker (an object with `begin`, see lottery.Tracker), or several"
            raise LotteryError(f"log = {shown(one)}: {remedy}")
    return found


def check(name: str) -> None:
    """Raises LotteryError for an unknown tool, or one that is not installed."""
    if name not in LOGS:
        raise LotteryError(known("log", name, LOGS))
    module = importlib.util.find_spec(name)
    if module is None or module.origin is None:  # the latter: a folder of that name, such as wandb itself leaves
        raise LotteryError(f"--log {name}: {name} is not installed; pip install 'lottery[{name}]', or leave --log out")
