"""Every command on runs with one flipped bit: it refuses, or what it shows is what the whole run shows. Counts are
printed.

LOTTERY_FLIPS sets how many, LOTTERY_FLIPS_SEED which.
"""

import base64
import contextlib
import io
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path

import pytest

import lottery
from lottery import cli, data
from lottery.runs import experiment, store
from lottery.spec import Data, Model, Recipe, Spec

FLIPS, SEED = int(os.environ.get("LOTTERY_FLIPS", 200)), int(os.environ.get("LOTTERY_FLIPS_SEED", 0))
PAGES = 10
"""Every tenth also goes through `report` and `figures`, which take a second each."""

SPEC = Spec(
    data=Data(name="mnist-5k", validation=500),
    model=Model(name="mlp", hidden=(5,)),
    recipe=Recipe(iterations=20, evaluate_every=5),
    levels=2,
    replicates=2,
    branches=("reinit",),
)
KINDS = (store.RECORD, store.SPEC, store.TABLE, store.LEVEL, *store.FILES)
"""Names of files, each flipped as often as the others: seven, so that every tenth flip is of each in turn."""

READ_BY = {"show": {store.RECORD, store.LEVEL}, "verify": set(KINDS), "run": set(KINDS) - {store.SPEC, store.TABLE}}
"""What a command reads for the numbers that it shows: flipped, it must refuse."""


@dataclass
class Said:
    """What came of a command."""

    code: int | None
    """None: it raised."""
    out: str
    errors: str


@dataclass
class Shown:
    """All that the commands show of the run in a folder, without the name of that folder."""

    folder: Path
    said: dict[str, Said] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    """What `report` and `figures` wrote."""

    @property
    def path(self) -> Path:
        return self.folder / SPEC.uid

    def command(self, name: str, *arguments: str) -> Said:
        """Carries it out in this process."""
        out, errors = io.StringIO(), io.StringIO()
        code: int | None = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                code = cli.main([name, *arguments, "--runs-dir", str(self.folder)])
            except (Exception, SystemExit) as error:  # a traceback, in a shell
                errors.write(f"Traceback: {error!r}")
        texts = (text.getvalue().replace(str(self.folder), "RUNS") for text in (out, errors))
        self.said[name] = Said(code, *texts)
        return self.said[name]

    def pages(self) -> None:
        """`report` and `figures`, and what they wrote."""
        for name, arguments in (("report", ()), ("figures", ("--format", "png"))):
            self.command(name, SPEC.uid, *arguments)
        written = [self.path / "report.html", *sorted(self.path.glob("figures/*.png"))]
        self.files = {file.name: file.read_bytes() for file in written if file.exists()}

    def pictures(self) -> dict[str, bytes]:
        return {name: file for name, file in self.files.items() if name.endswith(".png")}

    def all(self, spec: Path, pages: bool) -> Iterator[str]:
        """Each command in turn, `run` last: it may write."""
        for name in ("show", "list", "verify"):
            self.command(name, *([] if name == "list" else [SPEC.uid]))
            yield name
        if pages:
            self.pages()
            yield "report"
            yield "figures"
        self.command("run", str(spec), "--device", "cpu", "--jobs", "1")
        yield "run"


def table_in(page: bytes) -> bytes:
    """The levels.csv that a page offers."""
    (link,) = re.findall(r'download="[^"]*\.csv" href="([^"]*)"', page.decode())
    return base64.b64decode(unescape(link).split(",")[1])


def levels_of(path: Path) -> dict[str, bytes]:
    """Every file of every level."""
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.glob("*/replicate-*/*/*"))}


