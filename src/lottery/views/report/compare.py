"""What the page says of differences: between runs, and between tickets and their controls. Draws what
`analysis.comparison` finds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lottery.analysis.answer import share
from lottery.analysis.comparison import Contrast, basis, compare, controls, finding, headline, together
from lottery.analysis.frames import trunk_of
from lottery.views.measures import CONTRASTS, ContrastMeasure
from lottery.views.report.charts import Chart, Shown, Trace, axis, band, density_axis, marks_of, plain, rounded
from lottery.words import branch_name


@dataclass(frozen=True)
class Section:
    """Differences, as the page shows them."""

    headline: str
    details: list[str]
    charts: list[Chart]
    headings: list[str]
    """Of the table, after that of the weights left."""
    table: list[dict[str, Any]]
    """Rows: density as text, and of each column a mean and its two intervals, or nothing."""


@dataclass(frozen=True)
class _Line:
    """A contrast, as it is drawn: in the colour of what is compared."""

    label: str
    """Ours minus theirs: "B − A"."""
    shown: Shown
    branch: str
    contrast: Contrast


def between(shown: Sequence[Shown], levels: Sequence[int]) -> Section:
    """Each run against the first.

    Args:
        shown: two or more.
        levels: the positions of the slider.
    """
    first, *others = shown
    comparisons = [compare(s.run, first.run) for s in others]
    found = [finding(c, s.called, first.called) for s, c in zip(others, comparisons, strict=True)]
    brief = [finding(c, s.letter, first.letter) for s, c in zip(others, comparisons, strict=True)]
    details = brief[0].details if len(brief) == 1 else [said for f in brief for said in (f.headline, *f.details)]
    lines = [
        _Line(f"{s.letter} − {first.letter}", s, trunk_of(s.levels), c.contrast)
        for s, c in zip(others, comparisons, strict=True)
        if c.contrast
    ]
    said = together(found, [s.letter if len(others) > 3 else s.called for s in others], first.called)
    return _section("runs", said, details, lines, marks_of(shown, levels))


def within(s: Shown, levels: Sequence[int]) -> Section | None:
    """A run's tickets against each of its other branches; None without any."""
    found = controls(s.levels)
    if not found:
        return None
    ticket = branch_name(trunk_of(s.levels))
    lines = [_Line(f"{ticket} − {branch_name(branch)}", s, branch, c) for branch, c in found.items()]
    said = [(headline(c, "the ticket", branch_name(branch)).headline, basis(c)) for branch, c in found.items()]
    details = [" ".join(filter(None, sentences)) for sentences in said]
    return _section(f"{s.letter or 'run'}_controls", "", details, lines, marks_of([s], levels))


def _section(name: str, said: str, details: list[str], lines: Sequence[_Line], marks: list[list[float]]) -> Section:
    charts = [_chart(f"{name}_{part}", CONTRASTS[part], lines, marks) for part in CONTRASTS]
    headings = [f"{line.label}: {CONTRASTS[part].name}" for line in lines for part in CONTRASTS]
    return Section(said, details, [c for c in charts if c.traces], headings, _table(lines))


def _chart(name: str, m: ContrastMeasure, lines: Sequence[_Line], marks: list[list[float]]) -> Chart:
    """Means against the weights left: bars are intervals of each level alone, shades are for all levels together."""
    bands: list[Trace] = []
    means: list[Trace] = []
    said: list[str] = []
    density: set[float] = set()
    for i, line in enumerate(lines):
        table = m.table(line.contrast)
        table = table[table["density"] > 0]
        if table.empty:
            continue
        x = rounded(100 * table["density"] * 1.012 ** ((len(lines) - 1) / 2 - i))  # bars of two lines can be told apart
        ink = line.shown.ink(line.branch)
        if len(wide := table.dropna(subset=["joint_low"])) > 1:
            area = band(rounded(100 * wide["density"]), rounded(wide["joint_low"]), rounded(wide["joint_high"]), ink)
            bands.append(line.shown.trace(line.branch, **area | line.shown.shade))
        whiskers = {"type": "data", "symmetric": False, "thickness": 1.2, "width": 3}
        whiskers |= {
            "array": rounded(table["high"] - table["mean"]),
            "arrayminus": rounded(table["mean"] - table["low"]),
        }
        means.append(
            line.shown.trace(
                line.branch,
                x=x,
                y=rounded(table["mean"]),
                error_y=whiskers,
                mode="lines+markers",
                marker={"size": 6, "color": ink},
                text=[_hover(line.label, m, row) for row in table.to_dict("records")],
                hovertemplate="%{text}<extra></extra>",
            )
        )
        density |= set(table["density"])
        row: Any = table.iloc[-1]
        said.append(f"{line.label}: {m.words(row)} with {share(row['density'])} of the weights.")
    if density:
        ends_of = [100 * max(density), 100 * min(density)]
        nothing: Trace = {"type": "scatter", "x": ends_of, "y": [m.nothing] * 2, "mode": "lines", "hoverinfo": "skip"}
        means.insert(0, nothing | {"line": {"color": "dense", "dash": "dash", "width": 1.5}})
    layout = {"xaxis": density_axis([*density]), "yaxis": axis(m.axis)}
    caption = "Bars: 95 % interval of that level alone. Shaded: 95 % for all levels together. Dashed: no difference."
    return Chart(name, m.title, caption, f"{m.title}. {' '.join(said)}", layout, bands + means, marks=marks)


def _hover(label: str, m: ContrastMeasure, row: dict[Any, Any]) -> str:
    said = [f"<b>{plain(label)}</b>, {share(row['density'])} of the weights", f"{m.name} {m.text(row['mean'])}"]
    alone, joint = m.interval(row), m.joint(row)
    said += [f"this level alone: {alone}"] if alone else []
    said += [f"all levels together: {joint}"] if joint else []
    return "<br>".join([*said, f"{row['n']} replicate{'' if row['n'] == 1 else 's'}"])


def _table(lines: Sequence[_Line]) -> list[dict[str, Any]]:
    columns = [(m, m.table(line.contrast).set_index("level")) for line in lines for m in CONTRASTS.values()]
    density: dict[Any, float] = {}
    for _, table in columns:
        density |= table["density"].to_dict()
    return [
        {"level": level, "density": share(density[level]), "cells": [*_cells(columns, level)]}
        for level in sorted(density)
    ]


def _cells(columns: Sequence[tuple[ContrastMeasure, pd.DataFrame]], level: int) -> Iterable[dict[str, str]]:
    for m, table in columns:
        row: Any = table.loc[level] if level in table.index else None
        if row is None:
            yield {"mean": "–", "alone": "", "joint": ""}
        else:
            yield {"mean": m.text(row["mean"]), "alone": m.interval(row), "joint": m.joint(row)}
