"""Claims on small frames whose answers are known: true ones, false ones, and ones that can't be decided."""

from collections.abc import Callable, Iterable
from math import exp, inf, log, nan

import numpy as np
import pandas as pd
import pytest

from lottery.analysis.statistics import Interval
from lottery.errors import LotteryError
from lottery.studies import claims
from lottery.studies.lth_mnist import CLAIMS

REPLICATES = 4
NOISE = np.array([-1.0, -0.5, 0.5, 1.0])  # mean 0, so that means over replicates are exact
LEVELS = 20


def made(noise: float = 0.01, branches: tuple[str, ...] = ("reinit", "one_shot", "continue")) -> pd.DataFrame:
    """A world in which the paper is right in every number: 20 levels, each branch at a constant offset.

    Tickets are 0.4 points more accurate than the dense network down to level 13, about equal at 15, and lower from 16
    on; they stop after 62 % of its iterations at level 7 and as early at 15. Replicates differ by 2 points and by
    1,000 iterations, and beyond that by `noise` points and percent.
    """
    rows = []
    for r in range(REPLICATES):
        dense, iterations = 0.97 + 0.005 * r, 8000 + 1000 * r
        for level in range(LEVELS + 1):
            gain = 0.4 if level <= 12 else (0.4, 0.2, 0.02)[level - 13] if level <= 15 else -0.2 * (level - 15)
            speed = 0.62 ** (level / 7) if level <= 7 else 0.62 ** ((15 - level) / 8)
            offsets = {  # points and factor of iterations against the ticket
                "rewind": (0.0, 1.0),
                "reinit": (-0.5 if level >= 7 else -0.39, 2.51),
                "one_shot": (-0.01 * level, 1.02),
                "continue": (-0.3, 1.3),
            }
            for branch in ("rewind", *branches):
                if level or branch == "rewind":
                    points, factor = offsets[branch] if level else (0.0, 1.0)
                    wobble = noise * NOISE[(r + level) % 4] if level else 0.0
                    accuracy = dense + (gain + points + wobble) / 100 if level else dense
                    stop = iterations * speed * factor * exp(wobble / 100)
                    rows.append((branch, r, 0, level, 0.8**level, stop, accuracy, accuracy - 0.0005 * bool(level), 1.0))
    names = "branch replicate draw level density early_stop_iteration test_accuracy_early_stop test_accuracy"
    return pd.DataFrame(rows, columns=[*names.split(), "train_accuracy"]).assign(iterations=50_000)


def judged(levels: pd.DataFrame) -> pd.DataFrame:
    found = claims.judge(levels, CLAIMS)
    return found.set_index(found["claim"].str.split().str[0])


def test_every_claim_holds_where_the_paper_is_right() -> None:
    found = judged(made())
    assert found["verdict"].to_dict() == dict.fromkeys(found.index, "holds"), found[["ours", "low", "high", "note"]]
    assert found["size"]["1a"] == "compatible"
    assert (found["replicates"] == REPLICATES).all()
    ours = found["ours"]
    assert ours["1a"] == pytest.approx(38, abs=0.01)
    assert ours["1b"] == pytest.approx(100 * (1 - 0.62 ** (1 / 7)), abs=0.01)
    assert ours["2a"] == ours["2b"] == pytest.approx(0.4)
    assert ours["3a"] == pytest.approx(0.02)
    assert ours["4a"] == pytest.approx(-0.1)
    assert ours["4b"] == pytest.approx(-0.2)
    assert ours["4c"] == pytest.approx(100 * 0.8**7)
    assert ours["4d"] == pytest.approx(100 * 0.8**16)
    assert ours["5a"] == pytest.approx(2.51)
    assert ours["5b"] == pytest.approx(0.5)
    assert ours["6c"] == pytest.approx(0.4 - 0.13)  # level 13 is the weakest of 1 to 13
    assert ours["6d"] == pytest.approx(0.4 - 0.07)
    assert ours["7a"] == pytest.approx(0.35, abs=0.02)
    assert ours["8a"] == pytest.approx(100 * (1 - 1 / 1.3), abs=0.01)
    assert ours["8b"] == pytest.approx(0.3)


TRUE = {
    **{name: (0.0, inf) for name in ("1a", "1b", "2a", "5b", "6a", "6b", "6c", "6d", "7a", "8a", "8b")},
    "2b": (0.3, inf),
    "3a": (-0.1, 0.1),
    "3b": (-10.0, 10.0),
    "4a": (-inf, 0.0),
    "4b": (-inf, 0.0),
    "4c": (16.88, 26.375),
    "4d": (2.32, 3.625),
    "5a": (1.0, inf),
    "7b": (99.0, inf),
}
"""Claim -> the values for which it is true, spelled out: between these, and not at them."""


