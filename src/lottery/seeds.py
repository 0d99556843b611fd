"""One random stream per (seed, replicate, purpose, ...): nothing drawn depends on what was drawn before it.

Purposes in use: "weights", "split", "order" (level, then the epoch, or "augment" and the iteration), "criterion"
(level), "loop" (level: seeds what a loop of one's own draws), and the name of each start rule that draws (level, draw,
what for).
"""

import hashlib

import numpy as np

Key = tuple[int | str, ...]
"""Names a stream: the spec's seed, the replicate, then words and numbers for the purpose."""


def stream(*key: int | str) -> np.random.Generator:
    """The generator of that name, at its beginning, whatever else was drawn before."""
    digest = hashlib.sha256(repr(key).encode()).digest()  # NumPy's own seeding takes (0, 0, 1) and (0, 0, 1, 0) for one
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
