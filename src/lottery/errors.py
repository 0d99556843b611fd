"""The one error for what a user can mend, and the checks of types that raise it."""

import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args, get_origin


class LotteryError(Exception):
    """Bad input, named with its value and the remedy. The command line prints it as one line and exits with 2.

    No ValueError, because parsers catch those and print them in words of their own.
    """


def shown(value: object) -> str:
    """A value for a message: its repr, of which too long a one is cut."""
    try:
        text = repr(value)
    except Exception:  # a whole number of 5,000 digits, lists in lists, an object's own mistake
        return f"(a {type(value).__name__} that cannot be shown)"
    return text if len(text) <= 100 else f"{text[:100]}..."


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """Message for a name that no registry has: says which there are."""
    return f"unknown {kind} {shown(name)}: choose from {', '.join(names)}"


def line(error: BaseException | str) -> str:
    """An error in one line that no terminal takes for commands: what names and values may hold is escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(error))


LONGEST, MOST = 200, 50
"""Characters of a text, and entries of a list: what is longer was never meant, and would fill files and screens."""

KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    str: f"text of at most {LONGEST} characters",
    int | str: 'a whole number, or a share such as "2%"',
    Path: "a path",
    tuple[str | Path, ...]: f'a list (in Python a tuple) of at most {MOST} paths, such as ["nets.py"]',
    tuple[int, ...]: f"a list (in Python a tuple) of at most {MOST} whole numbers, such as [300, 100]",
    tuple[str, ...]: f'a list (in Python a tuple) of at most {MOST} names, such as ["reinit"]',
    dict[str, float]: f'at most {MOST} names with a number each, such as {{"fc3.weight" = 0.1}}',
}
"""Types of settings and arguments, in words."""


def check_type(name: str, value: object, kind: Any) -> None:
    """Raises LotteryError, naming the argument, unless the value is of that type: one of KINDS, or another class."""
    if not _fits(value, kind):
        words = KINDS.get(kind) or f"a {kind.__name__}"
        raise LotteryError(f"{name} = {shown(value)}: must be {words}")


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and len(value) <= MOST and all(_fits(v, get_args(kind)[0]) for v in value)
    if get_origin(kind) is dict:
        names, numbers = get_args(kind)
        fit = isinstance(value, dict) and len(value) <= MOST
        return fit and all(_fits(k, names) and _fits(v, numbers) for k, v in value.items())
    if kind is str:
        return isinstance(value, str) and len(value) <= LONGEST
    if kind in (Path, str | Path):
        return isinstance(value, str | os.PathLike) and "\0" not in os.fsdecode(value)
    if kind in (int, float, int | str) and isinstance(value, bool):  # an int to Python: true would be one level
        return False
    if kind is float:  # NaN compares with nothing
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, kind)


@contextmanager
def own_code(what: str) -> Iterator[None]:
    """Whatever the user's own code raises, in one line: what was to be done, file, line, exception."""
    try:
        yield
    except (LotteryError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        kind, where = type(error).__name__, _place(error)
        raise LotteryError(f"{what}: {where}{kind}: {error}" if str(error) else f"{what}: {where}{kind}") from error


def _place(error: BaseException) -> str:
    """File and line of the user's own that an exception came from: not of the library that was called there."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    libraries = *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), os.path.dirname(__file__), "<"
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [f"{file}, line {line}: " for file, line in frames if not file.startswith(libraries)]
    return own[-1] if own else ""
