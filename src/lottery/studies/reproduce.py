"""Carries out a study: trains what its items need and is not on disk, then writes figures, claims and tables.

Items share runs: of a run, whatever the chosen items need together is trained, once, and what is there already is not
trained again. So is a study that was stopped: asked for again, it goes on.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from lottery.analysis.cost import MEASURED, REFERENCE, cost
from lottery.errors import LotteryError, known
from lottery.runs import experiment
from lottery.runs.experiment import Progress
from lottery.runs.store import Run, write
from lottery.spec import Spec
from lottery.studies import STUDIES
from lottery.studies.study import Panels, Results, Study
from lottery.views.terminal import Part, Tables
from lottery.words import number_of


def choose(study: str, only: str) -> list[str]:
    """Names of a study's items, from words apart by commas; the default ones for none.

    Raises:
        LotteryError: for a study or an item that does not exist.
    """
    if study not in STUDIES:
        raise LotteryError(known("study", study, STUDIES))
    items = STUDIES[study].items
    names = [name.strip() for name in only.split(",") if name.strip()]
    for name in names:
        if name not in items:
            raise LotteryError(known("item", name, items))
    return names or [name for name, item in items.items() if item.default]


def specs(study: Study, items: Iterable[str], iterations: int, replicates: int) -> dict[str, Spec]:
    """Name of a run -> its spec, with all branches that these items need. Names of one run have the same spec."""
    needed: dict[str, Spec] = {}
    together: dict[str, Spec] = {}
    for item in items:
        for name, branches in study.items[item].needs.items():
            spec = replace(study.runs[name].sized(iterations, replicates), branches=branches)
            needed[name] = spec
            together[spec.uid] = together[spec.uid].extended(spec) if spec.uid in together else spec
    return {name: together[needed[name].uid] for name in study.runs if name in needed}


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
    margin: float | None = None,
    watch: Callable[[str, Spec], AbstractContextManager[Callable[[Progress], None]]] = _silent,
) -> list[Path]:
    """Trains what is missing of a study's items, one run after the other, and writes them.

    Args:
        study: a name in STUDIES.
        iterations: of the main run's levels; other runs have a share of them.
        replicates: of each run; those of sweeps have two at most.
        only: names of items apart by commas; the default ones if empty.
        runs_dir: the folder of the runs, and of `studies`, in which figures and tables are written.
        data_dir: the folder of the data sets, as in `lottery.run`.
        jobs: processes that train at once.
        margin: by how many percentage points a ticket may be less accurate than the dense network and still match it;
            one standard error of the dense network's accuracy if None, see `lottery.analysis.verdicts.default_margin`.
        watch: a context for each run, given its name and spec, whose value is called with its progress.

    Returns:
        The files that were written.

    Raises:
        LotteryError: for a study or an item that does not exist, and as `lottery.run` does.
    """
    items = choose(study, only)
    runs_dir = Path(runs_dir)
    trained: dict[str, Run] = {}
    finished: dict[str, Run] = {}
    for name, spec in specs(STUDIES[study], items, iterations, replicates).items():
        if spec.uid not in finished:
            with watch(name, spec) as progress:
                finished[spec.uid] = experiment.run(
                    spec, runs_dir=runs_dir, data_dir=data_dir, jobs=jobs, progress=progress
                )
        trained[name] = finished[spec.uid]
    return write_results(STUDIES[study], items, trained, folder(study, iterations, runs_dir), margin)


def listing(study: str, iterations: int, replicates: int, runs_dir: Path) -> Tables:
    """What there is of a study (of all, if it has no name), and what it costs: a table of each for the terminal."""
    parts, measured = [], False

    def hours(name: str, names: Iterable[str]) -> tuple[str, str]:
        nonlocal measured
        estimate = cost(specs(STUDIES[name], names, iterations, replicates).values(), runs_dir)
        measured |= estimate.measured
        return f"{estimate.total / 3600:.2g}", f"{estimate.missing / 3600:.2g}"

    for name in [study] if study else STUDIES:
        rows = [["", "all but those marked *", "", "", *hours(name, choose(name, ""))]]
        items = STUDIES[name].items
        labels = {item: _labels(specs(STUDIES[name], [item], iterations, replicates)) for item in items}
        for item, about in items.items():
            runs = list(labels[item].values())
            shared = (other for other in items if other != item and labels[item].keys() & labels[other].keys())
            rows.append(
                [
                    item if about.default else f"{item} *",
                    about.says,
                    ", ".join(runs) if len(runs) <= 3 else f"{len(runs)} runs, {runs[0]} to {runs[-1]}",
                    ", ".join(shared),
                    *hours(name, [item]),
                ]
            )
        headings = ["item", "what it shows", "runs (branches)", "shared with", "hours", "missing"]
        parts.append(Part(name, headings, [[[cell] for cell in row] for row in rows]))
    source = MEASURED if measured else REFERENCE
    caption = (
        f"{iterations:,} iterations a level, {number_of(replicates, 'replicate')}. Hours are of one core, and "
        f"estimates, from {source}; a run that items share is trained once. * only when asked for: --only ITEM"
    )
    return Tables("", parts, caption, left=4)


def _labels(needed: Mapping[str, Spec]) -> dict[str, str]:
    """Hash of a run -> its name and branches; a run of two names goes by the first."""
    labels: dict[str, str] = {}
    for name, spec in needed.items():
        labels.setdefault(spec.uid, f"{name} ({', '.join(spec.branches)})" if spec.branches else name)
    return labels


def write_results(
    study: Study, items: Iterable[str], runs: Mapping[str, Run], out: Path, margin: float | None = None
) -> list[Path]:
    """Writes what the items make, the specs, and one levels.csv of all runs, in which those of earlier calls stay.

    Args:
        study: that the items are of.
        items: their names.
        runs: name -> finished run, of all that the items need.
        out: the folder.
        margin: as in `reproduce`.

    Returns:
        The paths; levels.csv is the last.
    """
    out.mkdir(parents=True, exist_ok=True)
    results = Results(study, runs, margin)
    contents: dict[str, bytes] = {}
    for item in items:
        made = study.items[item].make(results)
        if isinstance(made, Mapping):
            contents |= {name: text.encode() for name, text in made.items()}
        else:
            contents |= _pictures(item, made)
    first: dict[Path, str] = {}
    for name, run in runs.items():
        first.setdefault(run.path, name)  # a run of two names goes by the first
    contents |= {f"{name}.toml": runs[name].spec.to_toml().encode() for name in first.values()}
    rows = pd.concat([results.levels(name).assign(run=path.name) for path, name in first.items()])
    text = rows.to_csv(index=False, lineterminator="\n")
    if (out / "levels.csv").exists():  # runs of other items, asked for before
        parts = (out / "levels.csv", io.StringIO(text))
        before, now = (pd.read_csv(part, dtype=str, keep_default_na=False) for part in parts)
        kept = before[~before["run"].isin(now["run"])]
        text = pd.concat([kept, now]).to_csv(index=False, lineterminator="\n")
    contents["levels.csv"] = text.encode()
    for name, data in contents.items():
        write(out / name, data)
    return [out / name for name in contents]


def _pictures(name: str, panels: Panels) -> dict[str, bytes]:
    """A figure as PNG and PDF, by file name."""
    pictures: dict[str, bytes] = {}
    for kind, options in (("png", {"dpi": 150}), ("pdf", {"metadata": {"CreationDate": None}})):
        picture = io.BytesIO()
        panels[0].figure.savefig(picture, format=kind, **options)
        pictures[f"{name}.{kind}"] = picture.getvalue()
    return pictures
