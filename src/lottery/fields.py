"""What the source says of a dataclass's fields, in the text below each: Python forgets it, `help` should not."""

import ast
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path


@cache
def _texts(module: str) -> dict[tuple[str, str], str]:
    """(class, field) -> text, of all classes of a module; nothing where its source cannot be had."""
    try:
        tree = ast.parse(Path(sys.modules[module].__file__ or "").read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return {}
    found = {}
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, below in pairwise(kind.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[kind.name, name] = " ".join(text.split())
    return found


def texts(kind: type) -> dict[str, str]:
    """Field -> what the source says below it, in one line, or what its class says of itself; of fields with either.
    What a class says goes before what those say that it is made from."""
    found = {}
    for field in fields(kind):
        said = [_texts(of.__module__).get((of.__name__, field.name)) for of in kind.__mro__ if is_dataclass(of)]
        doc = field.default_factory.__doc__ if is_dataclass(field.default_factory) else ""
        found[field.name] = next(filter(None, said), "") or (doc or "").partition("\n")[0]
    return {name: text for name, text in found.items() if text}


def describe(*kinds: type) -> None:
    """Adds to the docstring of each dataclass what its source says of the fields, so that `help` shows it."""
    for kind in kinds:
        lines = [f"    {name}: {text}" for name, text in texts(kind).items()]
        if lines:
            kind.__doc__ = "\n".join([f"{kind.__doc__}\n", "Attributes:", *lines, ""])
