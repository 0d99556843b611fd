"""Claims on small frames whose answers are known: true ones, false ones, and ones that can't be decided."""

from collections.abc import Callable, Iterable
from math import exp, inf, log, nan
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lottery.analysis import verdicts
from lottery.analysis.simultaneous import lower_bounds
from lottery.analysis.statistics import Interval
from lottery.analysis.verdicts import Condition
from lottery.errors import LotteryError
from lottery.studies import claims
from lottery.studies.claims import EARLIER, LINEAR, TIMES
from lottery.studies.lth_mnist import CLAIMS

REPLICATES = 4
NOISE = np.array([-1.0, -0.5, 0.5, 1.0])  # mean 0, so that means over replicates are exact
LEVELS = 20
MARGIN = 0.1


def made(noise: float = 0.01, branches: tuple[str, ...] = ("reinit", "one_shot", "continue")) -> pd.DataFrame:
    """A world in which the paper is right in every number: 20 levels, each branch at a constant offset.

    Tickets are 0.4 points more accurate than the dense network down to level 13, hardly more at 15, and less from 16
    on; reinitialised ones are less accurate from level 7 on. Tickets stop after 62 % of its iterations at level 7 and
    as early at 15. Replicates differ by 2 points and by 1,000 iterations, and beyond that by `noise` points and
    percent.
    """
    rows = []
    for r in range(REPLICATES):
        dense, iterations = 0.97 + 0.005 * r, 8000 + 1000 * r
        for level in range(LEVELS + 1):
            gain = 0.4 if level <= 12 else (0.4, 0.2, 0.05)[level - 13] if level <= 15 else -0.2 * (level - 15)
            speed = 0.62 ** (level / 7) if level <= 7 else 0.62 ** ((15 - level) / 8)
            offsets = {  # points and factor of iterations against the ticket
                "rewind": (0.0, 1.0),
                "reinit": (-0.5 if level >= 7 else -0.3, 2.51),
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
    found = claims.judge(levels, CLAIMS, MARGIN)
    return found.set_index(found["claim"].str.split().str[0])


def test_every_claim_holds_where_the_paper_is_right() -> None:
    found = judged(made())
    expected = dict.fromkeys(found.index, "holds") | {"8a": "no verdict"}
    assert found["verdict"].to_dict() == expected, found[["ours", "low", "high", "note"]]
    assert found["size"]["1a"] == "compatible"
    assert (found["replicates"] == REPLICATES).all()
    ours = found["ours"]
    assert ours["1a"] == pytest.approx(38, abs=0.01)
    assert ours["1b"] == pytest.approx(100 * (1 - 0.62 ** (1 / 7)), abs=0.01)
    assert ours["2a"] == ours["2b"] == pytest.approx(0.4)
    assert ours["3a"] == pytest.approx(0.05)
    assert ours["3b"] == pytest.approx(0, abs=1e-9)
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
    "3a": (-0.1, inf),
    "3b": (-10.0, inf),
    "4a": (-inf, 0.0),
    "4b": (-inf, 0.0),
    "4c": (15.0979, 23.5905),
    "4d": (2.07507, 3.24230),
    "5a": (1.0, inf),
    "7b": (99.0, inf),
}
"""Claim -> the values for which it is true with a margin of 0.1 points, spelled out: between these, and not at them."""


def test_what_each_claim_is_true_of() -> None:
    true = {name: claim.true_of(MARGIN) for name, claim in CLAIMS.items()}
    assert true == {name: pytest.approx(ends, rel=1e-5) for name, ends in TRUE.items()}
    wider = {name: claim.true_of(0.5) for name, claim in CLAIMS.items()}
    assert {name for name in TRUE if wider[name] != true[name]} == {"3a"}
    assert wider["3a"] == (-0.5, inf)


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
    found: Any = judged(WORLDS[name](x)).loc[name]
    assert found["ours"] == pytest.approx(x, abs=1e-6)
    expected = "holds" if inside else "does not hold"
    assert found["verdict"] == (expected if name != "8a" else "no verdict")


@pytest.mark.parametrize(("name", "branch", "paper"), [("4c", "reinit", 7), ("4d", "rewind", 16)])
@pytest.mark.parametrize(("beside", "holds"), [(-1, False), (0, True), (1, True), (2, False)])
def test_tickets_fall_below_at_the_papers_level_or_the_next(
    name: str, branch: str, paper: int, beside: int, holds: bool
) -> None:
    """Not below at the next denser level, below from the next sparser one on: where all replicates say the same."""
    level = paper + beside
    found: Any = judged(falling(branch, level)).loc[name]
    assert found[["ours", "low", "high"]].tolist() == pytest.approx(3 * [100 * 0.8**level])
    assert found["verdict"] == ("holds" if holds else "does not hold")
    denser, here = f"{100 * 0.8 ** (level - 1):.3g} %", f"{100 * 0.8**level:.3g} %"
    assert found["note"] == f"not below down to {denser}, below from {here} on"


