"""What the shell starts: `lottery.cli`, with one line for Ctrl-C and for SIGTERM from the first moment to the last.

It stands beside the package because to import any part of that is to import numpy and more first: a fifth of a second,
in which a signal would show the traceback of an import.
"""

import os
import signal
import sys
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """Of a class of its own: after a bare KeyboardInterrupt in what `exec` was given, as it is to make dataclasses,
    `python -m` ends itself by SIGINT, although it was caught."""


class Stop:
    """Answers these signals. The first one unwinds what runs, so that workers end and the terminal is as it was; a
    second one, or one that finds nothing to unwind, ends the process at once."""

    def __init__(self) -> None:
        self.number = 0
        """Of the signal that came first."""
        self.unwinds = False
        self.line = "stopped"

    def listen(self) -> None:
        for number in NUMBERS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as a shell has it for what runs in the background
                signal.signal(number, self.hear)
        sys.unraisablehook = self.lost

    def hear(self, number: int, frame: FrameType | None) -> None:
        first, self.number = not self.number, self.number or number
        if not (first and self.unwinds):
            self.leave()
        raise Stopped

    def lost(self, unraisable: Any) -> None:
        """Called for an exception in a destructor or a callback, from which none can be raised: also for ours."""
        if self.number:
            self.leave()
        sys.__unraisablehook__(unraisable)

    def tell(self) -> int:
        """Says so, once, and returns the exit code."""
        line, self.line = self.line, ""
        if line:
            echo = "\n" if sys.stderr.isatty() else ""  # ends the line in which a terminal shows ^C
            os.write(2, f"{echo}{line}\n".encode())
        return 128 + self.number

    def leave(self) -> None:
        if sys.stdout.isatty():
            os.write(1, b"\x1b[?25h")  # the cursor, which progress bars hide
        os._exit(self.tell())


def main() -> int:
    """Returns the exit code: that of `lottery.cli.main`; 130 after Ctrl-C, 143 after SIGTERM."""
    stop = Stop()
    stop.listen()
    import shlex

    stop.line = f"stopped; finished levels are kept. To continue: {shlex.join(['lottery', *sys.argv[1:]])}"
    from lottery.cli import main as command

    try:
        stop.unwinds = True
        code = command()
        stop.unwinds = False
        return code
    except BaseException:  # what a signal breaks off, an import for one, may end in any error
        stop.unwinds = False
        if not stop.number:
            raise
        return stop.tell()
    finally:
        for number in NUMBERS:  # all is done and said
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
