"""The runs of a folder beside each other: when, how far, in which settings they differ, and what came out."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lottery.errors import LotteryError
from lottery.runs import store
from lottery.runs.rows import wanted
from lottery.runs.store import Run
from lottery.spec import OwnLoop, Spec, differing, flatten

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


def entries(runs_dir: Path) -> list[Entry]:
    """All runs of a folder, from the oldest to the newest, then those that are damaged.

    Raises:
        LotteryError: for a folder that cannot be read.
    """
    found = [_entry(runs_dir / name) for name in store.names(runs_dir)]
    families: dict[str, list[Spec]] = defaultdict(list)
    for entry in found:
        if entry.spec:
            families[_family(entry.spec)].append(entry.spec)
    differ = {family: differing([*map(flatten, specs)]) for family, specs in families.items()}
    told = [replace(e, differs=_only(differ[_family(e.spec)], e.spec)) if e.spec else e for e in found]
    return sorted(told, key=lambda entry: (entry.state == DAMAGED, entry.begun))


def _family(spec: Spec) -> str:
    return spec.title if isinstance(spec, OwnLoop) else repr((spec.data.name, spec.model))


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
    from lottery.analysis.answer import answer_of, share  # pandas takes half a second to import
    from lottery.analysis.frames import densities

    found = answer_of(run)
    if found.word in ("winning", "matching"):
        return f"{found.word} down to {share(densities(run.levels())[found.level])}"
    return {"none": "no matching ticket"}.get(found.word, found.word)