def spread(levels: pd.DataFrame, branch: str, at: Iterable[int], points: float) -> pd.DataFrame:
    """Replicates differ at these levels by so many points from the first to the last; means stay."""
    levels, wobble = levels.copy(), levels["replicate"].map(dict(enumerate(points / 200 * NOISE)))
    there = (levels["branch"] == branch) & levels["level"].isin(list(at))
    levels.loc[there, "test_accuracy_early_stop"] += wobble
    return levels


def test_where_tickets_fall_below_is_a_bracket() -> None:
    """Level 15 above and level 18 below by a point, 16 and 17 below by too little for four replicates that differ."""
    levels = put(made(), "rewind", range(1, 16), points=1)
    levels = put(put(levels, "rewind", [16, 17], points=-0.05), "rewind", range(18, LEVELS + 1), points=-1)
    levels = spread(levels, "rewind", range(1, LEVELS + 1), 0.5)
    found: Any = judged(levels).loc["4d"]
    ends = [100 * 0.8**level for level in (16, 18, 16)]
    assert found[["ours", "low", "high"]].tolist() == pytest.approx(ends)
    assert found["verdict"] == "undecided"
    assert found["note"].startswith("not below down to 3.52 %, below from 1.8 % on; ")
    never: Any = judged(put(levels, "rewind", range(16, LEVELS + 1), points=1)).loc["4d"]
    assert never[["low", "high"]].tolist() == pytest.approx([0.0, 100 * 0.8**LEVELS])
    assert never["verdict"] == "does not hold"
    assert never["note"] == "not below down to 1.15 %, not shown to be below at the sparsest level"
    at_once: Any = judged(put(levels, "rewind", range(1, LEVELS + 1), points=-1)).loc["4d"]
    assert at_once[["low", "high"]].tolist() == pytest.approx([80.0, 80.0])
    assert at_once["verdict"] == "does not hold"


@pytest.mark.parametrize(("branch", "density", "level"), [("rewind", 0.036, 15), ("rewind", 0.211, 7)])
def test_numbers_are_those_of_the_verdict(branch: str, density: float, level: int) -> None:
    """Accuracy and early stop against the dense network, with their intervals; and against reinitialised tickets."""
    levels = made(noise=1.0)
    row: Any = verdicts.judge(levels, MARGIN).set_index("level").loc[level]
    accuracy = claims.gain_at(levels, "test_accuracy_early_stop", density, branch).ours
    assert accuracy[:3] == pytest.approx(row[["matching_mean", "matching_low", "matching_high"]].tolist())
    stop = TIMES.interval(claims.sooner_at(levels, density, branch).ours)
    assert [1 / x for x in stop[:3]] == pytest.approx(row[["no_later_mean", "no_later_high", "no_later_low"]].tolist())
    reinit = claims.gain_at(levels, "test_accuracy_early_stop", density, branch, "reinit").ours
    assert reinit[:3] == pytest.approx(row[["beats_reinit_mean", "beats_reinit_low", "beats_reinit_high"]].tolist())


def test_3a_and_3b_are_the_verdicts_conditions() -> None:
    """Whatever the noise, a level that the paper names is judged as that level alone is."""
    words = {"yes": "holds", "no": "does not hold", "undecided": "undecided"}
    seen = set()
    for points, sooner in ((0.0, 0.0), (-0.3, -40.0), (-0.1, -10.0), (0.3, 20.0)):
        levels = spread(put(made(), "rewind", [15], points, sooner), "rewind", [15], 0.05)
        row: Any = verdicts.judge(levels, MARGIN).set_index("level").loc[15]
        found = judged(levels)["verdict"]
        assert found["3a"] == words[row["matching"]]
        seen.add(found["3a"])
    assert seen == set(words.values())
    assert judged(put(made(), "rewind", [15], sooner=-9.9)).loc["3b", "verdict"] == "holds"
    assert judged(put(made(), "rewind", [15], sooner=-10.1)).loc["3b", "verdict"] == "does not hold"


def test_resetting_stops_earlier_has_no_verdict() -> None:
    for levels in (made(), made(branches=()), made().query("replicate == 0")):
        found: Any = judged(levels).loc["8a"]
        assert found["verdict"] == "no verdict"
        assert found["note"].startswith(
            "a continued network starts trained, so its lowest validation loss comes at once"
        )


