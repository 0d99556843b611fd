"""Code of one's own: Python files that fill the registries, the same bytes in every process of a run.

    <run>/code/<file>      what the run was begun with: files that `use` names, and what they import from beside them

The files are read once. What was read is what a run is bound to, what is copied, and what is imported: no byte code
that is older, no file that was saved in between. Workers import the copy. To show a run, none of it is imported.
"""

import ast
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path, PurePosixPath
from typing import Any

from lottery.criteria import CRITERIA
from lottery.data import DATASETS, SCALINGS, Dataset
from lottery.errors import LotteryError, own_code, shown
from lottery.files import read_bytes
from lottery.models import INITS, MODELS
from lottery.runs import files, runners
from lottery.runs.store import CODE, RECORD, Run
from lottery.spec import Spec
from lottery.starts import STARTS, Rule

FILE, MOST = 1 << 20, 1_000
"""Most bytes of a file, and most files."""

REGISTRIES: dict[str, dict[str, Any]] = {
    "data.name": DATASETS,
    "data.scaling": SCALINGS,
    "model.name": MODELS,
    "model.init": INITS,
    "pruning.criterion": CRITERIA,
    "start": STARTS,
}
"""Setting -> what it chooses from."""

PACKAGE = {setting: dict(registry) for setting, registry in REGISTRIES.items()}
"""What the package itself has: nobody replaces that, or a name would mean two things."""


@dataclass(frozen=True)
class Code:
    """Files as they were when they were read."""

    entries: tuple[str, ...] = ()
    """Those that `use` names, in its order."""
    sources: Mapping[str, bytes] = field(default_factory=dict)
    """File, by its name in the run's folder of code -> what is in it."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """File -> where it is, and what it has for `__file__`: data beside it is found also from the copy."""

    @property
    def sums(self) -> dict[str, str]:
        """File -> SHA-256."""
        return {name: hashlib.sha256(source).hexdigest() for name, source in sorted(self.sources.items())}

    @property
    def copies(self) -> tuple[str, ...]:
        """What `use` is in the run's own spec, relative to its folder."""
        return tuple(f"{CODE}/{entry}" for entry in self.entries)

    def check_same(self, path: Path) -> None:
        """Raises LotteryError where the run at `path`, if there is one, was begun with other code."""
        if not files.there(path / RECORD):
            return
        before, now = Run(path).info.get("code", {}), self.sums
        begun = f"{path} was begun with"
        if before and not now:
            there = ", ".join(str(path / name) for name in Run(path).spec.use)
            raise LotteryError(f"{begun} code, now in {there}: use that too, or another --runs-dir")
        for name in sorted(before | now):
            remedy = f"undo that (the former code is in {path / CODE}), or use another --runs-dir"
            if name not in before:
                raise LotteryError(f"{begun}out {self.origins[name]}: leave it out, or use another --runs-dir")
            if name not in now:
                raise LotteryError(f"{begun} {CODE}/{name}, which is not used any more: {remedy}")
            if before[name] != now[name]:
                raise LotteryError(f"{begun} other code: {self.origins[name]} has changed: {remedy}")

    def keep(self, path: Path) -> None:
        """Copies the files into the run at `path`, whose lock the caller holds. Raises LotteryError as `check_same`."""
        self.check_same(path)
        for name, source in self.sources.items():
            (path / CODE / name).parent.mkdir(parents=True, exist_ok=True)
            files.write(path / CODE / name, source)


def read(use: Sequence[str | Path]) -> Code:
    """The files that `use` names, and what they import from their own folders, packages whole.

    Raises:
        LotteryError: for what is no Python file, one that has the name of a module that Python has already, two of one
            name, or too many.
    """
    entries, sources, origins = [], dict[str, bytes](), dict[str, str]()
    for given in use:
        what, folder, entry = f"use = {shown(str(given))}", Path(os.path.abspath(given)).parent, os.path.basename(given)
        if not re.fullmatch(r"[^.]+\.py", entry):
            raise LotteryError(f"{what}: must be a Python file, such as nets.py, with no other dot in its name")
        entries.append(entry)
        pending = [entry]
        while pending:
            name = pending.pop()
            origin = str(folder / name)
            if origins.get(name) == origin:
                continue
            try:
                source = read_bytes(folder / name, FILE)
            except OSError as error:
                raise LotteryError(f"{what}: cannot read {origin}: {error.strerror}") from None
            if sources.setdefault(name, source) != source:
                raise LotteryError(f"{what}: {origins[name]} and {origin} have one name: rename one of them")
            origins[name] = origin
            if len(sources) > MOST:
                raise LotteryError(f"{what}: imports over {MOST:,} files from {folder}: move it to a folder of its own")
            with own_code(what):
                tree = ast.parse(source, origin)
            for module in sorted({*_imported(tree), *([entry.removesuffix(".py")] if name == entry else ())}):
                pending += _beside(what, folder, module)
    return Code(tuple(dict.fromkeys(entries)), sources, origins)


