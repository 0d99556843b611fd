"""What README, CONTRIBUTING and docs/ show is so: Python runs as it stands, links lead somewhere, numbers are those of
the results."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lottery.analysis.answer import answer
from lottery.analysis.frames import curve, read_levels
from lottery.analysis.verdicts import default_margin, judge
from lottery.starts import STARTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {str(file.relative_to(ROOT)): file.read_text() for file in FILES}
BLOCKS = {
    f"{page}-{number}": (page, code)
    for page, text in PAGES.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL), 1)
}


@pytest.mark.parametrize("name", BLOCKS)
def test_python_on_a_page_runs_and_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    page, code = BLOCKS[name]
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    for text in re.findall(re.escape(code) + r"```\n\nprints\n\n```\n(.*?)```", PAGES[page], re.DOTALL):
        for line in text.splitlines():
            assert "..." in line or line in result.stdout


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    """In the repository; whether those of docs/ do in the site too, its build says."""
    folder = (ROOT / page).parent
    for link in re.findall(r"\]\((?!http)([^)#]+)", PAGES[page]):
        assert (folder / link).exists(), link
    for name in re.findall(r"`((?:src|examples|results|benchmarks|tests)/[^`*]+)`", PAGES[page]):
        assert (ROOT / name).exists(), name
    assert "@@" not in PAGES[page]


def test_the_science_has_every_start_rule() -> None:
    table = [line for line in PAGES["docs/science.md"].splitlines() if line.startswith("| `")]
    named = {name for line in table for name in re.findall(r"`([a-z_0-9.]+)`", line.split("|")[1])}
    assert set(STARTS) <= named


def test_the_speeds_are_those_of_the_results() -> None:
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    milliseconds, times = (_table(results, title) for title in ("ms per iteration", "times faster than bare"))
    assert len(times) > 5
    for weights, row in milliseconds.items():
        cells = [weights.partition(" (")[0], row["bare"], row["sparse"], times[weights]["sparse"].partition(" ")[0]]
        assert f"| {' | '.join(cells)} |" in PAGES["docs/speed.md"]


def _table(text: str, title: str) -> dict[str, dict[str, str]]:
    """The first table below a title in bold: first cell of a row -> column -> cell."""
    below = text[text.index(f"**{title}") :].splitlines()[2:]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in below[: below.index("")])
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


RESULTS = ROOT / "results"


def numbers(folder: str, run: str = "") -> pd.DataFrame:
    """The levels of the results in that folder, of the run whose name has that."""
    levels = read_levels(RESULTS / folder / "levels.csv")
    return levels[levels["run"].str.contains(run)] if run else levels


def mnist_table(levels: pd.DataFrame) -> list[str]:
    """The tickets against the dense network and against reinitialised ones, as pages have them."""
    judged = judge(levels, default_margin(levels, 10_000).points).set_index("level")
    reinit = 100 * curve(levels, "test_accuracy_early_stop", "reinit").mean()
    ticket = 100 * curve(levels, "test_accuracy_early_stop").mean()
    rows = [
        "| weights left | tickets | − dense | reinitialised | tickets − reinitialised | stops after | alone |",
        "|---|---|---|---|---|---|---|",
        f"| 100 % | {ticket[0]:.2f} % | | | | | dense |",
    ]
    for level in (3, 7, 12, 15, 16, 18, 20):
        row: Any = judged.loc[level]
        cells = [f"{100 * row['density']:.3g} %", f"{ticket[level]:.2f} %", _interval(row, "matching", "+.2f")]
        cells += [f"{reinit[level]:.2f} %", _interval(row, "beats_reinit", "+.2f"), _interval(row, "no_later", ".2f")]
        rows.append(f"| {' | '.join(cells)} | {row['winning']} |")
    return rows


def _interval(row: Any, name: str, form: str) -> str:
    mean, low, high = (f"{row[f'{name}_{end}']:{form}}".replace("-", "−") for end in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


@pytest.mark.parametrize(
    ("page", "folder", "run"),
    [("README.md", "mnist-10000it", ""), ("results/lth-mnist/README.md", "lth-mnist", "50000it")],
)
def test_the_numbers_are_those_of_the_results(page: str, folder: str, run: str) -> None:
    text, levels = (ROOT / page).read_text(), numbers(folder, run)
    assert answer(levels, default_margin(levels, 10_000)).headline in text.replace("\n> ", " ")
    for line in mnist_table(levels):
        assert line in text
