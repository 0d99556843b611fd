"""One HTML page that shows a run, or several beside each other: everything inlined, opened from disk.

Python works out every number; `page/report.js` draws the charts and knows the slider, the legend, the theme and the
table, but no lottery tickets. What comes from a spec or a file name reaches the page in three ways: through Jinja,
which escapes; as JSON without "<", so that no "</script>" ends it; or through `charts`, as plain text for Plotly.
"""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from lottery import charts, claims
from lottery.analysis import OpenRun, densities, summary, winning
from lottery.answer import answer, share
from lottery.charts import DASHES, Arrays, Shown, colour
from lottery.errors import LotteryError
from lottery.spec import PRESETS, Spec, flatten
from lottery.store import wanted, write
from lottery.study import RUNS


def write_report(runs: Sequence[OpenRun], path: Path) -> Path:
    """Writes the page of these runs to `path`, all of it or nothing, and returns the path.

    Raises LotteryError for a folder that is not there, a run given twice, more runs than there are kinds of lines, and
    a damaged run.
    """
    if not path.parent.is_dir():
        raise LotteryError(f"cannot write {path}: there is no folder {path.parent}")
    names = [run.path.resolve() for run in runs]
    for run, name in zip(runs, names, strict=True):
        if names.count(name) > 1:
            raise LotteryError(f"{run.path} is given twice: give each run once")
    if len(runs) > len(DASHES):
        raise LotteryError(f"{len(runs)} runs: at most {len(DASHES)} can be told apart on one page")
    write(path, page(runs).encode())
    return path


def page(runs: Sequence[OpenRun]) -> str:
    """The page as HTML."""
    shown = [_show(run, i, len(runs)) for i, run in enumerate(runs)]
    levels = sorted({int(level) for s in shown for level in (() if s.levels.empty else s.levels["level"].unique())})
    arrays = Arrays()
    overview = [charts.against_density(shown, levels, *measure) for measure in charts.MEASURES]
    training = charts.training(shown, levels, arrays)
    tickets = [charts.tickets(s, levels) for s in shown if not s.levels.empty]
    cost = [charts.against_density(shown, levels, *charts.SECONDS)]
    overview, training, cost = ([c for c in some if c.traces] for some in (overview, training, cost))
    drawn = [*overview, *training, *(c for t in tickets for c in (*t.charts, *t.weights)), *cost]
    first = next((s for s in shown if not s.levels.empty), None)
    data = {
        "charts": {chart.name: asdict(chart) for chart in drawn},
        "arrays": arrays.packed,
        "levels": [_level_label(shown, level) for level in levels],
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lottery", "page"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html").render(
        shown=shown,
        title=" and ".join(s.run.path.name for s in shown),
        overview=overview,
        training=training,
        tickets=tickets,
        cost=cost,
        cost_says=[_saved(s) for s in shown if not s.levels.empty],
        keys=[{"key": s.key(branch), "colour": colour(branch), "dash": s.dash} for s in shown for branch in s.branches],
        levels=levels,
        level=levels.index(first.answer.level) if first else 0,
        table=[row for s in shown for row in _table(s)],
        claims=[(s, judged) for s in shown if (judged := _claims(s)) is not None],
        differing=_differing(shown),
        provenance=[_provenance(s) for s in shown],
        data=Markup(_json(data)),
        plotly=Markup(get_plotlyjs()),
        style=Markup((files("lottery") / "page/report.css").read_text()),
        script=Markup((files("lottery") / "page/report.js").read_text()),
    )


def _show(run: OpenRun, index: int, count: int) -> Shown:
    levels = run.levels()
    there = len(levels)
    return Shown(
        run,
        letter="ABCDEF"[index] if count > 1 else "",
        dash=DASHES[index],
        levels=levels,
        answer=answer(levels, run.spec.start),
        missing=max(0, len(list(wanted(run.spec))) - there),
    )


