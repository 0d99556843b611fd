"""The site is built without a warning, every page of it, and its reference shows the docstrings of what is public."""

import html
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lottery
from lottery.criteria import CRITERIA

pytest.importorskip("mkdocs")

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted(str(file.relative_to(ROOT / "docs")) for file in (ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return folder


def test_every_page_came_out(site: Path) -> None:
    named = re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text())
    assert sorted(named) == SOURCES
    for name in named:
        title = (ROOT / "docs" / name).read_text().partition("\n")[0].removeprefix("# ")
        assert f">{html.escape(title, quote=False)}<" in (site / name).with_suffix(".html").read_text()


def test_the_reference_has_what_is_public(site: Path) -> None:
    pages = "".join(page.read_text() for page in sorted(site.glob("reference/*.html")))
    words = " ".join(html.unescape(re.sub(r"<[^>]*>", "", pages)).split())
    for name in lottery.__all__:
        assert f'id="lottery.{name}"' in pages
        if name != "PRESETS":  # its docstring is dict's
            assert _first(getattr(lottery, name)) in words
    for criterion in CRITERIA.values():
        assert _first(criterion) in words
    assert "Name -> spec of the experiments" in words


def _first(thing: object) -> str:
    """The first paragraph of a docstring, as it reads without markup."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].replace("`", "").split())


def test_a_page_needs_no_network(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert not re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"', page.read_text())
