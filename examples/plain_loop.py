"""Winning tickets in a plain training loop: python examples/plain_loop.py [FOLDER]"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import lottery

digits = load_digits()
images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
train, test = slice(0, 1400), slice(1400, None)


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))


for level in lottery.tickets(make, sys.argv[1] if len(sys.argv) > 1 else "runs/plain", levels=3, rate=0.5):
    optimizer = torch.optim.Adam(level.model.parameters(), lr=2e-3)
    for _ in level.steps(300, optimizer, save_every=50):
        batch = torch.randint(0, 1400, (60,))
        loss = nn.functional.cross_entropy(level.model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    accuracy = (level.model(images[test]).argmax(1) == labels[test]).float().mean()
    level.record(test_accuracy=accuracy)
    print(f"level {level.number}: {100 * level.density:.1f} % of the weights, {100 * accuracy:.1f} % right")
