"""Imports point one way, and what must start at once needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import lottery

ORDER = [
    *("errors", "spec", "seeds", "masks", "data", "models", "modules", "criteria", "starts", "history", "engines"),
    *("engines.dense", "engines.vectors", "engines.kernels", "engines.sparse", "engines.reference"),
    *(
        "loop",
        "store",
        "logs",
        "analysis",
        "anatomy",
        "answer",
        "claims",
        "runners",
        "experiment",
        "plots",
        "figures",
        "charts",
        "study",
        "report",
        "reproduce",
        "terminal",
        "notebook",
        "cli",
    ),
]
SOURCE = Path(lottery.__file__).parent


def imported(path: Path) -> set[str]:
    """Modules of lottery that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "lottery":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lottery."):
            base = node.module.removeprefix("lottery.")
            names |= {f"{base}.{a.name}" if f"{base}.{a.name}" in ORDER else base for a in node.names}
        elif isinstance(node, ast.Import):
            names |= {a.name.removeprefix("lottery.") for a in node.names if a.name.startswith("lottery.")}
    return names


def test_every_module_has_its_place() -> None:
    files = {str(p.relative_to(SOURCE).with_suffix("")).replace("/", ".") for p in SOURCE.rglob("*.py")}
    assert {f.removesuffix(".__init__") for f in files} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("name", ORDER)
def test_imports_point_up(name: str) -> None:
    path = SOURCE / (name.replace(".", "/") + ".py")
    path = path if path.exists() else SOURCE / name / "__init__.py"
    allowed = set(ORDER[: ORDER.index(name)])
    if name == "engines":
        allowed |= {"engines.dense", "engines.sparse"}  # the registry imports an engine when it is asked for one
    assert imported(path) <= allowed


@pytest.mark.parametrize("words", ["--help", "list", "run --help", "run quickstart --help", "report --help"])
def test_the_command_line_starts_without_torch(words: str, tmp_path: Path) -> None:
    code = f"import sys; from lottery.cli import main; main({words.split()!r})"
    slow = {"torch", "pandas", "matplotlib", "numba", "plotly", "jinja2"}
    check = f"assert not {slow} & set(sys.modules), sorted(sys.modules)"
    script = f"try:\n  {code}\nexcept SystemExit as end: assert not end.code\n{check}"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)
