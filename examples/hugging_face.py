"""Winning tickets of a transformer, trained by Hugging Face's Trainer: python examples/hugging_face.py [FOLDER]

The first form: the Trainer's own loop, as it is. A level that is killed is trained again from its beginning.
"""

import sys
import tempfile

import numpy as np
import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import lottery

rng = np.random.default_rng(0)
tokens = rng.integers(1, 20, (400, 8))
examples = [
    {"input_ids": torch.from_numpy(row), "labels": int(row[0] < 10)}  # of which half the first token is
    for row in tokens
]


def make() -> nn.Module:
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=2, **size))


def accuracy(found: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    logits, labels = found
    return {"accuracy": float((logits.argmax(1) == labels).mean())}


def main() -> None:
    path = sys.argv[1] if len(sys.argv) > 1 else "runs/transformer"
    for level in lottery.tickets(make, path, levels=2, rate=0.5):
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            max_steps=40,
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            seed=torch.initial_seed() % 2**32,  # the Trainer seeds again: by the level's own
            report_to=[],
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(level.model, arguments, train_dataset=examples[:300], compute_metrics=accuracy)
        trainer.train()
        found = trainer.evaluate(examples[300:])
        level.record(test_accuracy=found["eval_accuracy"])
        print(f"level {level.number}: {100 * level.density:.1f} % of the weights, {found['eval_accuracy']:.2f} right")


if __name__ == "__main__":
    main()