def judge(name: str, good: Shown, bad: Shown, file: Path) -> tuple[str, list[str]]:
    """ "refused" or "right", and what is wrong with that."""
    said, whole = bad.said[name], good.said[name]
    wrong = []
    if said.code not in (0, 1 if name == "verify" else 2):
        return "wrong", [f"exit code {said.code}: {said.errors[:300]!r}"]
    if "Traceback" in said.out + said.errors:
        wrong.append("a traceback")
    if said.code or (name == "list" and "damaged" in said.out):
        told = said.errors if said.code == 2 else said.out
        if file.name not in "".join(told.split()):
            wrong.append(f"does not name the file: {told!r}")
        if said.code == 2 and not re.fullmatch(r"lottery: error: [^\n]+\n", said.errors):
            wrong.append(f"not one line: {said.errors!r}")
        if said.code == 2 and said.out.count("\n") > 3 * (name == "run"):
            wrong.append(f"shows something: {said.out!r}")
        return "refused", wrong
    if file.name in READ_BY.get(name, ()):
        wrong.append("did not refuse it")
    if (said.out, said.errors) != (whole.out, whole.errors):
        wrong.append(f"other words than of the whole run: {said.out!r} {said.errors!r}")
    if name in ("show", "report", "run") and not store.Run(bad.path).levels().equals(store.Run(good.path).levels()):
        wrong.append("other levels")
    if name == "report" and table_in(bad.files["report.html"]) != table_in(good.files["report.html"]):
        wrong.append("another table in the page")
    if name == "report" and bad.files["report.html"] != good.files["report.html"]:
        wrong.append("another page")
    if name == "figures" and bad.pictures() != good.pictures():
        wrong.append("other pictures")
    if name == "run" and (bad.path / store.TABLE).read_text() != store.Run(good.path).table():
        wrong.append("another levels.csv")
    if name == "run" and bad.command("verify", SPEC.uid).code:
        wrong.append(f"verify, afterwards: {bad.said['verify'].out!r}")
    return "right", wrong


@pytest.mark.timeout(1200)
def test_no_command_shows_a_wrong_number_of_a_run_with_a_flipped_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = data.load("mnist-5k")
    monkeypatch.setattr(experiment, "load", lambda name, folder: raw)
    whole = lottery.run(SPEC, runs_dir=tmp_path / "whole", device="cpu").path
    spec = tmp_path / "spec.toml"
    shutil.copy(whole / store.SPEC, spec)
    good = Shown(tmp_path / "good")
    shutil.copytree(whole, good.path)
    names = list(good.all(spec, pages=True))
    assert {name: said.code for name, said in good.said.items()} == dict.fromkeys(names, 0)
    assert table_in(good.files["report.html"]) == (whole / store.TABLE).read_bytes()
    assert len(good.files) > 2

    chosen = random.Random(SEED)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    by_file: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    wrong: list[str] = []
    for flip in range(FLIPS):
        bad = Shown(tmp_path / f"flip-{flip}")
        shutil.copytree(whole, bad.path)
        file = chosen.choice(sorted(bad.path.rglob(KINDS[flip % len(KINDS)])))
        changed = bytearray(file.read_bytes())
        bit = int(chosen.random() * 8 * len(changed))
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        levels = levels_of(bad.path)
        for name in bad.all(spec, pages=flip % PAGES == 0):
            outcome, faults = judge(name, good, bad, file)
            counts[name].update(("tried", outcome))
            by_file[file.name].update([f"{name} {outcome}"])
            wrong += [f"{name}, bit {bit} of {file.relative_to(bad.folder)}: {fault}" for fault in faults]
        if levels_of(bad.path) != levels:
            wrong.append(f"bit {bit} of {file.relative_to(bad.folder)}: a level was changed")
        shutil.rmtree(bad.folder)
    print(f"\n{FLIPS} flipped bits, seed {SEED}")
    for name, count in counts.items():
        words = (f"{count[word]:4} {word}" for word in ("tried", "refused", "right") if word in count)
        print(f"{name:8}{'  '.join(words)}")
    for kind, count in by_file.items():
        print(f"  {kind}: {', '.join(f'{name} {n}' for name, n in sorted(count.items()))}")
    print("\n".join(wrong))
    assert not wrong
    assert all(count["tried"] == count["refused"] + count["right"] > 0 for count in counts.values())