def test_what_each_claim_is_true_of() -> None:
    assert {name: claim.true for name, claim in CLAIMS.items()} == {n: pytest.approx(ends) for n, ends in TRUE.items()}


def put(levels: pd.DataFrame, branch: str, at: Iterable[int], points: float = 0.0, sooner: float = 0.0) -> pd.DataFrame:
    """The branch at these levels exactly so many points more accurate than the dense network, and percent sooner."""
    levels, dense = levels.copy(), levels[levels["level"] == 0].set_index("replicate")
    there = (levels["branch"] == branch) & levels["level"].isin(list(at))
    for column in ("test_accuracy_early_stop", "test_accuracy"):
        levels.loc[there, column] = levels["replicate"].map(dense[column]) + points / 100
    stop = levels["replicate"].map(dense["early_stop_iteration"]) * (1 - sooner / 100)
    levels.loc[there, "early_stop_iteration"] = stop
    return levels


def falling(branch: str, level: float) -> pd.DataFrame:
    """`made`, but the branch is below the dense network from that level on."""
    first = round(level)
    return put(put(made(), branch, range(1, first), points=0.1), branch, range(first, LEVELS + 1), points=-0.1)


def steady(sooner: float) -> pd.DataFrame:
    """`made`, but tickets stop so many percent sooner with every level down to the seventh."""
    levels = made()
    for level in range(1, 8):
        levels = put(levels, "rewind", [level], sooner=100 * (1 - (1 - sooner / 100) ** level))
    return levels


DOWN_TO_3_6 = range(1, 16)
WORLDS: dict[str, Callable[[float], pd.DataFrame]] = {
    "1a": lambda x: put(made(), "rewind", [7], sooner=x),
    "1b": steady,
    "2a": lambda x: put(made(), "rewind", [9], points=x),
    "2b": lambda x: put(made(), "rewind", [9], points=x),
    "3a": lambda x: put(made(), "rewind", [15], points=x),
    "3b": lambda x: put(made(), "rewind", [15], sooner=x),
    "4a": lambda x: put(made(), "reinit", [7], points=x),
    "4b": lambda x: put(made(), "rewind", [16], points=x),
    "5a": lambda x: put(put(made(), "reinit", [7]), "rewind", [7], sooner=100 * (1 - 1 / x)),
    "5b": lambda x: put(put(made(), "reinit", [7], points=1), "rewind", [7], points=1 + x),
    "6a": lambda x: put(made(), "one_shot", [4], sooner=x),
    "6b": lambda x: put(made(), "one_shot", range(2, 8), sooner=x),
    "6c": lambda x: put(made(), "one_shot", [5], points=x),
    "6d": lambda x: put(made(), "one_shot", range(1, 14), points=x),
    "7a": lambda x: put(made(), "rewind", range(1, LEVELS + 1), points=x),
    "7b": lambda x: made().assign(train_accuracy=lambda w: np.where(w["level"] == 18, x / 100, 1.0)),
    "8a": lambda x: put(put(made(), "continue", DOWN_TO_3_6), "rewind", DOWN_TO_3_6, sooner=x),
    "8b": lambda x: put(put(made(), "continue", DOWN_TO_3_6, points=1), "rewind", DOWN_TO_3_6, points=1 + x),
}
"""Claim -> worlds in which the number that it is about is x, in every replicate."""


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(
    ("name", "end"), [(name, end) for name in WORLDS for end in (0, 1) if abs(TRUE[name][end]) < inf]
)
def test_a_claim_holds_just_inside_and_not_just_outside(name: str, end: int, inside: bool) -> None:
    """Where all replicates say the same, 0.02 decides: points, percent, and times."""
    x = TRUE[name][end] + (0.02 if inside == (end == 0) else -0.02)
    found = judged(WORLDS[name](x)).loc[name]
    assert found["ours"] == pytest.approx(x, abs=1e-6)
    assert found["verdict"] == ("holds" if inside else "does not hold")


@pytest.mark.parametrize(
    ("name", "branch", "level", "holds"),
    [
        *(("4c", "reinit", level, level == 7) for level in (6, 7, 8)),
        *(("4d", "rewind", level, level == 16) for level in (15, 16, 17)),
    ],
)
def test_one_level_beside_the_papers_is_not_where_tickets_fall_below(
    name: str, branch: str, level: int, holds: bool
) -> None:
    found = judged(falling(branch, level)).loc[name]
    assert found["ours"] == pytest.approx(100 * 0.8**level)
    assert (found["verdict"] == "holds") == holds


