"""The report in a real browser: what a reader sees of real runs, at the width of a phone and of a desk."""

import base64
import json
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import lottery
from lottery import cli
from lottery.analysis import statistics
from lottery.analysis.answer import answer_of, round_up
from lottery.analysis.verdicts import default_margin
from lottery.errors import LotteryError
from lottery.runs.rows import Row
from lottery.runs.store import Run
from lottery.spec import PRESETS, Spec, flatten
from lottery.studies import claims_of, lth_mnist
from lottery.views import report
from lottery.views.measures import COLOURS, run_labels, run_settings, setting_label
from lottery.views.report import charts, document

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
PHONE, DESK = 390, 1280
HOSTILE = "<script>document.title = 'owned'; <img src=x onerror=alert(1)>"
BREAKOUT = "</script><script>document.title = 'owned'</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if not (BROWSER and DRIVER):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a whole run: two replicates, a branch drawn twice."""
    spec = Spec(
        data=lottery.Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=lottery.Recipe(iterations=30, evaluate_every=10),
        pruning=lottery.Pruning(rate=0.5, layer_rates={"fc3.weight": 0.25}),
        levels=2,
        replicates=2,
        branches=("reinit:2",),
    )
    return lottery.run(spec, runs_dir=tmp_path_factory.mktemp("runs")).path


def small(tmp_path: Path, **settings: Any) -> Path:
    spec = Spec(
        data=lottery.Data(name="mnist-5k", validation=500),
        model=lottery.Model(name="mlp", hidden=(20, 10)),
        recipe=lottery.Recipe(iterations=20, evaluate_every=10),
    )
    return lottery.run(replace(spec, **settings), runs_dir=tmp_path).path


def whole(finished: Path, tmp_path: Path) -> Path:
    return finished


def unfinished(finished: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(finished, tmp_path / "unfinished"))
    shutil.rmtree(path / "reinit" / "replicate-1")
    shutil.rmtree(path / "rewind" / "replicate-1" / "level-02")
    return path


def nothing_yet(finished: Path, tmp_path: Path) -> Path:
    path = Path(shutil.copytree(finished, tmp_path / "nothing-yet"))
    shutil.rmtree(path / "reinit")
    shutil.rmtree(path / "rewind")
    return path


def single_level(finished: Path, tmp_path: Path) -> Path:
    return small(tmp_path, levels=0)


def single_replicate(finished: Path, tmp_path: Path) -> Path:
    return small(tmp_path, levels=2, data=lottery.Data(name="mnist-5k", validation=0))


def everything_pruned(finished: Path, tmp_path: Path) -> Path:
    """Nothing is left at level 1: no density to place on a logarithmic axis, no survivor to show."""
    return small(tmp_path, levels=1, replicates=2, pruning=lottery.Pruning(rate=1.0))


def hostile(finished: Path, tmp_path: Path) -> Path:
    """A name and a branch that are scripts, and a spec that ends the script that it is in."""
    run, path = Run(finished), tmp_path / HOSTILE
    path.mkdir()
    spec = replace(run.spec, pruning=replace(run.spec.pruning, layer_rates={BREAKOUT: 0.5}), branches=(f"{HOSTILE}:2",))
    binding = {name: run.info[name] for name in ("engine", "device", "data", "images", "network")}
    made = Run.begin(path, spec, binding, run.info["sessions"][0])
    for row in run.rows():
        place = replace(row.place, branch={"reinit": HOSTILE}.get(row.place.branch, row.place.branch))
        made.save(replace(run.read(row.place), row=replace(row, place=place)))
    return path


MAKERS = (whole, unfinished, nothing_yet, single_level, single_replicate, everything_pruned, hostile)


