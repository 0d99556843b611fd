"""The sentence that a report begins with: right numbers, and never more than the evidence carries."""

import numpy as np
import pandas as pd
import pytest

from lottery.analysis.verdicts import answer

Pair = tuple[int, float]
"""Early-stop iteration, and test accuracy there in percent."""


def frame(trunk: list[list[Pair]], last: int = 1000, **branches: list[list[Pair]]) -> pd.DataFrame:
    """Levels of a run: [replicate][level] of the trunk from level 0, of branches from level 1."""
    rows = [
        (branch, replicate, level, 0.5**level, stop, accuracy / 100)
        for branch, replicates in {"rewind": trunk, **branches}.items()
        for replicate, levels in enumerate(replicates)
        for level, (stop, accuracy) in enumerate(levels, start=branch != "rewind")
    ]
    names = ["branch", "replicate", "level", "density", "early_stop_iteration", "test_accuracy_early_stop"]
    found = pd.DataFrame(rows, columns=names).astype({"early_stop_iteration": float})
    return found.assign(draw=0, iterations=last, test_accuracy=found["test_accuracy_early_stop"], train_accuracy=1.0)


DENSE = [(500, 97.0), (520, 97.1), (480, 96.9)]


def test_a_winning_ticket() -> None:
    """The sparsest level that wins, though a sparser one does not; where the control falls behind."""
    better = [(400, 97.5), (410, 97.6), (390, 97.4)]
    worse = [(700, 90.0), (710, 90.2), (690, 89.8)]
    levels = frame(
        [[d, b, b, w] for d, b, w in zip(DENSE, better, worse, strict=True)],
        reinit=[[(500, 97.0), (600, 96.0 + r / 10), (700, 80.0 + r / 10)] for r in range(3)],
    )
    found = answer(levels)
    assert found.headline == (
        "A winning ticket with 25 % of the weights: 97.50 % test accuracy against the dense network’s 97.00 %, "
        "reached 20 % sooner."
    )
    assert found.level == 2
    assert found.details[0].startswith("That is +0.50 points of accuracy (95 % interval +0.50 to +0.50) and −100 iter")
    assert "(95 % interval −125 to −75)" in found.details[0]  # 100 ± 4.30 × 10 / √3
    assert "Of 3 pruned levels: 2 winning tickets, 1 not, each judged alone at 95 % confidence." in found.details
    assert any(d.startswith("Tickets are less accurate than the dense network from 12.5 % of") for d in found.details)
    assert any(
        d.startswith("Branch reinit is less accurate than the dense network from 25 % of") for d in found.details
    )


def test_no_winning_ticket() -> None:
    worse = [[d, (700, 90.0 + r / 10), (800, 80.0 + r / 10)] for r, d in enumerate(DENSE)]
    found = answer(frame(worse))
    assert found.headline.startswith("No winning ticket: at every level tickets are less accurate")
    assert "50 % of the weights: 90.10 %" in found.headline
    assert "reached 40 % later" in found.headline


def test_undecided_is_not_a_winner() -> None:
    levels = frame([[d, (400 + 200 * r, 97.0 + (-1) ** r)] for r, d in enumerate(DENSE)])
    found = answer(levels)
    assert found.headline.startswith("No ticket is shown to win with 3 replicates. With 50 % of the weights: 97.33 %")
    assert "1 undecided" in " ".join(found.details)


def test_one_replicate_decides_nothing() -> None:
    found = answer(frame([[(500, 97.0), (300, 99.0), (600, 50.0)]]))
    assert found.headline.startswith("One replicate cannot tell a winning ticket from chance. With 50 % of the weights")
    assert "99.00 %" in found.headline
    assert "reached 40 % sooner" in found.headline
    assert "--replicates" in found.details[0]
    assert "interval" not in found.headline


def test_the_dense_network_alone_and_nothing_at_all() -> None:
    found = answer(frame([[d] for d in DENSE]))
    assert found.headline == (
        "The dense network reaches 97.00 % test accuracy (96.90 to 97.10 % in 3 replicates); there is no ticket to "
        "compare it with yet."
    )
    levels = frame([[d, d] for d in DENSE])
    assert answer(levels[levels["level"] > 0]).headline.startswith("No dense network is finished yet")
    assert answer(pd.DataFrame()).headline.startswith("No dense network is finished yet")


