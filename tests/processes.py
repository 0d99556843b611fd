"""The command line as a process among processes: started, watched through /proc, and sent signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMAND = [sys.executable, "-m", "lottery_command"]
"""What pyproject.toml has the shell call `lottery`."""


class Process(subprocess.Popen[str]):
    """`lottery`, in a session of its own: so are its workers, and what it leaves behind."""

    def __init__(self, *arguments: str, cwd: Path, command: Sequence[str] = COMMAND):
        heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # what began in the background ignores Ctrl-C
        pipe = subprocess.PIPE
        super().__init__([*command, *arguments], cwd=cwd, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
        signal.signal(signal.SIGINT, heard)

    def listens(self) -> bool:
        """Whether it is beyond Python's own start: it catches SIGTERM."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)

    def session(self) -> list[int]:
        """Processes of its session that live, itself among them, in the order of their start."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, *fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == self.pid and state not in "ZX":
                found.append((int(fields[18]), int(path.parent.name)))
        return [pid for _, pid in sorted(found)]

    def workers(self) -> list[int]:
        """Its workers."""
        found = []
        for pid in self.session():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"spawn_main" in command:
                found.append(pid)
        return found

    def until(self, happened: Callable[[], object], seconds: float = 60) -> None:
        """Waits for it, or for the process's end."""
        end = time.monotonic() + seconds
        while self.poll() is None and not happened():
            assert time.monotonic() < end, "it takes too long"
            time.sleep(0.001)

    def ended(self, seconds: float = 20) -> str:
        """What it says on stderr until it ends, which it must soon, and alone."""
        try:
            _, errors = self.communicate(timeout=seconds)
            for _ in range(1000):  # what dies with it takes a moment to notice
                if not self.session():
                    break
                time.sleep(0.01)
            assert not self.session(), "it left processes behind"
        finally:
            for pid in self.session():
                os.kill(pid, signal.SIGKILL)
        return errors