def test_a_page_of_a_run_that_goes_on_is_of_one_moment(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch's first levels are finished while the page is made: KeyError, once in five, before."""
    path, aside = Path(shutil.copytree(finished, tmp_path / "going-on")), tmp_path / "aside"
    shutil.move(path / "reinit", aside)
    before, real = lottery.report([Run(path)], tmp_path / "before.html").read_text(), Run.rows

    def rows(self: Run) -> list[Row]:
        found = real(self)
        if aside.exists():
            shutil.move(aside, path / "reinit")
        return found

    monkeypatch.setattr(Run, "rows", rows)
    assert lottery.report([Run(path)], tmp_path / "during.html").read_text() == before
    assert not aside.exists()


def visit(browser: webdriver.Chrome, page: Path, width: int = DESK, **features: str) -> None:
    """Opens a page from disk and waits until it is drawn; fails on a message in its console or a request."""
    media = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    log: Callable[[str], list[dict[str, str]]] = browser.get_log  # selenium gives it no types
    log("performance"), log("browser")
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.documentElement.dataset.drawn"))
    assert log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in urls if not url.startswith("data:")] == [page.as_uri()]


def marks(browser: webdriver.Chrome) -> dict[str, int]:
    """Chart -> lines, points, areas and pictures that it draws."""
    found: dict[str, int] = browser.execute_script(
        "return Object.fromEntries([...document.querySelectorAll('.chart')].map(c => [c.id, "
        "c.querySelectorAll('.js-line, .points path, .js-fill, .heatmaplayer image').length]))"
    )
    return found


def write(runs: list[Path], tmp_path: Path) -> Path:
    return report.write_report([Run(path) for path in runs], tmp_path / "page.html")


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("make", MAKERS)
def test_every_chart_is_drawn_and_nothing_is_fetched(
    browser: webdriver.Chrome, finished: Path, tmp_path: Path, make: Callable[[Path, Path], Path], width: int
) -> None:
    path = make(finished, tmp_path)
    page = write([path], tmp_path)
    assert page.stat().st_size < 8e6
    visit(browser, page, width)
    there = marks(browser)
    if make is nothing_yet:
        assert there == {}
        assert "No dense network is finished yet" in browser.page_source
    else:
        assert {"end", "train", "training_accuracy", "run_pixels", "run_units", "run_weights_2", "seconds"} <= set(
            there
        )
        assert ("run_overlap" in there) == (make in (whole, unfinished, everything_pruned, hostile))
        assert ("accuracy" in there) == ("training_loss" in there) == (make is not single_replicate)
    if make is everything_pruned:
        assert not any(there[f"run_weights_{i}"] for i in range(3))
        assert browser.find_element(By.ID, "run_weights_0").text.count("nothing to show") == 1
        slide(browser, 0)
        there = marks(browser)
    assert all(there.values()), there
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # nothing sticks out
    assert all(
        element.get_attribute("aria-label") and 200 < element.size["width"] <= width
        for element in browser.find_elements(By.CLASS_NAME, "chart")
    )
    assert ("Not finished:" in browser.page_source) == (make in (unfinished, nothing_yet))
    assert [e.text for e in browser.find_elements(By.TAG_NAME, "h1")] == ["mlp on mnist-5k, 30 iterations a level"] or (
        make in (single_level, single_replicate, everything_pruned)
    )
    assert browser.title == path.name  # and not "owned"
    assert path.name in browser.find_element(By.CLASS_NAME, "name").text
    if make is hostile:
        assert [key.text for key in browser.find_elements(By.CSS_SELECTOR, ".legend button")] == ["ticket", HOSTILE]


@pytest.mark.parametrize("make", MAKERS)
def test_one_heading_and_a_contents_that_leads_everywhere(
    finished: Path, tmp_path: Path, make: Callable[[Path, Path], Path]
) -> None:
    """Every part is named once, in the contents too, and every anchor leads somewhere."""
    text = report.page([Run(make(finished, tmp_path))])
    text = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert text.count("<h1>") == 1
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)
    contents = re.findall(r'href="#([^"]*)"', text[text.index("<nav") : text.index("</nav>")])
    assert contents == re.findall(r'<section[^>]* id="([^"]*)"', text)


def test_two_runs_have_parts_of_their_own_in_the_contents(finished: Path, tmp_path: Path) -> None:
    text = report.page([Run(finished), Run(small(tmp_path, levels=1, seed=7))])
    contents = re.findall(r'href="#([^"]*)"', text[text.index("<nav") : text.index("</nav>")])
    assert contents == re.findall(r'<section[^>]* id="([^"]*)"', text)
    assert {"differences", "anatomyA", "anatomyB", "provenanceB"} <= set(contents)
    assert "<td>[" not in text
    assert "<td>(" not in text


