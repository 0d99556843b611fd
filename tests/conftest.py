"""Shared by all tests: the real MNIST, and small real experiments on the embedded digits."""

import os
from pathlib import Path

import pytest

from lottery.spec import Data, Model, Pruning, Recipe, Spec

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder that holds `mnist/`: $LOTTERY_DATA, or shared/data beside the checkout."""
    for folder in (os.environ.get("LOTTERY_DATA"), ROOT.parent / "shared" / "data"):
        if folder and (Path(folder) / "mnist").is_dir():
            return Path(folder).resolve()
    pytest.skip("the real MNIST is not here: set LOTTERY_DATA to the folder that holds mnist/")


@pytest.fixture
def tiny() -> Spec:
    """A whole experiment on real digits in a second or two."""
    return Spec(
        data=Data(name="mnist-5k", validation=500),
        model=Model(name="mlp", hidden=(20, 10)),
        recipe=Recipe(iterations=30, evaluate_every=10),
        pruning=Pruning(rate=0.5, layer_rates={"fc3.weight": 0.25}),
        levels=2,
    )
