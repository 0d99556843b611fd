"""The page: charts, tables and provenance put into `report.html`.

Python works out every number; `report.js` draws the charts and knows the slider, the legend, the theme and the table,
but no lottery tickets. What comes from a spec or a file name reaches the page in three ways: through Jinja, which
escapes; as JSON without "<", so that no "</script>" ends it; or through `charts`, as plain text for Plotly.
"""

import base64
import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

from lottery.analysis.answer import answer_of, awaited_of, margin_of, share
from lottery.analysis.frames import curve, densities, trunk_of
from lottery.analysis.listing import brief
from lottery.analysis.progress import state_of, time_left
from lottery.analysis.speed import slower
from lottery.analysis.verdicts import accuracy_column
from lottery.errors import LotteryError
from lottery.runs import timings
from lottery.runs.rows import Place
from lottery.runs.store import Run, write
from lottery.spec import PRESETS, OwnLoop, Spec, differing
from lottery.views.measures import (
    COMPARED,
    EARLY,
    LETTERS,
    Comparison,
    TableRow,
    Verdict,
    Verdicts,
    busy_of,
    cost_cells,
    cost_headings,
    machines_of,
    measure,
    missing_of,
    own_columns,
    rules,
    run_colour,
    run_labels,
    run_settings,
    setting_label,
    setting_value,
    table,
    verdicts,
)
from lottery.views.report import charts, compare, layers
from lottery.views.report.charts import Arrays, Chart, Shown
from lottery.words import method_name, number_of

REFRESH = 30
"""Seconds after which the page of a run that is not finished loads itself again."""

FEW = 6
"""Most runs of a page that has everything of each. With more, what is no comparison of runs is left to their own pages:
their tickets' anatomy and their controls, whose curves the legend hides at first."""

TABLE = ("early_stop_iteration", "test_accuracy_early_stop", "test_accuracy", "train_accuracy", "seconds")
"""Columns of the table of all levels."""

Claims = Callable[[Run], Sequence[Mapping[str, Any]] | None]
"""From a run to the claims judged on it, or None for a run that no claim is about. Of each claim: claim, paper, number,
replicates, verdict, size, note, as in the table of the page."""


def write_report(
    runs: Sequence[Run], path: Path, claims_of: Claims = lambda run: None, margin: float | None = None
) -> Path:
    """Writes the page of these runs, all of it or nothing.

    Args:
        runs: drawn over each other.
        path: of the page.
        claims_of: what a paper claims of a run; nothing by default.
        margin: percentage points that a matching ticket may be less accurate than the dense network; one standard error
            of each run's dense accuracy if None.

    Returns:
        The path.

    Raises:
        LotteryError: for a folder that is not there, a run given twice, more runs than there are colours, and a
            damaged run.
    """
    if not path.parent.is_dir():
        raise LotteryError(f"cannot write {path}: there is no folder {path.parent}")
    names = [run.path.resolve() for run in runs]
    for run, name in zip(runs, names, strict=True):
        if names.count(name) > 1:
            raise LotteryError(f"{run.path} is given twice: give each run once")
    if len(runs) > len(LETTERS):
        raise LotteryError(f"{len(runs)} runs: at most {len(LETTERS)} can be told apart on one page")
    write(path, page(runs, claims_of, margin).encode())
    return path


