"""Winning tickets with a DataLoader of two workers, whose order goes on too: python examples/data_loader.py [FOLDER]"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lottery

digits = load_digits()
images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


class Batches:
    """Batches without end, an order for each epoch; how many it has given is its state."""

    def __init__(self, data: Dataset[Any], count: int, size: int):
        self.data, self.count, self.size, self.given = data, count, size, 0
        self.seed = torch.initial_seed()  # which tickets has set for this level

    def __iter__(self) -> Iterator[list[Tensor]]:
        while True:
            epoch, given = divmod(self.given, self.count // self.size)
            order = torch.randperm(self.count, generator=torch.Generator().manual_seed((self.seed + epoch) % 2**63))
            left = order[: self.count // self.size * self.size].view(-1, self.size)[given:].tolist()
            for batch in DataLoader(self.data, batch_sampler=left, num_workers=2, generator=torch.Generator()):
                self.given += 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.given = state["given"]


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Dropout(0.1), nn.Linear(100, 10))


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "runs/loader"
    for level in lottery.tickets(make, path, levels=2, rate=0.5, rewind_to=20, optimizer_state="saved"):
        optimizer = torch.optim.SGD(level.model.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
        batches = Batches(TensorDataset(images[:1400], labels[:1400]), 1400, 50)
        for i, (x, y) in zip(level.steps(100, optimizer, schedule, batches, save_every=30), batches):  # noqa: B905  the loader never ends
            loss = nn.functional.cross_entropy(level.model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            level.log(i + 1, train_loss=loss)
        level.model.eval()
        accuracy = (level.model(images[1400:]).argmax(1) == labels[1400:]).float().mean()
        level.record(test_accuracy=accuracy)
        print(f"level {level.number}: {100 * level.density:.1f} % of the weights, {100 * accuracy:.1f} % right")


if __name__ == "__main__":
    main()