def test_one_replicate_that_has_not_stopped_is_too_many() -> None:
    """Both networks at the last evaluation, at one level of one replicate; either of them alone is no obstacle."""
    levels = made()
    at = levels["replicate"] == 2
    dense, ticket, other = (
        at & (levels["branch"] == branch) & (levels["level"] == level)
        for branch, level in (("rewind", 0), ("rewind", 7), ("reinit", 7))
    )
    for networks, against in ((dense | ticket, None), (ticket | other, "reinit")):
        late = levels.assign(early_stop_iteration=levels["early_stop_iteration"].mask(networks, 50_000))
        for wanted in ([7], [6, 7]):
            with pytest.raises(LotteryError, match="both stop at the last evaluation"):
                claims.sooner(late, wanted, "rewind", against)
        assert claims.sooner(late, [6], "rewind", against).shape == (REPLICATES, 1)
    for alone in (dense, ticket):
        late = levels.assign(early_stop_iteration=levels["early_stop_iteration"].mask(alone, 50_000))
        assert claims.sooner(late, [7], "rewind", None).notna().all(axis=None)


def test_the_columns_begin_as_promised() -> None:
    promised = ["claim", "paper", "ours", "low", "high", "replicates", "verdict"]
    assert claims.judge(made(), CLAIMS)[:0].columns[:7].tolist() == promised


def test_no_claim_holds_where_tickets_are_worse() -> None:
    """Tickets swapped with the dense network's opposite: later, less accurate, unlearned; nothing true is left."""
    levels = made()
    pruned = levels["level"] > 0
    dense = levels[~pruned].set_index("replicate")
    for column, sign in (("test_accuracy_early_stop", -1), ("test_accuracy", -1)):
        base = levels["replicate"].map(dense[column])
        tickets = (levels["branch"] != "reinit") & pruned
        flip = sign * (levels[column] - base).abs() - 0.003
        levels.loc[tickets, column] = (base + flip)[tickets]
        levels.loc[(levels["branch"] == "reinit") & pruned, column] = base + 0.01
        levels.loc[(levels["branch"] == "continue") & pruned, column] = base + 0.01
    slow = levels["branch"].map({"rewind": 2.0, "one_shot": 2.0, "reinit": 1.0, "continue": 1.0})
    start = levels["replicate"].map(dense["early_stop_iteration"])
    levels.loc[pruned, "early_stop_iteration"] = (start * slow * 1.02 ** levels["level"])[pruned]
    levels["train_accuracy"] = 0.5
    found = judged(levels)
    assert "holds" not in found["verdict"].drop("4b").to_list(), found[["ours", "low", "high", "verdict", "note"]]
    assert set(found["verdict"].drop(["4b", "4c"])) == {"does not hold"}, found[["ours", "low", "high", "note"]]
    assert found["size"][["1a", "5a"]].tolist() == ["smaller", "smaller"]


def test_the_trunk_may_have_any_rule() -> None:
    """Tickets are those of the branch that has the dense network, whatever its name."""
    levels = made()
    renamed = levels.assign(branch=levels["branch"].replace({"rewind": "finetune"}))
    pd.testing.assert_frame_equal(judged(renamed), judged(levels))
    with pytest.raises(LotteryError, match="finetune has no test_accuracy at level 25"):
        claims.gain(renamed, "test_accuracy", [25])


def test_noise_leaves_claims_undecided() -> None:
    """Single levels can't be told from the noise; nothing is forced."""
    found = judged(made(noise=2.0))
    assert set(found["verdict"][["2a", "2b", "3a", "4a", "4b"]]) == {"undecided"}


@pytest.mark.parametrize("replicates", [0, 1])
def test_too_few_replicates_are_undecided(replicates: int) -> None:
    levels = made()
    found = judged(levels[levels["replicate"] < replicates])
    assert set(found["verdict"]) == {"undecided"}
    assert (found["note"] != "").all()
    assert found["ours"].notna().sum() == (0 if replicates == 0 else 19)  # all but the best level, which others choose