def page(runs: Sequence[Run], claims_of: Claims = lambda run: None, margin: float | None = None) -> str:
    """The page as HTML; the arguments are as in `write_report`."""
    settings = [run_settings(run) for run in runs]
    labels = run_labels(settings)
    shown = [_show(run, i, labels, margin) for i, run in enumerate(runs)]
    finished = [s for s in shown if not s.levels.empty]
    judged = [
        {branch: verdicts(s.levels, s.margin.points, branch, s.awaited) for branch in s.branches} for s in finished
    ]
    compared = [
        name for name in COMPARED if any(_compares(v, name) for by_branch in judged for v in by_branch.values())
    ]
    columns = [*TABLE, *dict.fromkeys(name for s in finished for name in own_columns(s.levels))]
    levels = sorted({int(level) for s in finished for level in s.levels["level"]})
    arrays = Arrays()
    overview = [charts.against_density(finished, levels, *chart) for chart in charts.OVERVIEW.items()]
    training = charts.training(finished, levels, arrays)
    alone = finished if len(shown) <= FEW else []
    tickets = [found for s in alone if (found := layers.tickets(s, levels))]
    cost = [charts.against_density(finished, levels, "seconds", "seconds")]
    inference = [(s, levels_of) for s in finished if (levels_of := timings.read(s.run))]
    uses = [(charts.inference(*pair), _uses(*pair)) for pair in inference]
    between = compare.between(shown, levels) if len(shown) > 1 else None
    controls = [(s, section) for s in alone if (section := compare.within(s, levels))]
    differences = [c for section in (between, *(section for _, section in controls)) if section for c in section.charts]
    overview, training, cost = ([c for c in some if c.traces] for some in (overview, training, cost))
    drawn = [*differences, *overview, *training, *(c for t in tickets for c in (*t.charts, *t.weights)), *cost]
    drawn += [chart for some, _ in uses for chart in some]
    claims = [(s, rows) for s in shown if not s.awaited and (rows := claims_of(s.run)) is not None]
    refresh = REFRESH if any(s.awaited for s in shown) else 0
    data = {
        "refresh": refresh,
        "charts": {chart.name: vars(chart) for chart in drawn},
        "arrays": arrays.packed,
        "levels": [_level_label(finished, level) for level in levels],
        "hidden": [s.key(branch) for s in shown if len(shown) > FEW for branch in s.branches[1:]],
    }
    here = files("lottery.views.report")
    style, script = ((here / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lottery", "views/report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["unbroken"] = _unbroken
    return environment.get_template("report.html").render(
        shown=shown,
        state=state_of(runs, margin),
        title=f"{len(shown)} runs compared" if len(shown) > FEW else " and ".join(s.run.path.name for s in shown),
        few=FEW,
        between=between,
        controls=controls,
        heading_text=f"{len(shown)} runs compared" if len(shown) > 1 else describe(shown[0].run.spec),
        contents=[*_contents(shown, finished, overview, between, controls, [t.shown for t in tickets], claims)],
        refresh=refresh,
        overview=overview,
        training=training,
        tickets=tickets,
        cost=cost,
        cost_says=[_saved(s) for s in finished],
        uses=uses,
        keys=[
            {"key": s.key(branch), "name": s.name(branch), "colour": s.ink(branch), "dash": s.dash(branch)}
            for s in shown
            for branch in s.branches
        ],
        levels=levels,
        level=levels.index(finished[0].answer.level) if finished else 0,
        headings=[
            *("branch", "level"),
            *(measure(column).axis for column in ("density", *columns)),
            *(COMPARED[name].axis for name in compared),
            "verdict",
        ],
        table=[row for s, found in zip(finished, judged, strict=True) for row in _table(s, found, columns, compared)],
        rules=[
            f"{s.letter}: {rule}" if s.letter else rule
            for s, found in zip(finished, judged, strict=True)
            if any(v.rows for v in found.values())
            for rule in rules({v.name for v in found.values()}, s.margin)
        ],
        claims=claims,
        differing=[setting_label(name) for name in differing(settings)],
        runs=[
            _outcome(s, [each.get(name, "–") for name in differing(settings)])
            for s, each in zip(shown, settings, strict=True)
        ],
        provenance=[_provenance(s) for s in shown],
        data=Markup(_json(data)),
        plotly=Markup(get_plotlyjs()),
        style=Markup(style),
        script=Markup(script),
    )


def _outcome(s: Shown, settings: Sequence[Any]) -> dict[str, Any]:
    """A run's row in the table of what differs, and of what came out."""
    known = not s.levels.empty and bool((s.levels["level"] == 0).any())
    dense = curve(s.levels, accuracy_column(s.levels))[0].mean() if known else float("nan")
    return {
        "letter": s.letter,
        "colour": run_colour(s.index, s.count),
        "settings": [setting_value(value) for value in settings],
        "dense": measure(EARLY).text(dense),
        "answer": "not finished" if s.awaited else brief(s.answer, s.levels),
    }


def describe(spec: Spec) -> str:
    """What was trained, for a heading."""
    if isinstance(spec, OwnLoop):
        return spec.title
    return f"{spec.model.name} on {spec.data.name}, {number_of(spec.recipe.iterations, 'iteration')} a level"


def _contents(
    shown: Sequence[Shown],
    finished: Sequence[Shown],
    overview: Sequence[Chart],
    between: compare.Section | None,
    controls: Sequence[tuple[Shown, Any]],
    tickets: Sequence[Shown],
    claims: Sequence[tuple[Shown, Any]],
) -> Iterator[tuple[str, str]]:
    """Anchor and title of each part that the page has."""

    def each(anchor: str, title: str, some: Iterable[Shown]) -> Iterator[tuple[str, str]]:
        yield from ((anchor + s.letter, f"{title}: {s.letter}" if s.letter else title) for s in some)

    if len(shown) > 1:
        yield "differences", "What differs"
    if between and between.charts:
        yield "between", f"Each run against {shown[0].called}"
    if overview:
        yield "overview", "Accuracy and early stopping"
    if finished:
        yield "training", "Training"
        yield from each("controls", "Tickets against their controls", (s for s, _ in controls))
        yield from each("anatomy", "Anatomy of a ticket", tickets)
        yield from (("cost", "Cost"), ("table", "All levels"))
    yield from each("claims", "The paper’s claims", (s for s, _ in claims))
    yield from each("provenance", "Where it comes from", shown)


def _progress(run: Run, awaited: Sequence[Place], levels: pd.DataFrame) -> str:
    """How far the run has come, and how long the rest will take."""
    words = f"{len(levels):,} of {len(levels) + len(awaited):,} networks are trained"
    left = time_left(run)
    about = f"; about {duration(float(f'{left:.2g}'))} left while it goes on as before" if left else ""
    claims = "Verdicts and claims wait for all that they rest on."
    return f"Not finished: {words}{about}. {claims}"


def _show(run: Run, index: int, labels: Sequence[str], margin: float | None) -> Shown:
    levels = run.levels()
    return Shown(
        run,
        letter=LETTERS[index] if len(labels) > 1 else "",
        label=labels[index],
        index=index,
        count=len(labels),
        levels=levels,
        answer=answer_of(run, margin),
        margin=margin_of(run, levels, margin),
        awaited=(awaited := awaited_of(run)),
        progress=_progress(run, awaited, levels) if awaited else "",
    )


def _json(value: object) -> str:
    """For a script element: nothing in it can end the element or begin a comment."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _level_label(shown: Sequence[Shown], level: int) -> str:
    """What the slider says there."""
    by_run = [(s.letter, densities(s.levels).get(level)) for s in shown]
    if len(shown) > FEW:
        ends = [share(end(d for _, d in by_run if d is not None)) for end in (max, min)]
        return f"{level}, {' to '.join(dict.fromkeys(ends))} of the weights"
    return f"{level}, " + ", ".join(f"{x} {share(d)}".strip() for x, d in by_run if d is not None) + " of the weights"


def _saved(s: Shown) -> str:
    """The cost of what there is, against training each level for as long as the dense network took."""
    seconds = s.levels["seconds"]
    dense = seconds[s.levels["level"] == 0].mean()
    words = f"{s.letter}: " if s.letter else ""
    words += f"{len(seconds)} networks were trained in {duration(seconds.sum())}"
    own = isinstance(s.run.spec, OwnLoop)  # dense as masked, it trains at the same cost
    if np.isnan(dense) or own or len(seconds) == (s.levels["level"] == 0).sum():
        return words + "."
    whole = dense * len(seconds)
    saved = 1 - seconds.sum() / whole
    words += f"; each at the dense network’s cost, they would have taken {duration(whole)}: "
    engines = ", ".join(s.levels["engine"].unique())
    return words + (
        f"sparse training saved {100 * saved:.0f} % of the time (engine: {engines})."
        if saved > 0.01
        else f"no time was saved (engine: {engines})."
    )


def _uses(s: Shown, measured: Sequence[timings.Measured]) -> dict[str, Any]:
    """What it costs to use a run's tickets, as a table: one row per level and way to compute logits."""
    headings = cost_headings(measured)
    density = measure("density")
    return {
        "letter": s.letter,
        "headings": headings,
        "rows": [
            {
                "level": f"{level.place.level}" if level.place.branch == s.run.spec.start else str(level.place),
                "weights": density.text(level.density),
                "name": method_name(cost.method),
                "cells": cost_cells(cost) or [("–",)] * len(headings),
            }
            for level in measured
            for cost in level.costs
        ],
        "says": [
            f"{level.place}, {density.words(level.density)} of the weights: {slower(level)}" for level in measured
        ],
        "missing": [f"{method_name(name)} was not measured: {why}" for name, why in missing_of(measured).items()],
        "machines": [*machines_of(measured), *busy_of(measured)],
    }


def duration(seconds: float) -> str:
    """A time in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    large, small, units = (*divmod(round(seconds), 60), ("min", "s"))
    if large >= 60:
        large, small, units = (*divmod(round(seconds / 60), 60), ("h", "min"))
    return f"{large} {units[0]} {small} {units[1]}"


def _unbroken(text: str) -> Markup:
    """The text as HTML, in which no line ends between a number and its percent sign."""
    return Markup(re.sub(r"([^\s(]+ %)", r'<span class="unbroken">\1</span>', str(escape(text))))


def _compares(found: Verdicts, name: str) -> bool:
    return any(name in row.compared for row in found.rows)


def _table(
    s: Shown, judged: Mapping[str, Verdicts], columns: Sequence[str], compared: Sequence[str]
) -> list[dict[str, Any]]:
    """One row per branch and level, the dense network once: means, lowest and highest replicate, what verdicts rest
    on, and the verdict."""
    by_level = {branch: {row.level: row for row in found.rows} for branch, found in judged.items()}
    density = measure("density")
    return [
        {
            "key": s.key(row.branch),
            "name": s.name(row.branch),
            "colour": s.ink(row.branch),
            "level": row.level,
            "density": round(density.factor * row.density, 4),
            "weights": density.text(row.density),
            "cells": [
                *(_number(cell.value, cell.mean, "–".join(cell.spread or ())) for cell in row.cells),
                *(_number(c.value, c.mean, c.interval, c.bound) for c in _comparisons(by_level, row, compared)),
            ],
            **_verdict(judged[row.branch].name, by_level[row.branch].get(row.level)),
        }
        for row in table(s.levels.reindex(columns=[*dict.fromkeys([*s.levels.columns, *columns])]), columns)
        if row.level or row.branch == trunk_of(s.levels)
    ]


def _number(value: float, text: str, *below: str) -> dict[str, Any]:
    """A cell: what it is sorted by, what it says, and what it says in small letters."""
    return {
        "value": "" if np.isnan(value) else round(value, 6),
        "text": text,
        "below": [line for line in below if line],
    }


def _comparisons(
    by_level: Mapping[str, Mapping[int, Verdict]], row: TableRow, compared: Sequence[str]
) -> Iterator[Comparison]:
    """Of that row, one for each condition; empty where it is not known."""
    verdict = by_level[row.branch].get(row.level)
    for name in compared:
        yield (verdict.compared.get(name) if verdict else None) or Comparison(float("nan"), "")


def _verdict(name: str, row: Verdict | None) -> dict[str, Any]:
    """The verdict in a word, and whether it is shown for all levels together."""
    words = {"yes": name, "no": f"not {name}", "undecided": "undecided"}
    return {"verdict": words.get(row.verdict, "") if row else "", "shown": bool(row and row.shown)}


def command(spec: Spec, engine: str, device: str) -> str:
    """The command that makes this run: the preset that it differs least from, and the settings that differ."""
    preset = min(PRESETS, key=lambda name: len(PRESETS[name].differences(spec)))
    words = ["lottery", "run", preset]
    for name, (_, value) in PRESETS[preset].differences(spec).items():
        group, _, setting = name.rpartition(".")
        flag = f"no-{setting}" if value is False else setting
        words.append(f"--{group}.{flag}".replace("--.", "--").replace("_", "-"))
        if isinstance(value, bool):
            continue
        if isinstance(value, dict):
            words += [str(word) for pair in value.items() for word in pair]
        else:
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    return shlex.join([*words, "--engine", engine, "--device", device])


def _provenance(s: Shown) -> dict[str, Any]:
    run, spec = s.run, s.run.spec
    last = run.info["sessions"][-1] if run.info["sessions"] else {}
    return {
        "name": run.path.name,
        "letter": s.letter,
        "command": _command(run),
        "facts": [
            *_made_of(run),
            *(("Dropped", f"{words}, by --keep: pictures of weights lack them") for words in run.dropped_in_words()),
            ("Seeds", _seeds(spec)),
            ("Machine", f"{last.get('processor', '?')}, {last.get('cores', '?')} cores, {last.get('platform', '?')}"),
            ("Versions", ", ".join(f"{n} {v}" for n, v in _versions(last).items())),
        ],
        "checksums": run.info["data"],
        "toml": spec.to_toml(),
        "toml_link": _link("text/plain", spec.to_toml()),
        "csv_link": _link("text/csv", run.table()),
        "sessions": [
            {
                "started": session.get("started", ""),
                "command": shlex.join(
                    [Path(w).name if i == 0 else w for i, w in enumerate(session.get("command", []))]
                ),
                "versions": ", ".join(f"{n} {v}" for n, v in _versions(session).items()),
                "machine": f"{session.get('processor', '?')}, {session.get('platform', '?')}",
            }
            for session in run.info["sessions"]
        ],
    }


def _command(run: Run) -> str:
    """What makes the run again; of a loop of one's own the script, which is only known to its sessions."""
    if isinstance(run.spec, OwnLoop):
        return f"# trained by {run.spec.title}"
    return command(run.spec, run.info["engine"], run.info["device"])


def _made_of(run: Run) -> list[tuple[str, str]]:
    spec = run.spec
    if isinstance(spec, OwnLoop):
        return [("Training", spec.title)]
    return [
        ("Network", f"{spec.model.name}, initial weights {spec.model.init}"),
        ("Data", f"{spec.data.name}, inputs scaled by {spec.data.scaling}, {spec.data.validation:,} held out"),
        ("Engine", f"{run.info['engine']} on {run.info['device']}"),
    ]


def _seeds(spec: Spec) -> str:
    if spec.replicates == 1:
        return f"{spec.seed}, replicate 0"
    return f"{spec.seed}, replicates 0 to {spec.replicates - 1}: each has its own random streams"


def _versions(session: dict[str, Any]) -> dict[str, str]:
    return {"Python": session.get("python", "?"), **session.get("versions", {})}


def _link(kind: str, text: str) -> str:
    """A file inside the page."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
