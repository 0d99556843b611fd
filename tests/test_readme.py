"""The Python in the README and in docs/ is run as it stands."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lottery.analysis.answer import answer
from lottery.analysis.frames import curve, read_levels
from lottery.analysis.verdicts import default_margin, judge

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [README, *(page.read_text() for page in sorted((ROOT / "docs").glob("*.md")))]
BLOCKS = [code for page in PAGES for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_python_in_the_readme_runs(code: str, tmp_path: Path) -> None:
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    printed = [
        text
        for page in PAGES
        for text in re.findall(re.escape(code) + r"```\n\nprints\n\n```\n(.*?)```", page, re.DOTALL)
    ]
    assert all(line in result.stdout for text in printed for line in text.splitlines() if "..." not in line)


def test_files_that_the_readme_names_exist() -> None:
    root = Path(__file__).parent.parent
    assert "@@" not in README
    for name in re.findall(r"\]\(((?!http)[^)]+)\)", README) + re.findall(r"`(src/[^`]+)`", README):
        assert (root / name).exists(), name


RESULTS = ROOT / "results" / "mnist-10000it" / "levels.csv"


def mnist_table() -> list[str]:
    """The README's table of the ten-minute experiment, from its levels."""
    judged = judge(levels := read_levels(RESULTS), default_margin(levels, 10_000).points).set_index("level")
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


def test_the_readmes_numbers_are_those_of_the_results() -> None:
    levels = read_levels(RESULTS)
    assert answer(levels, default_margin(levels, 10_000)).headline in README.replace("\n> ", " ")
    for line in mnist_table():
        assert line in README
