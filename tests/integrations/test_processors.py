"""The sparse engine on processors that are not this one: LLVM compiles for them, which takes a minute each."""

from pathlib import Path

import pytest
from test_sparse import finish, run_compare

from lottery.engines.sparse import doors


@pytest.mark.parametrize("cpu", ["haswell", "x86-64"])
@pytest.mark.skipif(not doors.X86, reason="the processors named here are x86: other machines have none of them")
def test_lesser_processors_get_the_same_and_compile_once(cpu: str, tmp_path: Path) -> None:
    """AVX2, and SSE2 without fused multiply-add. Two processes start at once with an empty cache: one compiles."""
    environment = {"NUMBA_CPU_NAME": cpu, "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    both = [run_compare(environment) for _ in range(2)]
    assert sorted(map(finish, both)) == [0, 1]