def test_every_level_counts_levels() -> None:
    """Where all are shown; where level 5 is less accurate; and where level 6 seems so too, but isn't shown to be."""
    found = judged(made())
    assert found["note"][["6a", "6c", "7b"]].tolist() == [
        "shown at 6 of 6 levels",
        "shown at 13 of 13 levels",
        "shown at 19 of 19 levels",
    ]
    lower = put(made(), "one_shot", [5], points=-1)
    assert judged(lower).loc["6c", "note"] == "shown at 12 of 13 levels, the contrary at 1"
    row: Any = judged(spread(put(lower, "one_shot", [6], points=-0.01), "one_shot", [6], 0.2)).loc["6c"]
    assert (row["verdict"], row["note"]) == ("does not hold", "shown at 11 of 13 levels, the contrary at 1")


@pytest.mark.parametrize(
    ("points", "needed"),
    [
        # The standard deviation is 0.182574. R = 5 replicates are said to be enough from (2.776 + 0.941) / √5 of it on,
        # 0.3035, R = 6 from (2.571 + 0.920) / √6, 0.2602; R = 13 from 0.1545, R = 14 from 0.1478
        (0.28, "about 6 replicates in all would probably decide (a third to five times that)"),
        (0.15, "about 14 replicates in all would probably decide (a third to five times that)"),
        (0.02, "no affordable number of replicates (more than 50) would probably decide"),
    ],
)
def test_undecided_claims_say_what_it_would_take(points: float, needed: str) -> None:
    at = range(1, LEVELS + 1)
    row: Any = judged(spread(put(made(), "rewind", at, points=0.3 + points), "rewind", at, 0.4)).loc["2b"]
    assert (row["high"] - row["low"]) / 2 == pytest.approx(3.18245 / 2 * 0.182574, rel=1e-5)
    assert (row["verdict"], row["note"]) == ("undecided", f"0.3 lies within the interval; {needed}")


def test_a_few_more_replicates() -> None:
    """A level that varies more than its neighbours is expected to vary as they do."""
    row: Any = judged(spread(put(made(noise=0), "rewind", [9], points=0.7), "rewind", [9], 0.8)).loc["2b"]
    assert row["note"] == "0.3 lies within the interval; a few more replicates would probably decide"


def test_what_it_takes_at_every_level() -> None:
    """The level that needs most to be shown; once one is on the wrong side, the level that needs fewest to refute."""
    whole = pd.DataFrame(NOISE[:, None] * np.ones(3), columns=[1, 2, 3])  # deviation 0.9129 at each, by their window

    def needed(*distances: float) -> int | None:
        return claims._replicates(whole, pd.Series(distances, [1, 2, 3]))

    assert [needed(far, far, far) for far in (10, 1.0, 0.5)] == [2, 9, 29]
    assert needed(1.0, 0.5, 10) == 29
    assert needed(1.0, 0.01, 10) is None
    assert needed(0.01, -1.0, -0.5) == 9
    assert needed(1.0, -0.01, 10) is None


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
        assert claims.sooner(late, [6], "rewind", against).values[6].notna().all()
    for alone in (dense, ticket):
        late = levels.assign(early_stop_iteration=levels["early_stop_iteration"].mask(alone, 50_000))
        assert claims.sooner(late, [7], "rewind", None).values.notna().all(axis=None)


def test_the_columns_begin_as_promised() -> None:
    promised = ["claim", "paper", "ours", "low", "high", "replicates", "verdict"]
    assert claims.judge(made(), CLAIMS, MARGIN)[:0].columns[:7].tolist() == promised


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
    assert set(found["verdict"].drop(["4b", "4c", "8a"])) == {"does not hold"}, found[["ours", "low", "high", "note"]]
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
    assert set(found["verdict"].drop("8a")) == {"undecided"}
    assert (found["note"] != "").all()
    assert found["ours"].notna().sum() == (0 if replicates == 0 else 19)  # all but the best level, which others choose


