"""The one error for what a user can mend."""

from collections.abc import Iterable


class LotteryError(Exception):
    """Bad input, named with its value and the remedy. The command line prints it as one line and exits with 2.

    No ValueError, because parsers catch those and print them in words of their own.
    """


def known(kind: str, name: str, names: Iterable[str]) -> str:
    """Message for a name that no registry has: says which there are."""
    return f"unknown {kind} {name!r}: choose from {', '.join(names)}"
