"""WHAT DOES A PAPER CLAIM? A study is one paper: runs, items and claims as data, in one file.

To add one: a row in STUDIES, and a file that makes a `Study`, as `lth_mnist` does, or makes one of another's pieces, as
`lth_fashion_mnist` does. `reproduce` carries it out.
"""

from collections.abc import Mapping
from typing import Any

from lottery.analysis.answer import margin_of
from lottery.runs.store import Run
from lottery.studies import lth_fashion_mnist, lth_mnist
from lottery.studies.claims import judge, number
from lottery.studies.study import Study

__all__ = ["STUDIES", "Study", "claims_of"]

STUDIES: dict[str, Study] = {"lth-mnist": lth_mnist.STUDY, "lth-fashion-mnist": lth_fashion_mnist.STUDY}
"""Name -> study: Frankle & Carbin 2019, Section 2 and the appendices, on MNIST; its main claims on Fashion-MNIST."""


def claims_of(run: Run, margin: float | None = None) -> list[Mapping[str, Any]] | None:
    """The claims of the study whose main run that is, whatever its iterations, seed and extent, judged on it.

    Args:
        run: finished or not.
        margin: in percentage points, as in `lottery.analysis.verdicts.judge`; the run's `default_margin` if None.

    Returns:
        Rows of `lottery.studies.claims.judge`, and `number`, ours in words; None for a run that is no study's.
    """
    for study in STUDIES.values():
        if study.is_main(run.spec):
            levels = run.levels()
            rows = judge(levels, study.claims, margin_of(run, levels, margin).points).to_dict("records")
            return [{str(name): value for name, value in row.items()} | {"number": number(row)} for row in rows]
    return None
