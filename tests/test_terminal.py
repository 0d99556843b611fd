"""Terminals of any width: nothing that is printed is cut off, and bars can be read as bars."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from lottery.cli import main
from lottery.runs.experiment import Progress
from lottery.runs.rows import Place
from lottery.spec import Spec
from lottery.starts import STARTS
from lottery.views.terminal import Display, Part, Tables

CONTROLS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


def lines_of(shown: object, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return out.getvalue().splitlines()


HEADINGS = ["level", "stops\nafter (× dense)", "accuracy − dense\n(points)", "verdict"]
ROWS = [
    [["1"], ["0.97"], ["+2.50, ≥ −27.93", "−21.64 to +26.64"], ["undecided"]],
    [["2"], [], ["+11.25"], ["yes", "shown"]],
]
TABLES = Tables("title", [Part("random_mask_reinit", HEADINGS, ROWS), Part("reinit", HEADINGS, ROWS)], "caption")


@pytest.mark.parametrize("width", [30, 38, 45, 60, 80, 120])
def test_a_table_loses_nothing(width: int) -> None:
    lines = lines_of(TABLES, width)
    assert max(map(len, lines)) <= width
    words = [word.strip("()") for word in " ".join(lines).split()]
    whole = "level stops after × dense accuracy − points verdict 1 0.97 +2.50, ≥ −27.93 +26.64 +11.25 yes"
    for word in whole.split() if width > 30 else ("level", "+11.25", "yes"):
        assert words.count(word) >= 2, word
    assert words.count("random_mask_reinit") == 1
    assert "…" not in words


def test_a_row_takes_a_line_then_two_then_what_it_needs() -> None:
    def row(width: int) -> list[str]:
        lines = lines_of(Tables("", [Part("", HEADINGS, ROWS)]), width)
        at = next(i for i, line in enumerate(lines) if line.startswith("    1"))
        return [" ".join(line.split()) for line in lines[at : next(i for i in range(at, 99) if "    2" in lines[i])]]

    assert row(80) == ["1 0.97 +2.50, ≥ −27.93 (−21.64 to +26.64) undecided"]
    assert row(60) == ["1 0.97 +2.50, ≥ −27.93 undecided", "−21.64 to +26.64"]
    assert row(45) == ["1 0.97 +2.50, ≥ undecided", "−27.93", "−21.64 to", "+26.64"]


LONGEST = max(STARTS, key=len)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_are_whole(width: int) -> None:
    """Names, levels and accuracies, for the longest names, and a bar that is one."""
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True)
    with Display(Spec(levels=20, branches=(f"{LONGEST}:2", "reinit")), console, Path("none")) as display:
        for place in (Place("rewind", 0, 12), Place(LONGEST, 0, 12, 2), Place("reinit", 0, 12)):
            display(Progress(place, 25_000, 0.985))
    *_, trunk, longest, _ = lines = CONTROLS.sub("", out.getvalue()).splitlines()
    assert max(map(len, lines[-3:])) <= width
    assert longest.startswith(f"{LONGEST} 0 draw 2 ")
    for line in (trunk, longest):
        assert "level 12/20 98.5 %" in line
        assert width < 80 or line.endswith("-:--:-- left")
    assert 4 <= longest.count("━") + longest.count("╸") + longest.count("╺") <= 24


@pytest.mark.parametrize("width", [40, 60, 80])
def test_what_a_study_costs_is_printed_whole(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lottery.cli.Terminal", lambda width=None, columns=width: Console(width=columns))
    assert main(["reproduce", "lth-mnist", "--list", "--runs-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= width
    assert "…" not in printed
    if width >= 80:
        for word in ("scaling-standardize,", "random_mask_reinit)", "reinit_from_ticket,", "prune_at_init)"):
            assert word in printed.split(), word
        assert re.search(r"fig9  .* claims, scaling  +0.34", printed)
