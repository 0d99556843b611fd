"""Carries out a study: trains what its items need and is not on disk, then writes figures, claims and tables.

Items share runs: of a run, whatever the chosen items need together is trained, once, and what is there already is not
trained again. So is a study that was stopped: asked for again, it goes on.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lottery import claims, experiment, models
from lottery.analysis import OpenRun, open_run, summary, unstopped
from lottery.errors import LotteryError, known
from lottery.experiment import Progress
from lottery.spec import Spec
from lottery.store import Run, wanted, write
from lottery.study import ITEMS, MAIN_SCALING, MEASURED_ON, RUNS, SCALINGS, Item, Results

STUDIES: dict[str, dict[str, Item]] = {"lth-mnist": ITEMS}
"""Study -> its items: Frankle & Carbin 2019, Section 2 and the appendices, on MNIST."""


def choose(study: str, only: str) -> list[str]:
    """Names of the items, from words apart by commas; the default ones for none. Raises LotteryError for others."""
    if study not in STUDIES:
        raise LotteryError(known("study", study, STUDIES))
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in STUDIES[study]:
            raise LotteryError(known("item", name, STUDIES[study]))
    return names or [name for name, item in STUDIES[study].items() if item.default]


def specs(items: Iterable[str], iterations: int, replicates: int) -> dict[str, Spec]:
    """Name of a run -> its spec, with all branches that these items need. Names of one run have the same spec."""
    wanted: dict[str, Spec] = {}
    for item in items:
        for name, branches in ITEMS[item].needs.items():
            spec = replace(RUNS[name].sized(iterations, replicates), branches=branches)
            wanted[name] = wanted[name].extended(spec) if name in wanted else spec
    together: dict[str, Spec] = {}
    for spec in wanted.values():
        together[spec.uid] = together[spec.uid].extended(spec) if spec.uid in together else spec
    return {name: together[wanted[name].uid] for name in RUNS if name in wanted}


def folder(study: str, iterations: int, runs_dir: Path) -> Path:
    """Where a study's figures and tables go."""
    return runs_dir / "studies" / f"{study}-{iterations}it"


@contextmanager
def _silent(name: str, spec: Spec) -> Iterator[Callable[[Progress], None]]:
    yield lambda event: None


def reproduce(
    study: str,
    *,
    iterations: int = 50_000,
    replicates: int = 5,
    only: str = "",
    runs_dir: Path | str = "runs",
    data_dir: Path | str | None = None,
    jobs: int = 1,
    watch: Callable[[str, Spec], AbstractContextManager[Callable[[Progress], None]]] = _silent,
) -> list[Path]:
    """Trains what is missing of a study's items, one run after the other, and writes them; returns the files.

    only: names of items apart by commas; the default ones if empty. watch: a context for each run, given its name and
    spec, whose value is called with its progress. Raises LotteryError as `choose` and `lottery.run` do.
    """
    items = choose(study, only)
    runs_dir = Path(runs_dir)
    trained: dict[str, OpenRun] = {}
    done: dict[str, OpenRun] = {}
    for name, spec in specs(items, iterations, replicates).items():
        if spec.uid not in done:
            with watch(name, spec) as progress:
                run = experiment.run(spec, runs_dir=runs_dir, data_dir=data_dir, jobs=jobs, progress=progress)
            done[spec.uid] = open_run(run.path)
        trained[name] = done[spec.uid]
    return write_results(items, trained, folder(study, iterations, runs_dir))


@dataclass(frozen=True)
class Cost:
    """Seconds of one core."""

    total: float
    missing: float
    """Of the levels that are not on disk."""
    measured: bool
    """Scaled by what levels on disk took here; else by what they take on the machine of benchmarks/RESULTS.md."""


COST = {0.0: 0.08, 0.012: 0.1, 0.036: 0.17, 0.07: 0.26, 0.211: 0.57, 0.513: 0.93, 1.0: 0.86}
"""Density -> ms per iteration, evaluations included, of the sparse engine for LeNet-300-100 on one core of the
machine of benchmarks/RESULTS.md. Other networks are taken to cost in proportion to their weights, which is rough."""