def test_a_chart_is_saved_as_it_is_on_paper(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    visit(browser, write([finished], tmp_path), prefers_color_scheme="dark")
    assert len(browser.find_elements(By.CSS_SELECTOR, "[data-save]")) == 2 * len(marks(browser))
    browser.execute_script("window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this) }")
    for kind in ("png", "svg"):
        browser.execute_script(f"document.querySelector('[data-save={kind}][data-chart=accuracy]').click()")
    WebDriverWait(browser, 30).until(lambda b: b.execute_script("return saved.length") == 2)
    found = dict(browser.execute_script("return saved.map(a => [a.download, a.href])"))
    assert found["accuracy.png"].startswith("data:image/png;base64,iVBOR")
    picture = unquote(found["accuracy.svg"])
    assert "random reinitialisation" in picture
    assert "Test accuracy at early stop" in picture
    assert "rgb(255, 255, 255)" in picture
    assert not browser.execute_script("return document.documentElement.classList.contains('paper')")


def test_hovering_shows_all_branches(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    visit(browser, write([finished], tmp_path))
    browser.execute_script("Plotly.Fx.hover('accuracy', {xval: 50, yval: 50}, ['xy'])")
    words = browser.execute_script("return document.querySelector('#accuracy .hoverlayer').textContent")
    assert "ticket" in words
    assert "random reinitialisation" in words


def test_a_running_page_loads_itself_again_and_keeps_its_level(
    browser: webdriver.Chrome, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "REFRESH", 3)
    run = Run(unfinished(finished, tmp_path))
    browser.get(report.write_report([run], tmp_path / "page.html").as_uri())
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.documentElement.dataset.drawn"))
    words = browser.find_element(By.CLASS_NAME, "unfinished").text
    assert words.startswith("Not finished: 9 of 14 networks are trained; about ")
    assert browser.find_element(By.CLASS_NAME, "answer").text.startswith("No verdict yet: ")
    slide(browser, 1)
    report.write_report([Run(finished)], tmp_path / "page.html")
    WebDriverWait(browser, 60).until(lambda b: "Not finished" not in b.page_source)
    WebDriverWait(browser, 60).until(lambda b: b.execute_script("return document.documentElement.dataset.drawn"))
    assert browser.find_element(By.ID, "level-label").text.startswith("1, 5")
    browser.execute_script("window.same = true")
    time.sleep(3.5)
    assert browser.execute_script("return window.same")  # what is finished stays


def drawn(browser: webdriver.Chrome, chart: str) -> Any:
    """What a chart draws: its paths, and its picture."""
    script = (
        "return [...document.getElementById(arguments[0]).querySelectorAll('.js-line, .heatmaplayer image')]"
        ".map(e => e.getAttribute('d') ?? e.getAttribute('xlink:href') ?? e.getAttribute('href'))"
    )
    return browser.execute_script(script, chart)


def slide(browser: webdriver.Chrome, level: int) -> None:
    browser.execute_script(
        "const s = document.getElementById('level'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))", level
    )


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_slider_changes_what_is_drawn(
    browser: webdriver.Chrome, finished: Path, tmp_path: Path, width: int
) -> None:
    visit(browser, write([finished], tmp_path), width)
    names = ("training_loss", "training_accuracy", "run_pixels", "run_units", "run_weights_0")
    seen: dict[str, list[Any]] = {name: [] for name in names}
    for level, density in ((0, "100 %"), (1, "50"), (2, "25")):
        slide(browser, level)
        assert f"{level}, {density}" in browser.find_element(By.ID, "level-label").text
        labels = {browser.find_element(By.ID, name).get_attribute("aria-label") for name in names}
        assert all(f"evel {level}" in str(label) for label in labels)
        visible = [row for row in browser.find_elements(By.CSS_SELECTOR, "[data-level]") if row.is_displayed()]
        kept = sum(int(mask.sum()) for mask in Run(finished).load("rewind", 0, level).masks.values())
        assert len(visible) == 1
        cells = [row.split()[1] for row in visible[0].text.splitlines() if row.startswith("fc")]
        assert sum(int(cell.replace(",", "")) for cell in cells) == kept
        for name in names:
            seen[name].append(drawn(browser, name))
    for name, pictures in seen.items():
        assert pictures[0] != pictures[1] != pictures[2], name


def test_the_legend_switches_a_branch_off_everywhere(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    visit(browser, write([finished], tmp_path))
    slide(browser, 2)
    before = marks(browser)
    rows = "return [...document.querySelectorAll('.sortable tbody tr')].filter(r => !r.hidden).length"
    assert browser.execute_script(rows) == 3 + 2
    button = browser.find_element(By.CSS_SELECTOR, "button[data-key=reinit]")
    button.click()
    after = marks(browser)
    assert button.get_attribute("aria-pressed") == "false"
    for name in ("accuracy", "early_stop", "end", "train", "training_loss", "training_accuracy", "seconds"):
        assert 0 < after[name] < before[name], name
    assert after["run_pixels"] == before["run_pixels"]
    assert browser.execute_script(rows) == 3
    button.click()
    assert marks(browser) == before


def test_charts_show_the_numbers_of_the_run(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    run = Run(finished)
    visit(browser, write([finished], tmp_path))
    slide(browser, 1)

    def traces(chart: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = browser.execute_script(
            "return document.getElementById(arguments[0]).data.map(t => ({...t}))", chart
        )
        return found

    levels = run.levels()
    for chart, column, factor in (
        ("accuracy", "test_accuracy_early_stop", 100),
        ("early_stop", "early_stop_iteration", 1),
    ):
        lines = {t["meta"]: t for t in traces(chart) if t["mode"] == "lines+markers"}
        found = statistics.summary(levels, column)
        for branch in ("rewind", "reinit"):
            part = found[found["branch"] == branch]
            assert lines[branch]["y"] == pytest.approx(
                (factor * part["mean"]).tolist(), abs=0.51 if factor == 1 else 0.005
            )
            assert lines[branch]["x"] == pytest.approx((100 * part["density"]).tolist(), rel=1e-4)
    curves = [t for t in traces("training_loss") if t["mode"] == "lines" and t["meta"] == "reinit"]
    assert len(curves) == 4  # two draws of two replicates
    history = run.history("reinit", level=1)
    for curve, (_, part) in zip(curves, history.groupby(["replicate", "draw"]), strict=True):
        assert curve["x"] == part["iteration"].tolist()
        assert curve["y"] == pytest.approx(part["validation_loss"].tolist(), abs=2e-5)
    (stops,) = [t for t in traces("training_loss") if t["mode"] == "markers" and t["meta"] == "rewind"]
    rows = levels[(levels["branch"] == "rewind") & (levels["level"] == 1)]
    assert stops["x"] == rows["early_stop_iteration"].tolist()
    (picture,) = traces("run_pixels")
    masks = [run.load("rewind", replicate, 1).masks["fc1.weight"] for replicate in (0, 1)]
    assert np.array(picture["z"]) == pytest.approx(np.mean([m.sum(axis=0) for m in masks], axis=0).reshape(28, 28))
    link = browser.find_element(By.CSS_SELECTOR, "a[download$='.csv']").get_attribute("href") or ""
    assert base64.b64decode(link.split(",")[1]) == (finished / "levels.csv").read_bytes()


def test_the_table_sorts_both_ways(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    visit(browser, write([finished], tmp_path))
    heading = browser.find_elements(By.CSS_SELECTOR, ".sortable thead th")[2]
    for way, descending in (("ascending", False), ("descending", True)):
        heading.find_element(By.TAG_NAME, "button").click()
        assert heading.get_attribute("aria-sort") == way
        cells = browser.find_elements(By.CSS_SELECTOR, ".sortable tbody td:nth-child(3)")
        values = [float(cell.text) for cell in cells]
        assert values == sorted(values, reverse=descending)
        assert len(set(values)) == 3


def test_dark_and_paper(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    page = write([finished], tmp_path)
    ink = "return getComputedStyle(document.querySelector('#accuracy .xtick text')).fill"
    ground = "return getComputedStyle(document.body).backgroundColor"
    seen = []
    for scheme in ("light", "dark"):
        visit(browser, page, prefers_color_scheme=scheme)
        seen.append((browser.execute_script(ground), browser.execute_script(ink)))
    assert seen[0][0] == "rgb(255, 255, 255)"
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]
    width = "return document.querySelector('#accuracy svg').getBoundingClientRect().width"
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert browser.execute_script(width) == 320
    assert browser.execute_script(ground) == "rgb(255, 255, 255)"  # from a dark page too
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert browser.execute_script(width) > 400


def test_two_runs_are_laid_over_each_other(browser: webdriver.Chrome, finished: Path, tmp_path: Path) -> None:
    other = small(tmp_path, levels=1, seed=7)
    visit(browser, write([finished, other], tmp_path))
    heads = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#differences thead th")]
    cells = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#differences tbody > tr > *")]
    first, second = (dict(zip(heads, row, strict=True)) for row in (cells[: len(heads)], cells[len(heads) :]))
    for name, values in (("", "A B"), ("seed", "0 7"), ("iterations", "30 20"), ("branches", "reinit:2 none")):
        assert [first[name], second[name]] == values.split()
    spec, there = Run(finished).spec, Run(other).spec
    names = heads[1:-2]
    assert names == [setting_label(name) for name in spec.differences(there)]
    keys = [key.text for key in browser.find_elements(By.CSS_SELECTOR, ".legend button")]
    ours, theirs = run_labels([run_settings(Run(path)) for path in (finished, other)])
    assert keys == [f"A {ours}", "A random reinitialisation", f"B {theirs}"]
    lines: list[list[str]] = browser.execute_script(
        "return document.getElementById('accuracy').data.filter(t => t.mode == 'lines+markers')"
        ".map(t => [t.meta, t.line.dash, t.line.color])"
    )
    assert lines == [  # a run has one colour, a branch one kind of line
        ["A rewind", "solid", COLOURS[0]],
        ["A reinit", "dash", COLOURS[0]],
        ["B rewind", "solid", COLOURS[1]],
    ]
    assert len(marks(browser)) > 15
    assert all(marks(browser).values())


def test_nothing_that_a_spec_says_ends_the_script(finished: Path, tmp_path: Path) -> None:
    text = report.page([Run(hostile(finished, tmp_path))])
    assert BREAKOUT not in text
    assert HOSTILE not in text
    assert text.count("</script>") == 3  # the page's own: data, Plotly, ours


@pytest.mark.parametrize(
    "spec",
    [
        *PRESETS.values(),
        replace(PRESETS["quickstart"], branches=("reinit:3", "one_shot"), seed=4, levels=3),
        Spec(
            data=lottery.Data(name="kmnist", scaling="l2"),
            model=lottery.Model("mlp", hidden=(20, 10), init="gaussian", std=0.05),
            recipe=lottery.Recipe("sgd", 0.1, momentum=0.9, drop_last=True),
            pruning=lottery.Pruning(layer_rates={"fc*": 0.3, "fc3.weight": 0.1}),
        ),
        Spec(pruning=lottery.Pruning(scope="global"), start="continue"),
    ],
)
def test_the_command_makes_the_run_again(spec: Spec) -> None:
    program, *words = shlex.split(document.command(spec, "torch", "cpu"))
    assert program == "lottery"
    parsed = cli._parse(words)
    assert isinstance(parsed, cli.RunCommand)
    assert flatten(parsed.spec) == flatten(spec)
    assert (parsed.engine, parsed.device) == ("torch", "cpu")


def test_claims_are_shown_of_the_main_run_only(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The paper’s claims" not in report.page([Run(finished)], claims_of)
    spec = Run(finished).spec
    monkeypatch.setitem(lth_mnist.RUNS, "main", replace(lth_mnist.RUNS["main"], spec=replace(spec, seed=0)))
    assert "The paper’s claims" not in report.page([Run(finished)])
    text = report.page([Run(finished)], claims_of)
    assert "The paper’s claims" in text
    assert "8b resetting is more accurate" in text


def altered(path: Path, alter: Callable[[pd.DataFrame], pd.DataFrame]) -> Run:
    """A run whose levels say something else."""
    run = Run(path)
    levels = alter(run.levels())
    run.levels = lambda: levels  # type: ignore[method-assign]
    return run


def test_each_branch_has_its_own_verdicts(finished: Path) -> None:
    """All stop sooner. Tickets are more accurate at level 1, by as much in both replicates, and at level 2 in one
    replicate only; redrawn, they are as accurate as the dense network at level 1, and less accurate at level 2."""
    points = {("rewind", 1): (2, 2), ("rewind", 2): (2, -2), ("reinit", 1): (0, 0), ("reinit", 2): (-9, -9)}

    def alter(levels: pd.DataFrame) -> pd.DataFrame:
        rows = levels[["branch", "level", "replicate"]].to_numpy()
        gain = [points.get((branch, level), (0, 0))[replicate] for branch, level, replicate in rows]
        stop = levels["level"].map({0: 25.0, 1: 4.0, 2: 4.0})
        return levels.assign(early_stop_iteration=stop, test_accuracy_early_stop=0.5 + np.array(gain) / 100)

    text = report.page([altered(finished, alter)])
    rows = re.findall(r'<tr data-key="(\w+)">(.*?)</tr>', text, re.DOTALL)
    verdicts = [
        (branch, *(re.findall(r'data-value="(.*?)"', row)[i] for i in (1, -1)), "<small>shown" in row)
        for branch, row in rows
    ]
    assert verdicts == [
        ("rewind", "0", "", False),
        ("rewind", "1", "winning", False),
        ("rewind", "2", "undecided", False),
        ("reinit", "1", "matching", True),
        ("reinit", "2", "not matching", False),
    ]
    words = " ".join(re.sub("<.*?>", "", text).split())
    assert (
        "Matching: at most 1.582 points less accurate than the dense network (the margin, one standard error" in words
    )
    assert "Winning: matching, stopping after at most 1.1 of the dense network’s iterations" in words


def test_a_margin_is_for_the_whole_page(finished: Path) -> None:
    words = re.sub("<.*?>", "", report.page([Run(finished)], margin=7.25))
    assert "Matching: at most 7.25 points less accurate than the dense network (the margin, set by --margin)." in words
    assert "The margin is 7.25 points: set by --margin." in words
    assert answer_of(Run(finished), 7.25).headline in words
    assert "1.5" not in words[words.index("Matching: ") :][:100]


def test_each_run_is_judged_by_its_own_margin(finished: Path, tmp_path: Path) -> None:
    other = small(tmp_path, levels=1, replicates=2, seed=7)
    words = re.sub("<.*?>", "", report.page([Run(finished), Run(other)]))
    for letter, path in (("A", finished), ("B", other)):
        points = round_up(default_margin(Run(path).levels(), 1000).points, 3)
        assert f"{letter}: Matching: at most {points:g} points less accurate" in words
    assert "A: Winning: " in words
    assert "B: Winning: " not in words  # without reinit


@pytest.mark.parametrize(
    ("pruned", "total", "says"),
    [
        (2, "44 s", "sparse training saved 69 % of the time"),  # of 14 × 10 s, the mean of the dense networks' 8 and 12
        (11, "2 min 32 s", "no time was saved"),
    ],
)
def test_what_sparse_training_saved(finished: Path, pruned: float, total: str, says: str) -> None:
    def alter(levels: pd.DataFrame) -> pd.DataFrame:
        return levels.assign(seconds=np.where(levels["level"] == 0, 8.0 + 4 * levels["replicate"], pruned))

    assert (
        f"<p>14 networks were trained in {total}; each at the dense network’s cost, they would have taken 2 min 20 s: "
        f"{says} (engine: sparse).</p>"
    ) in report.page([altered(finished, alter)])


def test_dense_networks_alone_are_compared_with_nothing(finished: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(finished, tmp_path / "dense"))
    for folder in (path / "reinit", *path.glob("rewind/*/level-01"), *path.glob("rewind/*/level-02")):
        shutil.rmtree(folder)
    text = report.page([altered(path, lambda levels: levels.assign(seconds=3.0))])
    assert "<p>2 networks were trained in 6 s.</p>" in text


def test_many_evaluations_are_thinned_and_it_is_said(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "evaluation is drawn" not in report.page([Run(finished)])
    monkeypatch.setattr(charts, "HISTORY_BYTES", 120)
    assert "One evaluation in 2 is drawn, and the last." in report.page([Run(finished)])


def test_packed_numbers_come_back() -> None:
    values = np.array([0.0, 0.12345, np.nan, 2.5])
    arrays = charts.Arrays()
    assert arrays.add(values, 1e-5) == arrays.add(values.copy(), 1e-5) == 0
    step, packed = arrays.packed[0]["step"], base64.b64decode(arrays.packed[0]["values"])
    back = np.frombuffer(packed, "<u2")
    assert back[2] == 65535
    assert step * back[[0, 1, 3]] == pytest.approx([0, 0.12345, 2.5], abs=step / 2)
    assert step < 4e-5


def test_bad_input_is_one_clear_line(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LotteryError, match="given twice"):
        write([finished, finished], tmp_path)
    with pytest.raises(LotteryError, match="there is no folder"):
        report.write_report([Run(finished)], tmp_path / "nowhere" / "page.html")
    assert cli.main(["report", "--runs-dir", str(finished.parent)]) == 2
    assert finished.name in capsys.readouterr().err
    assert cli.main(["report", "nothing", "--runs-dir", str(finished.parent)]) == 2
    assert "no run 'nothing'" in capsys.readouterr().err


def test_the_command_writes_it_in_the_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copytree(finished, tmp_path / "run"))
    assert cli.main(["report", str(path)]) == 0
    assert capsys.readouterr().out.split() == ["report:", str(path / "report.html")]
    assert (path / "report.html").read_text().startswith("<!doctype html>")
    assert cli.main(["report", str(path), "-o", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").is_file()
    assert cli.main(["report", "run", str(finished), "--runs-dir", str(tmp_path)]) == 0
    assert (tmp_path / "comparison.html").is_file()


RUN = (
    *("run", "quickstart", "--branches", "", "--iterations", "10", "--recipe.evaluate-every", "10"),
    *("--levels", "2", "--replicates", "1"),
)


def test_a_run_keeps_its_report_current(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []
    write_report = report.write_report

    def watch(runs: list[Run], path: Path, claims_of: document.Claims, margin: float | None) -> Path:
        seen.append(len(runs[0].rows()))
        return write_report(runs, path, claims_of, margin)

    monkeypatch.setattr(report, "write_report", watch)
    words = [*RUN, "--jobs", "1", "--runs-dir", str(tmp_path)]
    assert cli.main(words) == 0
    assert seen == [3]  # a run of seconds: only at its end
    (line,) = re.findall(r"^report:  (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert Path(line).is_file()
    monkeypatch.setattr(cli.CurrentReport, "first", 0.0)
    assert cli.main([*words, "--seed", "1"]) == 0
    assert seen[1:] == [1, 3]  # after the first level, not again before 50 times what that took, and at the end


def test_a_report_that_fails_harms_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(runs: list[Run], path: Path, claims_of: document.Claims, margin: float | None) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(report, "write_report", fail)
    monkeypatch.setattr(cli.CurrentReport, "first", 0.0)
    assert cli.main([*RUN, "--jobs", "1", "--runs-dir", str(tmp_path)]) == 0
    assert "report:  not written: disk full" in capsys.readouterr().out


def test_a_logarithmic_axis_has_round_numbers_enough_to_be_read() -> None:
    assert charts._ticks(50, 1000) == [50, 100, 200, 500, 1000]
    assert charts._ticks(0.17, 0.33) == [0.15, 0.2, 0.25, 0.3]
    for low in (0.02, 0.11, 0.35, 0.8, 1.3, 6.0, 70.0):
        for wide in (1.5, 3.0, 10.0, 1000.0):
            ticks = charts._ticks(low, low * wide)
            assert len(ticks) >= (2 if wide < 2 else 3), (low, wide, ticks)
            assert ticks == sorted(ticks)
