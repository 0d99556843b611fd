"""Winning tickets of a LightningModule, trained by Lightning's Trainer: python examples/with_lightning.py [FOLDER]

The first form: the Trainer's own loop, as it is. A level that is killed is trained again from its beginning.
"""

import sys

import lightning
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import lottery

digits = load_digits()
images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=2e-3)


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "runs/lightning"
    for level in lottery.tickets(Classifier, path, levels=2, rate=0.5):
        loader = DataLoader(TensorDataset(images[:1400], labels[:1400]), batch_size=50, shuffle=True)
        trainer = lightning.Trainer(
            max_steps=60,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(level.model, loader)
        with torch.no_grad():
            accuracy = (level.model(images[1400:]).argmax(1) == labels[1400:]).float().mean()
        level.record(test_accuracy=accuracy)
        print(f"level {level.number}: {100 * level.density:.1f} % of the weights, {100 * accuracy:.1f} % right")


if __name__ == "__main__":
    main()