@pytest.mark.parametrize(
    ("change", "undecided", "note"),
    [
        (
            lambda x: x[x["branch"] == "rewind"],
            ["4a", "4c", "5a", "5b", "6a", "6b", "6c", "6d", "8b"],
            "there is no branch '.*': train it with --branches (?:reinit|one_shot|continue)$",
        ),
        (
            lambda x: x[x["level"] <= 9],
            ["3a", "3b", "4b", "4d", "6c", "6d", "7b", "8b"],
            "no level has about .*: the nearest has 13.4 %; ask for more levels",
        ),
        (lambda x: x[(x["branch"] != "reinit") | (x["level"] != 7)], ["4a", "5a", "5b"], "reinit has no .* at level 7"),
        (
            lambda x: x.assign(early_stop_iteration=nan),
            ["1a", "1b", "3b", "5a", "6a", "6b"],
            "has no early_stop_iteration",
        ),
        (
            lambda x: x.assign(early_stop_iteration=50_000.0),
            ["1a", "1b", "3b", "5a", "6a", "6b"],
            "both stop at the last evaluation",
        ),
        (
            lambda x: x[(x["branch"] != "reinit") | (x["replicate"] != x["level"] % 3)],
            ["4c"],
            "one replicate has no interval: five to ten usually decide",
        ),
    ],
)
def test_what_is_missing_is_said_and_the_rest_is_judged(change, undecided, note) -> None:  # type: ignore[no-untyped-def]  # the table's types are plain
    found = judged(change(made()))
    assert set(found["verdict"][undecided]) <= {"undecided"}
    assert found["note"][undecided].str.contains(note).all(), found["note"]
    rest = found.drop(index=[*undecided, "8a"])
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
        (-0.05, 0.05, (-0.1, inf), "holds"),
        (-0.1, 0.05, (-0.1, inf), "undecided"),
        (-0.2, -0.1, (-0.1, inf), "does not hold"),
        (-0.05, 0.05, (-0.1, 0.1), "holds"),
        (-0.05, 0.15, (-0.1, 0.1), "undecided"),
        (0.12, 0.15, (-0.1, 0.1), "does not hold"),
        (nan, nan, (-0.1, 0.1), "undecided"),
    ],
)
def test_the_rule(low: float, high: float, true: tuple[float, float], verdict: str) -> None:
    assert claims.verdict(Interval((low + high) / 2, low, high, 3), true) == verdict


def test_the_weakest_level() -> None:
    """Its interval is of bounds for all levels together. With one level they are Student's: t for 2 degrees of freedom
    is 4.30265 at 95 % (any table)."""
    alone = claims.every(Condition(pd.DataFrame({1: [1.0, 2.0, 3.0]}), 0.0), [1])
    half = 4.30265 / 3**0.5
    assert alone.ours == pytest.approx((2, 2 - half, 2 + half, 3), rel=1e-5)
    pairs = pd.DataFrame({1: [1.0, 2.0, 3.0], 2: [2.0, 4.0, 9.0], 3: [9.0, 9.0, 0.0]})
    found = claims.every(Condition(pairs, 0.0), [1, 2]).ours
    lower, upper = lower_bounds(pairs[[1, 2]]), -lower_bounds(-pairs[[1, 2]])
    assert found == (2, lower[1], upper[1], 3)
    assert found.high > 2 + half  # wider than alone
    with pytest.raises(LotteryError, match="no replicate has both"):
        claims.every(Condition(pairs.assign(**{"4": nan}).rename(columns={"4": 4}), 0.0), [1, 4])


def test_the_best_level_is_chosen_by_the_other_replicates() -> None:
    """Level 1 is best by one lucky replicate, which may not choose for itself."""
    pairs = Condition(pd.DataFrame({1: [9.0, 0.0, 0.0], 2: [1.0, 1.0, 1.0]}), 0.0)
    assert claims.best(pairs, [1, 2]).ours.mean == (1.0 + 0.0 + 0.0) / 3


def test_below_for_good() -> None:
    """A dip at level 3 that is made good again does not count."""
    levels = made()
    dip = (levels["branch"] == "rewind") & (levels["level"] == 3)
    levels.loc[dip, "test_accuracy_early_stop"] -= 0.01
    assert claims.falls_below(levels, 0.029).ours.mean == pytest.approx(100 * 0.8**16)


def test_agreement_by_rounding_decides_nothing() -> None:
    """Two replicates that stop one evaluation later."""
    levels = made().query("replicate < 2")
    levels["iterations"] = 10_000
    levels["early_stop_iteration"] = 900.0 + 100 * (levels["level"] == 7)
    for other in (None, "reinit"):
        stops = levels["early_stop_iteration"].mask(levels["branch"] == "reinit", 900.0)
        found = EARLIER.interval(claims.sooner_at(levels.assign(early_stop_iteration=stops), 0.211, other=other).ours)
        assert found.mean == pytest.approx(-100 / 9)
        assert found.low < -20
        assert found.high > 0


def test_markdown_says_what_was_found() -> None:
    text = claims.markdown(claims.judge(made(branches=()), CLAIMS, MARGIN), "Claims")
    assert (
        "| 1a at 21.1 % tickets stop earlier than the dense network | 38 | 38 (38 to 38) % earlier | 4 | **holds** |"
    ) in text
    assert "| – | 0 | **undecided**: there is no branch 'reinit': train it with --branches reinit |" in text


def test_scales() -> None:
    logarithm = Interval(log(2), log(1.5), log(4), 3)
    assert EARLIER.interval(logarithm) == pytest.approx((50, 100 / 3, 75, 3))
    assert TIMES.interval(logarithm) == pytest.approx((2, 1.5, 4, 3))
    for scale, shown in ((LINEAR, 0.3), (EARLIER, -10.0), (TIMES, 1.1)):
        assert scale.shown(scale.measured(shown)) == pytest.approx(shown)
