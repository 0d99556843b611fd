"""What a shell may offer for the word that is being typed: commands, flags, their choices, presets and runs.

The shell's part is a few lines that ask `lottery --complete WORD ...`; all that is known is known here.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from lottery.errors import LotteryError
from lottery.runs import store
from lottery.spec import PRESETS

SHELLS = {
    "bash": """\
_lottery() {
    local IFS=$'\\n'
    COMPREPLY=($(lottery --complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | sed 's/ /\\\\ /g'))
}
complete -o default -F _lottery lottery
""",
    "zsh": """\
_lottery() {
    local -a found
    found=("${(@f)$(lottery --complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    [[ -n "$found" ]] && compadd -- $found || _files
}
compdef _lottery lottery
""",
    "fish": """\
complete -c lottery -a '(lottery --complete (commandline -opc)[2..] (commandline -ct | string collect) 2>/dev/null)'
""",
}
"""Shell -> what it must be told once: `eval "$(lottery completion bash)"`."""

ON_RUNS = ("show", "report", "figures", "export", "bench", "verify", "note")
"""Commands whose words are runs."""

ON_SWEEPS = ("show", "report", "verify")
"""Those that take a sweep too."""


def candidates(
    words: Sequence[str], commands: Mapping[str, Mapping[str, Iterable[str]]], studies: Iterable[str]
) -> list[str]:
    """What the last word may become; nothing where only the shell knows, which then offers files.

    Args:
        words: of the command line, without `lottery`; the last one is being typed, and may be empty.
        commands: command -> flag -> its choices, none for one that takes no name.
        studies: names that `reproduce` takes.
    """
    *before, last = words or [""]
    if not before:
        offered: Iterable[str] = commands
    elif before[0] not in commands:
        offered = ()
    elif last.startswith("-"):
        offered = commands[before[0]]
    elif before[-1].startswith("--"):
        offered = commands[before[0]].get(before[-1], ())
    else:
        offered = _words(before, studies)
    return [word for word in offered if word.startswith(last)]


def _words(before: Sequence[str], studies: Iterable[str]) -> Iterable[str]:
    """What a command takes that is no flag's."""
    if before[0] in ("run", "sweep"):
        return PRESETS
    if before[0] == "reproduce":
        return studies
    if before[0] == "completion":
        return SHELLS
    if before[0] not in ON_RUNS:
        return ()
    folder = dict(pairwise(before)).get("--runs-dir", "runs")
    with suppress(LotteryError):
        called = store.called(Path(folder))
        sweeps = store.sweeps(Path(folder)) if before[0] in ON_SWEEPS else ()
        return [*called, *filter(None, called.values()), *sweeps]
    return ()
