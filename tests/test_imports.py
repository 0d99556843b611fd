"""Imports point one way, from folder to folder, and what must start at once needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lottery

ORDER = [
    *("errors", "fields", "words", "files", "seeds", "masks", "spec", "criteria", "starts", "loop"),
    *("data", "models", "engines", "runs", "analysis", "views", "studies"),
    *("export", "inference", "notebook", "api", "completion", "cli", "__main__"),
]
"""Folders, and the modules beside them, which are rooms of their own: a file imports from its own folder and from what
stands before it."""

EXCEPT = {
    ("runs/store.py", "Run.__repr__", "analysis"),
    ("runs/store.py", "Run._repr_html_", "views"),
    ("runs/sweep.py", "Sweep.table", "analysis"),
}
"""File, method, what is imported inside it: how a run shows itself is for those that stand above it to say."""

LIBRARIES = {  # where alone a library is imported
    "tyro": {"cli.py"},
    "matplotlib": {"views/plots.py"},
    "plotly": {"views/report/"},
    "jinja2": {"views/report/"},
    "numba": {"engines/sparse/doors.py"},
    "llvmlite": {"engines/sparse/doors.py"},
    "onnx": {"export.py", "inference.py"},
    "onnxruntime": {"export.py", "inference.py"},
}

SOURCE = Path(lottery.__file__).parent
FILES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py"))


def imports(source: str) -> Iterator[tuple[str, str]]:
    """(where, module) of each import, wherever in the source: "Class.method" or "", and the module's full name; of
    `from a import b`, a.b, because b may be a module too. TYPE_CHECKING's are imports too: they show who knows whom."""

    def visit(node: ast.AST, where: str) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide where they lead"
            yield from ((where, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((where, alias.name) for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            where = f"{where}.{node.name}".lstrip(".")
        for child in ast.iter_child_nodes(node):
            yield from visit(child, where)

    return visit(ast.parse(source), "")


def room(file: str) -> str:
    """The folder that a file is in, or its own name."""
    return file.partition("/")[0].removesuffix(".py")


def against_the_order(file: str, source: str) -> set[tuple[str, str, str]]:
    """(file, where, room) of what it imports that doesn't stand before it."""
    here = room(file)
    found = set()
    for where, module in imports(source):
        package, _, rest = module.partition(".")
        there = rest.partition(".")[0]
        if package == "lottery" and there != here and there not in ORDER[: ORDER.index(here)]:
            found.add((file, where, there))
    return found


def read(file: str) -> str:
    return (SOURCE / file).read_text(encoding="utf-8")


def test_every_file_has_its_place_and_there_is_no_third_level_of_folders() -> None:
    assert {room(file) for file in FILES} - {"__init__"} == set(ORDER)
    inner = {file.rpartition("/")[0] for file in FILES if file.count("/") > 1}
    assert inner <= {"engines/sparse", "views/report"}
    for file in FILES:
        if "/" in file:
            assert f"{file.rpartition('/')[0]}/__init__.py" in FILES
    assert not {folder for folder in ORDER if (SOURCE / folder).is_dir() and (SOURCE / f"{folder}.py").exists()}


@pytest.mark.parametrize("file", [file for file in FILES if file != "__init__.py"])
def test_imports_point_up(file: str) -> None:
    assert against_the_order(file, read(file)) == {exception for exception in EXCEPT if exception[0] == file}


@pytest.mark.parametrize(
    ("file", "source", "there"),
    [
        ("masks.py", "from lottery.spec import Spec", "spec"),
        ("data/idx.py", "import lottery.models.mlp", "models"),
        ("models/mlp.py", "from lottery import engines", "engines"),
        ("engines/sparse/csr.py", "def f():\n from lottery.runs.rows import Row", "runs"),
        ("engines/__init__.py", "if x:\n from lottery.runs import store", "runs"),
        ("runs/store.py", "from lottery.analysis.frames import curve", "analysis"),
        ("analysis/frames.py", "from lottery.views import plots", "views"),
        ("views/report/page.py", "from lottery.studies import claims", "studies"),
        ("studies/claims.py", "from lottery.api import run", "api"),
        ("api.py", "from lottery import cli", "cli"),
        ("runs/rows.py", "from lottery import Run", "Run"),  # the public names are for users
    ],
)
def test_an_import_the_wrong_way_round_is_seen(file: str, source: str, there: str) -> None:
    ((_, _, found),) = against_the_order(file, source)
    assert found == there
    assert not against_the_order("cli.py", "from lottery.runs import store")
    assert not against_the_order("engines/reference.py", "from lottery.engines import history")


def modules(folder: str) -> dict[str, set[str]]:
    """Module -> those of the same folder that it imports when it is loaded: not those that a function imports when it
    is called."""
    names = {f"lottery.{file.removesuffix('.py').replace('/', '.')}": file for file in FILES if room(file) == folder}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        found = {module for where, module in imports(read(file)) if not where}
        graph[name] = {module if module in names else module.rpartition(".")[0] for module in found} & set(names)
    return graph


@pytest.mark.parametrize("folder", [name for name in ORDER if (SOURCE / name).is_dir()])
def test_no_folder_imports_in_circles(folder: str) -> None:
    """Nor with the folder's own `__init__`: files import its contract, or it imports the files."""
    graph = modules(folder)
    assert len(graph) > 1
    TopologicalSorter(graph).prepare()  # raises CycleError, which names it


def test_engines_are_imported_by_name_when_they_are_asked_for() -> None:
    from lottery.engines import ENGINES

    named = {module.removeprefix("lottery.engines.") for module in ENGINES.values()}
    assert named == {"sparse", "torch"}
    found = [module for _, module in imports(read("engines/__init__.py"))]
    assert not [module for module in found if module.startswith(tuple(ENGINES.values()))]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_one_place(library: str) -> None:
    """And so is what would have to change with it. spec.py, above all, knows no command line."""
    places = tuple(LIBRARIES[library])
    users = [file for file in FILES for _, module in imports(read(file)) if module.partition(".")[0] == library]
    assert users
    assert not [file for file in users if not file.startswith(places)]


@pytest.mark.parametrize("file", ["spec.py", "masks.py", "seeds.py", "criteria.py", "starts.py", "loop.py"])
def test_the_method_knows_no_command_line_and_no_framework(file: str) -> None:
    libraries = {module.partition(".")[0] for _, module in imports(read(file))} - set(sys.stdlib_module_names)
    assert libraries <= {"lottery", "numpy", "tomli_w"}


@pytest.mark.parametrize("words", ["--help", "list", "run --help", "run quickstart --help", "report --help"])
def test_the_command_line_starts_without_torch(words: str, tmp_path: Path) -> None:
    code = f"import sys; from lottery.cli import main; main({words.split()!r})"
    slow = {"torch", "pandas", "matplotlib", "numba", "plotly", "jinja2"}
    check = f"assert not {slow} & set(sys.modules), sorted(sys.modules)"
    script = f"try:\n  {code}\nexcept SystemExit as end: assert not end.code\n{check}"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, capture_output=True)
