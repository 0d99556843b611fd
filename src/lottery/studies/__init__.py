"""WHAT DOES A PAPER CLAIM? A study is one paper: runs, items and claims as data, in one file.

To add one: a file that makes a `Study`, as `lth_mnist` does, and a row in STUDIES. `reproduce` carries it out.
"""

from collections.abc import Mapping
from typing import Any

from lottery.runs.store import Run
from lottery.studies import lth_mnist
from lottery.studies.claims import judge, number
from lottery.studies.study import Study

__all__ = ["STUDIES", "Study", "claims_of"]

STUDIES: dict[str, Study] = {"lth-mnist": lth_mnist.STUDY}
"""Name -> study: Frankle & Carbin 2019, Section 2 and the appendices, on MNIST."""


def claims_of(run: Run) -> list[Mapping[str, Any]] | None:
    """The claims of the study whose main run that is, whatever its iterations, seed and extent, judged on it.

    Returns:
        Rows of `lottery.studies.claims.judge`, and `number`, ours in words; None for a run that is no study's.
    """
    for study in STUDIES.values():
        if study.is_main(run.spec):
            rows = judge(run.levels(), study.claims).to_dict("records")
            return [{str(name): value for name, value in row.items()} | {"number": number(row)} for row in rows]
    return None