def test_without_validation_there_is_no_verdict() -> None:
    levels = frame([[d, (1, 97.5 + r / 10), (1, 90.0)] for r, d in enumerate(DENSE)])
    levels[["early_stop_iteration", "test_accuracy_early_stop"]] = np.nan
    found = answer(levels)
    assert "with 50 % of the weights, reach 97.60 % test accuracy, the dense network 97.00 %" in found.headline
    assert "no verdict" in found.details[0]


@pytest.mark.parametrize(("last", "said"), [(500, True), (1000, False)])
def test_a_network_that_never_stopped_is_said_to(last: int, said: bool) -> None:
    """The dense networks' lowest loss is at their last evaluation."""
    found = answer(frame([[(500, 97.0), (400, 98.0 + r / 10)] for r in range(3)], last=last))
    assert any("has not been seen to stop" in detail for detail in found.details) == said


def test_the_dense_network_is_the_one_that_has_not_stopped() -> None:
    """Not the tickets, nor a branch; and it is counted by replicate."""
    late, early = [(1000, 97.0), (400, 98.0)], [(400, 97.0), (1000, 98.0)]
    found = answer(frame([early] * 3, reinit=[[(1000, 96.0)]] * 3))
    assert not any("seen to stop" in detail for detail in found.details)
    found = answer(frame([late, early, early]))
    assert any(d.startswith("In 1 of 3 replicates the dense network’s validation loss was low") for d in found.details)
    assert answer(frame([late])).details[-1].startswith("In 1 of 1 replicate the dense network’s validation loss")


@pytest.mark.parametrize("replicates", [1, 3])
def test_a_ticket_that_stops_later_is_not_promising(replicates: int) -> None:
    """Of four that nothing is proven of: early and accurate, early or accurate alone, neither; from dense to sparse."""
    means = [(450, 97.1), (550, 97.5), (450, 96.9), (550, 96.5)]
    apart = [(0, 0.0), (-400, -1.0), (400, 1.0)] if replicates == 3 else [(0, 0.0)]
    found = answer(frame([[(500, 97.0), *((stop + s, points + p) for stop, points in means)] for s, p in apart]))
    assert found.level == 1
    assert "50 % of the weights: 97.10 %" in found.headline
    assert found.headline.endswith("reached 10 % sooner.")


def test_what_recovers_is_not_behind_from_there_on_down() -> None:
    """Surely worse, better, surely worse twice: behind from the third level on. Without the last two: not at all."""
    paths = [[(500, p + r / 10) for p in (95.0, 99.0, 94.0, 93.0)] for r in range(3)]
    trunk = [[d, *path] for d, path in zip(DENSE, paths, strict=True)]
    details = answer(frame(trunk, reinit=paths)).details
    for name in ("Tickets are", "Branch reinit is"):
        (said,) = (detail for detail in details if detail.startswith(name))
        assert said.startswith(f"{name} less accurate than the dense network from 12.5 % of the weights down (−2.90 p")
    details = answer(frame([path[:3] for path in trunk], reinit=[path[:2] for path in paths])).details
    assert not any(detail.startswith("Tickets are") for detail in details)
    assert "Branch reinit is not shown to be less accurate than the dense network at its sparsest level." in details


def test_an_unfinished_run_pairs_what_is_there() -> None:
    """A replicate that has not come so far counts neither for the ticket nor for its dense network."""
    found = answer(frame([[(500, 97.0), (400, 97.5)], [(500, 97.0), (400, 97.7)], [(900, 50.0)]]))
    assert "97.60 % test accuracy against the dense network’s 97.00 %, reached 20 % sooner" in found.headline
    assert "means of 2 replicates" in found.details[0]


def test_another_trunk() -> None:
    """The trunk is the branch that has level 0, whatever its name; the branch called rewind is one like any other."""
    tickets = [[d, (400, 98.0 + r / 10)] for r, d in enumerate(DENSE)]
    levels = frame(tickets, control=[[(500, 80.0 + r / 10)] for r in range(3)])
    levels = levels.replace({"branch": {"rewind": "continue", "control": "rewind"}})
    found = answer(levels)
    assert found.headline.startswith("A winning ticket with 50 % of the weights: 98.10 %")
    assert any(detail.startswith("Branch rewind is less accurate") for detail in found.details)
    assert not any("Branch continue" in detail for detail in found.details)