def of_run(run: Run) -> Code:
    """The copy that a run has. Raises LotteryError, naming the file, for one that is damaged."""
    origins = run.info["sessions"][-1].get("use", {})
    sources = {name: run.source(name) for name in run.info.get("code", {})}
    copies = {name: str(run.path / CODE / name) for name in sources}
    return Code(tuple(PurePosixPath(name).name for name in run.spec.use), sources, copies | origins)


def _imported(tree: ast.AST) -> Iterator[str]:
    """The outermost packages that a file imports, also inside functions; not what a package has within itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def _beside(what: str, folder: Path, module: str) -> list[str]:
    """The files in `folder` that are that module, by their names in it; none where it is not there.

    Raises LotteryError where Python has another one of that name: which of the two is meant, it can't say.
    """
    package, file = folder / module, folder / f"{module}.py"
    begin = package / "__init__.py"
    if module == "lottery" or not (file.is_file() or package.is_dir()):
        return []
    first = begin if begin.is_file() else file
    if (other := _installed(module)) and not _same(other, first):
        if not first.is_file():
            return []  # a folder of other things
        raise LotteryError(f"{what}: Python has another module {module}, {other}: rename {first}")
    if first == file and file.is_file():
        return [file.name]
    found = (Path(at, name) for at, _, names in os.walk(package) for name in names if name.endswith(".py"))
    return sorted(path.relative_to(folder).as_posix() for path in found)


def _installed(module: str) -> str | None:
    """Where Python finds a module of that name without us."""
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):  # ValueError: one that was made by hand
        return None
    return None if spec is None or isinstance(spec.loader, _Importer) else spec.origin


def _same(origin: str, path: Path) -> bool:
    """Whether that is the file, or as good as it: its original, or its copy."""
    try:
        return Path(origin).samefile(path) or read_bytes(Path(origin), FILE) == read_bytes(path, FILE)
    except OSError:
        return False


class _Importer(MetaPathFinder, SourceLoader):  # type: ignore[misc]  # the stubs' bases don't fit each other
    """Imports from what was read."""

    def __init__(self, code: Code):
        self.code = code
        self.at = {code.origins[name]: source for name, source in code.sources.items()}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name := self.file(fullname):
            inside = [os.path.dirname(self.code.origins[name])] if name.endswith("/__init__.py") else None
            origin = self.code.origins[name]
            return spec_from_file_location(fullname, origin, loader=self, submodule_search_locations=inside)
        if any(name.startswith(fullname.replace(".", "/") + "/") for name in self.code.sources):
            return ModuleSpec(fullname, None, is_package=True)
        return None

    def file(self, fullname: str) -> str | None:
        """The file that is that module."""
        stem = fullname.replace(".", "/")
        return next((name for name in (f"{stem}/__init__.py", f"{stem}.py") if name in self.code.sources), None)

    def get_filename(self, fullname: str) -> str:
        return self.code.origins[self.file(fullname) or ""]

    def get_data(self, path: str | bytes) -> bytes:
        return self.at[os.fsdecode(path)]

    def modules(self) -> list[str]:
        """Names of the modules that it imports."""
        parts = [PurePosixPath(name).with_suffix("").parts for name in self.code.sources]
        names = {".".join(part[:count]) for part in parts for count in range(1, len(part) + 1)}
        return [name for name in sys.modules if name in names]


_NOTHING = object()


@dataclass
class _Loaded:
    """What this process has imported, and what the registries had before under the names that it registered."""

    code: Code = field(default_factory=Code)
    importer: _Importer | None = None
    before: dict[tuple[str, str], Any] = field(default_factory=dict)


_loaded = _Loaded()


def load(code: Code) -> None:
    """Imports the files, which fill the registries; what earlier ones had put there is taken out.

    Raises:
        LotteryError: for a file that cannot be imported, registers nothing, or registers what cannot be used; then the
            registries are as they would be without.
    """
    global _loaded
    if (code.entries, code.sums) == (_loaded.code.entries, _loaded.code.sums):
        return
    _unload(_loaded)
    _loaded = loaded = _Loaded(code)
    if not code.entries:
        return
    loaded.importer = _Importer(code)
    for module in loaded.importer.modules():  # what a script has imported of them, or an earlier version
        del sys.modules[module]
    sys.meta_path.insert(0, loaded.importer)
    try:
        for entry in code.entries:
            _import(entry, loaded)
    except BaseException:
        _unload(loaded)
        _loaded = _Loaded()
        raise


def names() -> dict[str, list[str]]:
    """Setting -> what it can be that the package itself does not have."""
    own = {setting: [name for name in REGISTRIES[setting] if name not in PACKAGE[setting]] for setting in REGISTRIES}
    return {setting: found for setting, found in own.items() if found}


def check_workers(spec: Spec) -> None:
    """Raises LotteryError for what a script has registered in this process, and its workers don't have. One that is
    started to see that takes a second, and only where the script has registered something that the spec names."""
    chosen = [("data.name", spec.data.name), ("data.scaling", spec.data.scaling), ("model.name", spec.model.name)]
    chosen += [("model.init", spec.model.init), ("pruning.criterion", spec.pruning.criterion)]
    chosen += [("start", name) for name in (spec.start, *spec.draws)]
    own = [(setting, name) for setting, name in chosen if REGISTRIES[setting][name] is not PACKAGE[setting].get(name)]
    by_script = [key for key in own if key not in _loaded.before]
    for setting, name in by_script:
        if name in PACKAGE[setting]:  # the workers' would be the package's
            raise _unreached(setting, name)
    if by_script:
        runners.processes([runners.Task(_check_registered, (by_script,), lambda event: None)], 1)


def _check_registered(chosen: list[tuple[str, str]], emit: runners.Emit) -> None:
    for setting, name in chosen:
        if name not in REGISTRIES[setting]:
            raise _unreached(setting, name)


def _unreached(setting: str, name: str) -> LotteryError:
    return LotteryError(
        f"{setting} = {name!r}: was registered by a script in its own process, and the workers of jobs > 1 lack it: "
        'write it into a file, say mine.py, and give the spec use=("mine.py",), or use jobs=1'
    )


def _import(entry: str, loaded: _Loaded) -> None:
    module, what = entry.removesuffix(".py"), f"use = {shown(loaded.code.origins[entry])}"
    if module in sys.modules:  # one of the others has imported it
        return
    before = {setting: dict(registry) for setting, registry in REGISTRIES.items()}
    others = set(loaded.before)
    try:
        with own_code(what):
            importlib.import_module(module)
    finally:
        changed = _changed(before)
        loaded.before = changed | loaded.before
    if not changed:
        raise LotteryError(f'{what}: registers nothing; it needs a line such as CRITERIA["mine"] = my_function')
    for setting, name in changed:
        fault = "another file registers it too" if (setting, name) in others else _fault(setting, name)
        if fault:
            raise LotteryError(f"{what}: registers {shown(name)} as {setting}: {fault}")


def _changed(before: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    """(setting, name) -> what it was, of all that is not as it was."""
    return {
        (setting, name): before[setting].get(name, _NOTHING)
        for setting, registry in REGISTRIES.items()
        for name in {**registry, **before[setting]}
        if registry.get(name, _NOTHING) is not before[setting].get(name, _NOTHING)
    }


def _fault(setting: str, name: object) -> str:
    """What is wrong with what was registered there, or nothing."""
    if name in PACKAGE[setting]:
        return "the package has it: give yours another name"
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,49}", name, re.ASCII):
        return "a name is made of letters, digits, - and _, fifty at most"
    row = REGISTRIES[setting][name]
    if setting == "start":
        return "" if isinstance(row, Rule) else f"is {shown(row)}: must be a lottery.starts.Rule of your function"
    fits = callable(row) or (setting == "data.name" and isinstance(row, tuple | list | Dataset))
    return "" if fits else f"is {shown(row)}: must be a function"


def _unload(loaded: _Loaded) -> None:
    for (setting, name), value in loaded.before.items():
        if value is _NOTHING:
            REGISTRIES[setting].pop(name, None)
        else:
            REGISTRIES[setting][name] = value
    if loaded.importer:
        sys.meta_path.remove(loaded.importer)
