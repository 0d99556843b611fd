"""What a run is made on: its versions, its processor, and the instructions on which its last bits depend."""

import os
import platform
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = ("lottery", "torch", "numpy", "numba", "safetensors")
"""Those whose version results may depend on."""


def this_session(jobs: int) -> dict[str, Any]:
    """Provenance of what is made now: versions, machine, command."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "versions": versions(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "jobs": jobs,
    }


def versions() -> dict[str, str]:
    """Library -> its version here."""
    return {name: version(name) for name in LIBRARIES}


@cache
def instructions() -> str:
    """The processor's family and the newest vector instructions that NumPy finds it has, such as "x86_64 X86_V3":
    sums are added up in the order that fits them."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return f"{platform.machine()} {[*simd['baseline'], *simd.get('found', [])][-1]}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