def cost(chosen: Iterable[Spec], runs_dir: Path) -> Cost:
    """What these runs take, together: an estimate."""
    there = missing = measured = expected = 0.0
    for spec in {spec.uid: spec for spec in chosen}.values():
        path = runs_dir / spec.uid
        seconds: dict[tuple[object, ...], float] = {}
        if (path / "run.json").is_file():
            rows = Run(path).rows()
            seconds = {(row["branch"], row["replicate"], row["level"], row["draw"]): row["seconds"] for row in rows}
        for key in wanted(spec):
            estimate = _seconds(spec, key[2])
            if key in seconds:
                there, measured, expected = there + seconds[key], measured + seconds[key], expected + estimate
            else:
                missing += estimate
    factor = measured / expected if expected else 1.0
    return Cost(there + factor * missing, factor * missing, expected > 0)


def _seconds(spec: Spec, level: int) -> float:
    layout = models.mlp(experiment.sizes(spec))
    weights = sum(int(np.prod(tensor.shape)) for tensor in layout.values() if tensor.prunable)
    ms = np.interp((1 - spec.pruning.rate) ** level, list(COST), list(COST.values())) * weights / 266_200
    return float(ms) * spec.recipe.iterations / 1000


def listing(study: str, iterations: int, replicates: int, runs_dir: Path) -> Table:
    """What there is of a study (of all, if it has no name), and what it costs: a table for the terminal."""
    if study:
        choose(study, "")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("item", "what it shows", "runs (branches)", "hours", "missing", "shared with"):
        table.add_column(heading, justify="right" if heading in ("hours", "missing") else "left")
    measured = False
    for name in [study] if study else STUDIES:
        items = STUDIES[name]
        needed = {item: specs([item], iterations, replicates) for item in items}
        uids = {item: {spec.uid: run for run, spec in reversed(needed[item].items())} for item in items}
        everything = cost(specs(choose(name, ""), iterations, replicates).values(), runs_dir)
        table.add_row(
            f"[bold]{name}",
            "all but those marked *",
            "",
            f"{everything.total / 3600:.2g}",
            f"{everything.missing / 3600:.2g}",
            "",
        )
        for item, about in items.items():
            found = cost(needed[item].values(), runs_dir)
            measured |= found.measured
            runs = [
                f"{run} ({', '.join(needed[item][run].branches)})" if needed[item][run].branches else run
                for run in reversed(uids[item].values())  # a run of two names goes by the first
            ]
            table.add_row(
                item if about.default else f"{item} *",
                about.says,
                ", ".join(runs) if len(runs) <= 3 else f"{len(runs)} runs, {runs[0]} to {runs[-1]}",
                f"{found.total / 3600:.2g}",
                f"{found.missing / 3600:.2g}",
                ", ".join(other for other in items if other != item and uids[item].keys() & uids[other].keys()),
            )
    source = (
        "what finished levels took here" if measured else "what levels take on the machine of benchmarks/RESULTS.md"
    )
    table.caption = (
        f"{iterations:,} iterations a level, {replicates} replicate(s). Hours are of one core, and estimates, from "
        f"{source}; a run that items share is trained once. * only when asked for: --only ITEM"
    )
    return table


