"""Numbers and names in sentences."""


def number_of(count: int, noun: str) -> str:
    """1 level, 2 levels, 1,000 levels."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


BRANCHES = {
    "rewind": "ticket",
    "reinit": "random reinitialisation",
    "random_mask": "random mask",
    "random_mask_reinit": "random mask, reinitialised",
    "one_shot": "one-shot pruning",
    "one_shot_reinit": "one-shot pruning, reinitialised",
    "continue": "continued training",
    "lr_rewind": "learning-rate rewinding",
    "finetune": "fine-tuning",
    "prune_at_init": "pruning at initialisation",
    "reinit_from_ticket": "redrawn from the ticket’s weights",
    "same_sign": "reinitialised with the same signs",
    "shuffle": "shuffled weights",
    **{f"noise_{multiple}": f"noise of {multiple} standard deviations" for multiple in ("0.5", "2", "3")},
    "noise_1": "noise of 1 standard deviation",
}
"""Start rule -> its name in legends and titles. Commands and files have the rule's own."""


def branch_name(branch: str) -> str:
    """How a branch is called where people read of it; a rule not in `BRANCHES` by its own name."""
    return BRANCHES.get(branch, branch)


METHODS = {
    "dense": "PyTorch dense",
    "shrunk": "PyTorch shrunk",
    "csr": "PyTorch CSR",
    "onnx": "ONNX Runtime dense",
    "onnx_shrunk": "ONNX Runtime shrunk",
    "predictor": "lottery predictor",
}
"""Way to compute a ticket's logits, of `lottery.inference` -> its name in tables and legends."""


def method_name(method: str) -> str:
    """How a way to compute logits is called where people read of it; one not in `METHODS` by its own name."""
    return METHODS.get(method, method)