def _json(value: object) -> str:
    """For a script element: nothing in it can end the element or begin a comment."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _level_label(shown: Sequence[Shown], level: int) -> str:
    """What the slider says there."""
    there = [(s.letter, densities(s.levels).get(level)) for s in shown if not s.levels.empty]
    return f"{level}, " + ", ".join(f"{x} {share(d)}".strip() for x, d in there if d is not None) + " of the weights"


def _saved(s: Shown) -> str:
    """The cost of what there is, against training each level for as long as the dense network took."""
    seconds = s.levels["seconds"]
    dense = seconds[s.levels["level"] == 0].mean()
    words = f"{s.letter}: " if s.letter else ""
    words += f"{len(seconds)} networks were trained in {duration(seconds.sum())}"
    if np.isnan(dense) or len(seconds) == (s.levels["level"] == 0).sum():
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


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.3g} s"
    large, small, units = (*divmod(round(seconds), 60), ("min", "s"))
    if large >= 60:
        large, small, units = (*divmod(round(seconds / 60), 60), ("h", "min"))
    return f"{large} {units[0]} {small} {units[1]}"


CELLS = {
    "early_stop_iteration": (1, ",.0f"),
    "test_accuracy_early_stop": (100, ".2f"),
    "test_accuracy": (100, ".2f"),
    "train_accuracy": (100, ".2f"),
    "seconds": (1, ",.1f"),
}
"""Columns of the table, with the factor and the form in which they are shown."""


def _table(s: Shown) -> list[dict[str, Any]]:
    """One row per branch and level: means with the lowest and highest replicate, and the verdict."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for branch in s.branches:
        there = s.levels[s.levels["branch"] == branch]
        verdicts = winning(s.levels, branch, s.trunk).set_index("level")["winning"]
        for level, density in sorted(densities(there).items()):
            rows[branch, level] = {
                "key": s.key(branch),
                "colour": colour(branch),
                "level": level,
                "density": round(100 * density, 4),
                "weights": f"{100 * density:.2f}",
                "verdict": verdicts.get(level, ""),
                "cells": [],
            }
    for column, (factor, form) in CELLS.items():
        for found in summary(s.levels, column, s.trunk).to_dict("records") if rows else ():
            if row := rows.get((found["branch"], found["level"])):  # the dense network is listed once
                row["cells"].append(_cell(found, factor, form))
    return list(rows.values())


def _cell(found: Mapping[Any, Any], factor: float, form: str) -> dict[str, Any]:
    mean, low, high = (factor * found[name] for name in ("mean", "min", "max"))
    if np.isnan(mean):
        return {"value": "", "mean": "–", "range": ""}
    spread = f"{low:{form}}–{high:{form}}" if found["n"] > 1 else ""
    return {"value": round(float(mean), 6), "mean": f"{mean:{form}}", "range": spread}


def _claims(s: Shown) -> list[Mapping[Any, Any]] | None:
    """The paper's claims, if this is the main run of its study: whatever its iterations, seed and extent."""
    planned = RUNS["main"].sized(s.run.spec.recipe.iterations, 1)
    if replace(planned, seed=s.run.spec.seed).identity() != s.run.spec.identity():
        return None
    return [row | {"number": claims.number(row)} for row in claims.judge(s.levels).to_dict("records")]


def _differing(shown: Sequence[Shown]) -> list[tuple[str, list[str]]]:
    """Setting -> its value in each run, where they differ."""
    specs = [flatten(s.run.spec) for s in shown]
    values = {name: [_value(spec[name]) for spec in specs] for name in specs[0]}
    values["engine"] = [s.run.info["engine"] for s in shown]
    values["device"] = [s.run.info["device"] for s in shown]
    return [(name, each) for name, each in values.items() if len(set(each)) > 1]


def _value(value: object) -> str:
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


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
        "command": command(spec, run.info["engine"], run.info["device"]),
        "facts": [
            ("Network", f"{spec.model.name}, initial weights {spec.model.init}"),
            ("Data", f"{spec.data.name}, inputs scaled by {spec.data.scaling}, {spec.data.validation:,} held out"),
            ("Seeds", _seeds(spec)),
            ("Engine", f"{run.info['engine']} on {run.info['device']}"),
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


def _seeds(spec: Spec) -> str:
    if spec.replicates == 1:
        return f"{spec.seed}, replicate 0"
    return f"{spec.seed}, replicates 0 to {spec.replicates - 1}: each has its own random streams"


def _versions(session: dict[str, Any]) -> dict[str, str]:
    return {"Python": session.get("python", "?"), **session.get("versions", {})}


def _link(kind: str, text: str) -> str:
    """A file inside the page."""
    return f"data:{kind};charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"