def write_results(items: Iterable[str], runs: dict[str, OpenRun], out: Path) -> list[Path]:
    """Writes figures (PNG and PDF), claims, the specs and one levels.csv of all runs, in which those of earlier calls
    stay; returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    results = Results(runs)
    paths = []
    for name in items:
        draw = ITEMS[name].draw
        if draw is None:
            paths += _write_claims(results, out)
            continue
        figure = draw(results)
        for form, options in (("png", {"dpi": 150}), ("pdf", {"metadata": {"CreationDate": None}})):
            picture = io.BytesIO()
            figure.savefig(picture, format=form, **options)
            paths.append(out / f"{name}.{form}")
            write(paths[-1], picture.getvalue())
    frames = []
    first = {run.path: name for name, run in reversed(runs.items())}  # a run of two names goes by the first
    for name, run in runs.items():
        if first[run.path] != name:
            continue
        write(out / f"{name}.toml", run.spec.to_toml().encode())
        frames.append(results.levels(name).assign(run=run.path.name))
        paths.append(out / f"{name}.toml")
    table = out / "levels.csv"
    text = pd.concat(frames).to_csv(index=False, lineterminator="\n")
    if table.exists():  # runs of other items, asked for before
        before, now = (pd.read_csv(part, dtype=str, keep_default_na=False) for part in (table, io.StringIO(text)))
        merged = pd.concat([before[~before["run"].isin(now["run"])], now])
        text = merged.to_csv(index=False, lineterminator="\n")
    write(table, text.encode())
    return [*paths, table]


def _write_claims(results: Results, out: Path) -> list[Path]:
    """claims.csv and claims.md: of the main run, and what can be said under each input scaling."""
    main = _judge_each(results).assign(scaling=MAIN_SCALING)
    judged = {
        name: claims.judge(results.levels(name)).assign(run=name, scaling=name.removeprefix("scaling-"))
        for name in SCALINGS
    }
    title = results.title("main", "Claims").replace("\n", ": ")
    text = claims.markdown(main, title) + "\n" + _scalings_table(results, judged)
    write(out / "claims.csv", pd.concat([main, *judged.values()]).to_csv(index=False, lineterminator="\n").encode())
    write(out / "claims.md", text.encode())
    return [out / "claims.csv", out / "claims.md"]


def _judge_each(results: Results) -> pd.DataFrame:
    """Each claim on the run that it is measured on; of another than the main one, the note says how large that is."""
    runs = [MEASURED_ON.get(claim.name, "main") for claim in claims.CLAIMS]
    judged = {run: claims.judge(results.levels(run)) for run in dict.fromkeys(runs)}
    main = pd.concat([judged[run].iloc[[i]].assign(run=run) for i, run in enumerate(runs)], ignore_index=True)
    for row in main.index[main["run"] != "main"]:
        spec = results.runs[main.loc[row, "run"]].spec
        size = f"{spec.recipe.iterations:,} iterations a level, {spec.replicates} replicate(s)"
        main.loc[row, "note"] = "; ".join(filter(None, [main.loc[row, "note"], size]))
    return main


def _scalings_table(results: Results, judged: dict[str, pd.DataFrame]) -> str:
    """How the scalings compare, where each of them has an answer, and which agree with the paper's speed-up."""
    columns = {frame["scaling"].iloc[0]: frame.set_index("claim") for frame in judged.values()}
    frames = {scaling: results.levels(name) for (scaling, _), name in zip(columns.items(), judged, strict=True)}
    rows = []
    for percent in (100, 21.1):
        cells = []
        for frame in frames.values():
            try:
                level = claims.near(frame, percent / 100)
            except LotteryError:
                cells.append("–")
                continue
            found = summary(frame, "early_stop_iteration")
            mean = found.loc[(found["branch"] == "rewind") & (found["level"] == level), "mean"].item()
            at_least = "≥ " if (unstopped(frame, "rewind")[level] > 0).any() else ""
            cells.append("–" if np.isnan(mean) else f"{at_least}{mean:,.0f}")
        rows.append([f"early-stop iteration at {percent:g} %", "", *cells])
    for claim in columns[MAIN_SCALING].index:
        if all(frame["ours"].notna()[claim] for frame in columns.values()):
            row = [claim, columns[MAIN_SCALING]["paper"][claim]]
            rows.append([*row, *(claims.number(frame.loc[claim].to_dict()) for frame in columns.values())])
    lines = [["claim", "paper", *columns], (2 + len(columns)) * ["---"], *rows]
    speed_up = columns[MAIN_SCALING].index[0]
    agree = [scaling for scaling, frame in columns.items() if frame["size"][speed_up] == "compatible"]
    spec = results.runs[next(iter(judged))].spec
    return "\n".join(
        [
            f"## Input scalings: {spec.recipe.iterations:,} iterations a level, {spec.replicates} replicate(s)",
            "",
            *("| " + " | ".join(line) + " |" for line in lines),
            "",
            f"The paper's number in 1a is in the interval of: {', '.join(agree) or 'none'}.",
            "",
        ]
    )
