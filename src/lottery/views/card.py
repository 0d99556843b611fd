"""A ticket as a card for a model hub, in Markdown: what it is, how it was found, how good it is, how to load it."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isnan
from typing import Any

import numpy as np

from lottery.data import DATASETS, Dataset
from lottery.masks import density
from lottery.models import MODELS
from lottery.runs.store import Run
from lottery.runs.ticket import Ticket
from lottery.spec import OwnLoop, Recipe
from lottery.views.measures import COMPARED, DASHED, EARLY, LAST, Verdict, measure, rules, setting, verdicts
from lottery.words import branch_name, number_of


def text(ticket: Ticket, file: str, run: Run | None = None) -> str:
    """The card.

    Args:
        ticket: to be described.
        file: name of the ticket's own file, which the card says how to load.
        run: the ticket's, for what its replicates say together.
    """
    parts = [
        _head(ticket),
        *_what(ticket),
        *_how(ticket),
        "## Accuracy",
        *_accuracy(ticket, run),
        *_loading(ticket, file),
        *_origin(ticket),
        CITATION,
    ]
    return "\n\n".join(parts) + "\n"


def _head(ticket: Ticket) -> str:
    """What a hub finds it by, in YAML: every text as JSON has it."""
    lists = {"tags": ["lottery-ticket", "pruning", "sparsity", "pytorch"], "datasets": [], "metrics": ["accuracy"]}
    if not isinstance(ticket.spec, OwnLoop):
        lists["datasets"] = [ticket.spec.data.name]
    lines = [line for name, of in lists.items() if of for line in (f"{name}:", *(f"- {json.dumps(x)}" for x in of))]
    return "\n".join(["---", "library_name: lottery", *lines, "---"])


def _what(ticket: Ticket) -> Iterator[str]:
    place, total = ticket.row.place, ticket.network.weights
    kept = sum(int(mask.sum()) for mask in ticket.masks.values())
    yield f"# A lottery ticket: {ticket.spec.network} with {_share(ticket.row.density)} of its weights"
    what = (
        "A lottery ticket is a sparse subnetwork with the weights that it trains from (Frankle & Carbin, ICLR 2019). "
        if place.level
        else "This is level 0, the dense network that lottery tickets are found in (Frankle & Carbin, ICLR 2019). "
    )
    yield (
        f"{what}{kept:,} of {total:,} prunable weights are left, the others are exactly 0. The file has its masks"
        f"{', the weights that it starts from' if ticket.start else ''}"
        f"{', and those that it was trained to' if ticket.trained else ''}."
    )
    masks = {name: ticket.masks[name] for name in ticket.network.prunable}
    rows = [
        f"| `{name}` | {' × '.join(map(str, mask.shape))} | {int(mask.sum()):,} | {_share(density({name: mask}))} |"
        for name, mask in masks.items()
    ]
    yield "\n".join(["| tensor | shape | kept | weights left |", "|---|---|---|---|", *rows])


def _how(ticket: Ticket) -> Iterator[str]:
    spec, place = ticket.spec, ticket.row.place
    yield "## How it was found"
    origin = f"iteration {spec.rewound:,}" if spec.rewound else "the beginning"
    rule = {
        "rewind": f"the dense network’s at {origin}, rewound",
        "continue": "those of the level before, never rewound",
    }.get(place.branch, f"of the start rule `{place.branch}` ({branch_name(place.branch)})")
    facts = {
        "Network": f"`{ticket.spec.network}`, {ticket.network.weights:,} prunable weights",
        "Place": f"level {place.level} of `{place.branch}`, replicate {place.replicate}"
        + (f", draw {place.draw}" if place.draw else ""),
        "Weights that it starts from": rule if place.level else "its initial ones",
        "Seed": f"{spec.seed}, with random streams of each replicate’s own",
    }
    if isinstance(spec, OwnLoop):
        facts["Training"] = spec.title
    else:
        often = ("optimizer", "learning_rate", "batch_size", "iterations")
        recipe = {n: v for n, v in asdict(spec.recipe).items() if n in often or v != getattr(Recipe, n)}
        facts["Data"] = f"`{spec.data.name}`, {spec.data.validation:,} of its training images held out for validation"
        facts["Inputs"] = _inputs(ticket)
        facts["Training"] = ", ".join(setting(f"recipe.{name}", value) for name, value in recipe.items())
    if spec.pruning and place.branch not in (*DASHED, "one_shot", "prune_at_init"):
        method = ", ".join(setting(f"pruning.{name}", v) for name, v in asdict(spec.pruning).items() if v)
        facts["Pruning"] = f"{number_of(place.level, 'time')}: {method}"
    yield "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    if not isinstance(spec, OwnLoop):
        from lottery.views.report.document import command  # with plotly, a second

        yield f"```sh\n{command(spec, ticket.source['engine'], ticket.source['device'])}\n```"


def _inputs(ticket: Ticket) -> str:
    """What its network takes, and how that is made of pixels."""
    spec = ticket.spec
    dataset = DATASETS.get(spec.data.name)
    scaling = {"unit": "x / 255", "l2": "x / ‖x‖₂ of each image"}.get(spec.data.scaling, f"`{spec.data.scaling}`")
    if spec.data.scaling == "standardize" and isinstance(dataset, Dataset):
        scaling = f"(x / 255 − {dataset.mean}) / {dataset.std}"
        scaling += " by channel" if np.size(dataset.mean) > 1 else ""
    shape = ", ".join(map(str, ("n", *ticket.network.inputs)))
    return f"float32 [{shape}], pixels x from 0 to 255 as {scaling}"


def _accuracy(ticket: Ticket, run: Run | None) -> Iterator[str]:
    """What `analysis` says of its level; of one replicate no interval."""
    values = {EARLY: ticket.row.test_accuracy_early_stop, LAST: ticket.row.test_accuracy}
    measured = {column: value for column, value in values.items() if value is not None}
    if ticket.row.recorded:
        yield "Recorded: " + ", ".join(f"`{name}` {value}" for name, value in ticket.row.recorded.items()) + "."
    if not measured:
        yield "No test accuracy was recorded."
        return
    if run is None:
        yield "\n".join(f"- {measure(column).name}: {measure(column).words(v)}" for column, v in measured.items())
        yield (
            "That is this ticket alone, one replicate; means with intervals are in a card of its run, "
            f"`{ticket.source['run']}`."
        )
        return
    yield from _among_replicates(ticket, run.now(), measured)


def _among_replicates(ticket: Ticket, run: Run, measured: Mapping[str, float]) -> Iterator[str]:
    from lottery.analysis.answer import answer_of, awaited_of, margin_of
    from lottery.analysis.statistics import summary

    place, levels, replicates = ticket.row.place, run.levels(), 0
    lines = ["| | this ticket | mean | its 95 % interval | n | dense network, mean |", "|---|---|---|---|---|---|"]
    for column, value in measured.items():
        found, shown = summary(levels, column), measure(column)
        of_branch = found[found["branch"] == place.branch].set_index("level")
        row: Any = of_branch.loc[place.level]
        interval = "–" if isnan(row["low"]) else f"{shown.text(row['low'])} to {shown.words(row['high'])}"
        replicates = int(row["n"])
        dense = of_branch["mean"][0]
        cells = [shown.name, shown.words(value), shown.words(row["mean"]), interval, str(replicates)]
        lines.append(f"| {' | '.join([*cells, '–' if isnan(dense) else shown.words(dense)])} |")
    yield "\n".join(lines)
    yield f"Means are over {number_of(replicates, 'replicate')}."
    if replicates == 1:
        yield "One replicate has no interval, and cannot tell a winning ticket from chance."
    if place.level:
        margin = margin_of(run, levels)
        judged = verdicts(levels, margin.points, place.branch, awaited_of(run))
        (verdict,) = (row for row in judged.rows if row.level == place.level)
        yield "\n".join(_verdict(verdict, judged.name))
        yield " ".join(rules({judged.name}, margin))
    yield f"The run as a whole: {answer_of(run).headline}"


def _verdict(verdict: Verdict, name: str) -> Iterator[str]:
    for condition, compared in verdict.compared.items():
        alone = f" (95 % interval {compared.interval}, of this level alone)" if compared.interval else ""
        together = f", {compared.bound} for all levels together" if compared.bound else ""
        yield f"- {COMPARED[condition].axis}: {compared.mean}{alone}{together}"
    shown = "shown" if verdict.shown else "not shown"
    alone = f"{verdict.verdict}, judged alone; {shown} for all levels together"
    yield f"- {name} ticket: {alone if verdict.verdict else 'too early to say, its run is not finished'}"


def _loading(ticket: Ticket, file: str) -> Iterator[str]:
    """Code that runs beside that file, which `lottery export` writes."""
    own = isinstance(ticket.spec, OwnLoop) or ticket.spec.model.name not in MODELS
    shape = ", ".join(map(str, (1, *ticket.network.inputs)))
    lines = [
        "import lottery",
        "import torch",
        "",
        f'ticket = lottery.load_ticket("{file}")  # checksums are verified, no code is run',
        "module = ticket.module(Net)  # Net: your own code of the network, without arguments"
        if own
        else "module = ticket.module()  # a torch.nn.Module in evaluation mode; pruned weights are 0",
        *([] if own else ["with torch.no_grad():", f"    print(module(torch.zeros({shape})))  # logits"]),
        'ticket.masks, ticket.weights("start")  # what to train again: lottery.hold(module, ticket.masks)'
        if ticket.start
        else "ticket.masks  # True = kept",
    ]
    place = ticket.row.place
    words = ["lottery", "export", ticket.source["run"], "--level", str(place.level)]
    words += ["--replicate", str(place.replicate)] if place.replicate else []
    words += ["--branch", place.branch] if place.branch != ticket.spec.start else []
    words += ["--draw", str(place.draw)] if place.draw else []
    yield "## How to load it"
    yield f"With `lottery` installed. The file is what `{shlex.join(words)}` writes."
    yield "```python\n{}\n```".format("\n".join(lines))
    yield "## What it is not"
    yield (
        "It is an artefact of research on sparse training: not tested for fairness, robustness or data other than its "
        "own. Its zeros save time only where the software skips them."
    )


def _origin(ticket: Ticket) -> Iterator[str]:
    source = ticket.source
    facts = {
        "Run": f"`{source['run']}`, settings `{source['identity'][:16]}`",
        "Begun": source.get("started", "?"),
        "Engine": f"{source['engine']} on {source['device']}" if source["engine"] else "a training loop of one’s own",
        "Processor": source.get("processor") or "?",
        "Versions": ", ".join(f"{name} {number}" for name, number in source.get("versions", {}).items()) or "?",
    }
    yield "## Where it comes from"
    yield "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    sums = {f"level {ticket.row.place.level}, `{name}`": value for name, value in source["sha256"].items()}
    sums |= {f"data, {name}": value for name, value in source["data"].items()}
    yield "\n".join(["| SHA-256 of | |", "|---|---|", *(f"| {name} | `{value}` |" for name, value in sums.items())])


CITATION = """\
## Citation

```bibtex
@inproceedings{frankle2019lottery,
  title = {The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks},
  author = {Frankle, Jonathan and Carbin, Michael},
  booktitle = {International Conference on Learning Representations},
  year = {2019},
  url = {https://arxiv.org/abs/1803.03635}
}
```"""


def _share(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"