@pytest.mark.parametrize(
    ("change", "undecided", "note"),
    [
        (
            lambda x: x[x["branch"] == "rewind"],
            ["4a", "4c", "5a", "5b", "6a", "6b", "6c", "6d", "8a", "8b"],
            "no branch",
        ),
        (lambda x: x[x["level"] <= 9], ["3a", "3b", "4b", "6c", "6d", "7b", "8a", "8b"], "no level has about"),
        (lambda x: x[(x["branch"] != "reinit") | (x["level"] != 7)], ["4a", "5a", "5b"], "reinit has no .* at level 7"),
        (
            lambda x: x.assign(early_stop_iteration=nan),
            ["1a", "1b", "3b", "5a", "6a", "6b", "8a"],
            "has no early_stop_iteration",
        ),
        (
            lambda x: x.assign(early_stop_iteration=50_000.0),
            ["1a", "1b", "3b", "5a", "6a", "6b", "8a"],
            "both stop at the last evaluation",
        ),
        (
            lambda x: x[(x["branch"] != "reinit") | (x["replicate"] != x["level"] % 3)],
            [],
            "",
        ),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_judged(change, undecided, note) -> None:  # type: ignore[no-untyped-def]  # the table's types are plain
    found = judged(change(made()))
    assert set(found["verdict"][undecided]) <= {"undecided"}
    assert found["note"][undecided].str.contains(note).all(), found["note"]
    rest = found.drop(index=[*undecided, "4d", "4c"])
    assert set(rest["verdict"]) == {"holds"}, rest[["ours", "low", "high", "note"]]


def test_levels_are_found_by_density() -> None:
    levels = made()
    assert claims.near(levels, 0.211) == 7
    assert claims.near(levels, 0.036) == 15
    assert claims.near(levels[levels["level"] != 7].assign(level=lambda x: 2 * x["level"]), 0.135) == 18
    with pytest.raises(LotteryError, match=r"no level has about 21\.1 % of the weights: the nearest has 26\.2 %"):
        claims.near(levels[levels["level"] < 7], 0.211)
    assert claims.within(levels, 0.675, 0.176) == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("low", "high", "true", "verdict"),
    [
        (0.1, 0.5, (0, inf), "holds"),
        (0.0, 0.5, (0, inf), "undecided"),
        (-0.2, 0.0, (0, inf), "does not hold"),
        (0.1, 0.5, (0.3, inf), "undecided"),
        (0.31, 0.5, (0.3, inf), "holds"),
        (-0.05, 0.05, (-0.1, 0.1), "holds"),
        (-0.05, 0.15, (-0.1, 0.1), "undecided"),
        (0.12, 0.15, (-0.1, 0.1), "does not hold"),
        (nan, nan, (-0.1, 0.1), "undecided"),
    ],
)
def test_the_rule(low: float, high: float, true: tuple[float, float], verdict: str) -> None:
    assert claims.verdict(Interval((low + high) / 2, low, high, 3), true) == verdict


def test_the_weakest_level() -> None:
    """Its lower end is the lowest of all, its upper end that of intervals that hold at both levels at once (97.5 %):
    Student's t for 2 degrees of freedom is 4.30265 at 95 % and 6.20535 at 97.5 % (both sides, any table)."""
    pairs = pd.DataFrame({1: [1.0, 2.0, 3.0], 2: [2.0, 4.0, 9.0]})
    found = claims.weakest(pairs)
    assert found.mean == 2
    assert found.low == pytest.approx(min(2 - 4.30265 / 3**0.5, 5 - 4.30265 * (13 / 3) ** 0.5), rel=1e-5)
    assert found.high == pytest.approx(2 + 6.20535 / 3**0.5, rel=1e-5)


def test_the_best_level_is_chosen_by_the_other_replicates() -> None:
    """Level 1 is best by one lucky replicate, which may not choose for itself."""
    found = claims.best(pd.DataFrame({1: [9.0, 0.0, 0.0], 2: [1.0, 1.0, 1.0]}))
    assert found.mean == (1.0 + 0.0 + 0.0) / 3


def test_below_for_good() -> None:
    """A dip at level 3 that is made good again does not count."""
    levels = made()
    dip = (levels["branch"] == "rewind") & (levels["level"] == 3)
    levels.loc[dip, "test_accuracy_early_stop"] -= 0.01
    assert claims.falls_below(levels, "rewind").mean == pytest.approx(100 * 0.8**16)


def test_agreement_by_rounding_decides_nothing() -> None:
    """Two replicates that stop one evaluation later, and two that fall below at the same level."""
    levels = made().query("replicate < 2")
    levels["iterations"] = 10_000
    levels["early_stop_iteration"] = 900.0 + 100 * (levels["level"] == 7)
    found = claims.percent(claims.sooner_at(levels, 0.211, "rewind"))
    assert found.mean == pytest.approx(-100 / 9)
    assert found.low < -20
    assert found.high > 0
    below = claims.falls_below(levels, "reinit")
    assert below.mean == pytest.approx(100 * 0.8**7)
    assert below.high > 1.5 * below.mean > 2 * below.low


def test_markdown_says_what_was_found() -> None:
    text = claims.markdown(claims.judge(made(branches=()), CLAIMS), "Claims")
    assert (
        "| 1a at 21.1 % tickets stop earlier than the dense network | 38 | 38 (38 to 38) % earlier | 4 | **holds** |"
    ) in text
    assert "| – | 0 | **undecided**: there is no branch 'reinit', only rewind |" in text


def test_logarithms_of_ratios() -> None:
    found = claims.percent(Interval(log(2), log(1.5), log(4), 3))
    assert found == pytest.approx((50, 100 / 3, 75, 3))
    assert claims.times(found) != found
