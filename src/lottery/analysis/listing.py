"""The runs of a folder beside each other: when, how far, in which settings they differ, and what came out."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lottery.errors import LotteryError
from lottery.runs import store
from lottery.runs.rows import wanted
from lottery.runs.store import Run
from lottery.runs.sweep import Sweep
from lottery.spec import OwnLoop, Spec, differing, flatten

if TYPE_CHECKING:
    import pandas as pd

    from lottery.analysis.answer import Answer

DAMAGED, FINISHED, RUNNING, STOPPED, UNFINISHED = "damaged", "finished", "running", "stopped", "unfinished"
"""States of a run; unfinished where its lock cannot be tried."""


@dataclass(frozen=True)
class Entry:
    """What a list says of a run."""

    path: Path
    state: str
    begun: str = ""
    """When, in ISO 8601; empty for a damaged run, as all that follows."""
    name: str = ""
    """The one that it was given, or empty."""
    note: str = ""
    done: int = 0
    """Levels that are finished, of those wanted."""
    wanted: int = 0
    spec: Spec | None = None
    differs: dict[str, Any] = field(default_factory=dict)
    """Setting -> value, of the settings in which it differs from others of its family: the same data and network."""
    answer: str = ""
    """What came out, in a few words; empty until it is finished."""
    error: str = ""
    """How it is damaged."""
    sweep: str = ""
    """The folder of the sweep that it is of, or empty."""
    runs: int = 0
    """How many that sweep asks for, those that are not begun too; 0 where its sweep.toml cannot be read."""


def entries(runs_dir: Path) -> list[Entry]:
    """All runs of a folder and of its sweeps, from the oldest to the newest, then those that are damaged. A sweep's
    follow each other.

    Raises:
        LotteryError: for a folder that cannot be read.
    """
    asked: dict[str, list[str]] = defaultdict(list)
    for sweep in store.sweeps(runs_dir):
        with suppress(LotteryError):
            asked[sweep] = [f"{sweep}/{spec.uid}" for spec in Sweep.open(runs_dir / sweep).specs]
    found = []
    for name in store.names(runs_dir):
        sweep = name.rpartition("/")[0]
        found.append(replace(_entry(runs_dir / name), sweep=sweep, runs=len(asked[sweep])))
    families: dict[tuple[str, str], list[Spec]] = defaultdict(list)
    for entry in found:
        if entry.spec:
            families[_family(entry, entry.spec)].append(entry.spec)
    differ = {family: differing([*map(flatten, specs)]) for family, specs in families.items()}
    told = [replace(e, differs=_only(differ[_family(e, e.spec)], e.spec)) if e.spec else e for e in found]
    return sorted(told, key=_order(told, [name for names in asked.values() for name in names]))


def _order(entries: Sequence[Entry], asked: Sequence[str]) -> Callable[[Entry], tuple[bool, str, str, int]]:
    """By when they were begun, a sweep as its first run; within it as they were asked for."""
    begun = {entry.sweep or str(entry.path): entry for entry in sorted(entries, key=_when, reverse=True)}
    position = {name: i for i, name in enumerate(asked)}

    def key(entry: Entry) -> tuple[bool, str, str, int]:
        first = begun[entry.sweep or str(entry.path)]
        return *_when(first), entry.sweep, position.get(f"{entry.sweep}/{entry.path.name}", len(position))

    return key


def _when(entry: Entry) -> tuple[bool, str]:
    return entry.state == DAMAGED, entry.begun


def _family(entry: Entry, spec: Spec) -> tuple[str, str]:
    """Runs among which it is said in what they differ: of a sweep all, else those of the same data and network."""
    if entry.sweep:
        return entry.sweep, ""
    return "", spec.title if isinstance(spec, OwnLoop) else repr((spec.data.name, spec.model))


def _only(names: Iterable[str], spec: Spec) -> dict[str, Any]:
    values = flatten(spec)
    return {name: values[name] for name in names}


def _entry(path: Path) -> Entry:
    try:
        run = Run(path).now()  # of one moment, also while it goes on
        asked = set(wanted(run.spec))
        done = len(asked.intersection(row.place for row in run.rows()))
        return Entry(
            path,
            _state(path) if done < len(asked) else FINISHED,
            str(run.info["sessions"][0].get("started", "")),
            run.name,
            run.note,
            done,
            len(asked),
            run.spec,
            answer=in_words(run) if done == len(asked) else "",
        )
    except LotteryError as error:
        return Entry(path, DAMAGED, error=str(error))


def _state(path: Path) -> str:
    """Of a run that is not finished: its lock tells."""
    return {True: RUNNING, False: STOPPED, None: UNFINISHED}[store.worked_on(path)]


def in_words(run: Run) -> str:
    """The answer of a run in a few words, such as "winning down to 3.58 %" of the weights."""
    from lottery.analysis.answer import answer_of  # pandas takes half a second to import

    return brief(answer_of(run), run.levels())


def brief(found: "Answer", levels: "pd.DataFrame") -> str:
    """An answer in a few words.

    Args:
        found: the answer.
        levels: the frame of its run.
    """
    from lottery.analysis.answer import share
    from lottery.analysis.frames import densities

    if found.word in ("winning", "matching"):
        return f"{found.word} down to {share(densities(levels)[found.level])}"
    return {"none": "no matching ticket"}.get(found.word, found.word)
