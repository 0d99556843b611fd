"""Where what was measured is slower than dense PyTorch, in a sentence."""

from lottery.runs.timings import Latency, Measured
from lottery.words import method_name


def slower(measured: Measured) -> str:
    """Which methods are slower than dense PyTorch at one level, at which batch sizes, and by how much.

    Slower is what was slower in at least three rounds of four; numbers are the medians of its speed, × dense PyTorch's.
    """
    timed = [cost for cost in measured.costs if cost.latencies][1:]
    if not timed:
        return "Nothing but dense PyTorch was measured."
    slow = {cost.method: [latency for latency in cost.latencies if latency.speed.high < 1] for cost in timed}
    parts = [f"{method_name(name)} at batch {_listed(found)}" for name, found in slow.items() if found]
    return f"Slower than dense PyTorch: {'; '.join(parts)}." if parts else "No method is slower than dense PyTorch."


def _listed(latencies: list[Latency]) -> str:
    *most, last = (f"{latency.batch} ({latency.speed.median:.2g} ×)" for latency in latencies)
    return f"{', '.join(most)} and {last}" if most else last
