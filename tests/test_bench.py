"""What a ticket costs to use: what is measured, kept and shown. No test asks how long anything takes."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pruned import made_up, saved_run, timed
from rich.console import Console
from safetensors.numpy import save as save_tensors

import lottery
from lottery import LotteryError, inference
from lottery.analysis.speed import slower
from lottery.cli import main
from lottery.data import DATASETS
from lottery.runs import files, timings, verify
from lottery.runs.rows import Place
from lottery.runs.timings import Cost, Spread
from lottery.spec import Data, Model, Pruning, Recipe, Spec
from lottery.views import measures, plots, terminal
from lottery.views.report import charts, document
from lottery.words import METHODS

SPEC = Spec(
    data=Data(name="dots", validation=20),
    model=Model(name="mlp", hidden=(12, 8)),
    recipe=Recipe(iterations=4, evaluate_every=4, batch_size=10),
    pruning=Pruning(rate=0.5),
    levels=3,
    branches=("reinit",),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lottery.Run]:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (180, 6, 6), np.uint8), np.arange(180) % 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "dots", (images[:100], labels[:100], images[100:], labels[100:]))
        yield lottery.run(SPEC, runs_dir=tmp_path_factory.mktemp("runs"), engine="torch", progress=False)


@pytest.fixture
def run(trained: lottery.Run) -> lottery.Run:
    timings.path_of(trained).unlink(missing_ok=True)
    return trained


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BATCHES": (1, 4), "SECONDS": 0.0, "MOMENT": 0.0}.items():
        monkeypatch.setattr(inference, name, value)


def only(monkeypatch: pytest.MonkeyPatch, **methods: Any) -> None:
    monkeypatch.setattr(inference, "METHODS", {"dense": inference.dense, **methods})


def examples(run: lottery.Run, count: int = 40) -> np.ndarray:
    return np.random.default_rng(1).random((count, *run.network.inputs), np.float32)


def text_of(shown: Any, width: int) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(shown)
    return out.getvalue()


def test_the_command_measures_keeps_and_draws(run: lottery.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(run.path), "--level", "2", "0"]) == 0
    printed = capsys.readouterr().out
    levels = timings.read(run)
    assert [level.place for level in levels] == [Place("rewind", 0, 0), Place("rewind", 0, 2)]
    assert [level.density for level in levels] == [run.ticket(n).row.density for n in (0, 2)]
    assert {"processor", "platform", "python", "versions", "started"} == set(levels[0].machine)
    for level in levels:
        assert str(level.place) in printed
        assert slower(level) in " ".join(printed.split())
        assert [cost.method for cost in level.costs] == list(inference.METHODS)
        for cost in level.costs:
            if cost.missing:
                assert cost.method.startswith("onnx")
                assert "is not installed" in cost.missing
                continue
            assert [latency.batch for latency in cost.latencies] == [1, 4]
            assert all(latency.rounds >= 3 for latency in cost.latencies)
            assert METHODS[cost.method] in printed
    state = run.ticket(2).weights()
    sizes = {cost.method: (cost.file_bytes, cost.memory_bytes) for cost in levels[1].costs}
    assert sizes["dense"] == (len(save_tensors(state)), sum(array.nbytes for array in state.values()))
    kept = sum(int(np.count_nonzero(state[name])) for name in run.network.prunable)
    units = sum(run.network.sizes[1:])
    assert sizes["csr"][1] == 8 * kept + 4 * (units + 3) + 4 * units  # value and column; where rows begin; biases
    assert (run.path / "figures" / "inference.png").read_bytes().startswith(b"\x89PNG")
    found = verify.verify(run.path)
    assert timings.FILE in found.sound
    assert not found.notes + found.wrong


def test_every_method_has_a_name_and_a_colour() -> None:
    assert list(inference.METHODS) == list(METHODS) == list(measures.METHOD_COLOURS)
    assert len(set(measures.METHOD_COLOURS.values())) == len(METHODS)
    assert next(iter(inference.METHODS)) == inference.REFERENCE


@pytest.mark.parametrize("value", [1.001, float("nan")])
def test_a_fast_wrong_answer_is_no_result(run: lottery.Run, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    def wrong(ticket: lottery.Ticket) -> inference.Method:
        right = inference.dense(ticket)
        return replace(right, logits=lambda x: right.logits(x) * (value if len(x) > 1 else 1))

    only(monkeypatch, wrong=wrong)
    with pytest.raises(LotteryError, match="wrong: its logits of 4 examples differ from dense PyTorch's by"):
        list(inference.bench(run, [1]))
    assert not timings.path_of(run).exists()


def test_all_methods_compute_the_same_in_each_round_on_one_core(
    run: lottery.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order drawn anew, and examples that change from round to round."""
    calls: list[tuple[str, bytes]] = []
    threads = set()

    def noted(name: str) -> Any:
        def prepare(ticket: lottery.Ticket) -> inference.Method:
            right = inference.dense(ticket)

            def logits(x: torch.Tensor) -> Any:
                threads.add(torch.get_num_threads())
                calls.append((name, x.numpy().tobytes()))
                return right.logits(x)

            return replace(right, logits=logits)

        return prepare

    only(monkeypatch, **{name: noted(name) for name in "abc"})
    monkeypatch.setattr(inference, "BATCHES", (4,))
    monkeypatch.setattr(inference, "ROUNDS", (8, 8))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        measured = inference.measure(run.ticket(1), examples(run))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == {1}
    assert [cost.latencies[0].rounds for cost in measured.costs] == [8] * 4
    rounds = [calls[i : i + 3] for i in range(len(calls) - 24, len(calls), 3)]
    assert all(sorted(name for name, _ in each) == ["a", "b", "c"] for each in rounds)
    assert all(len({given for _, given in each}) == 1 for each in rounds)
    assert len({tuple(name for name, _ in each) for each in rounds}) > 1
    assert len({each[0][1] for each in rounds}) == 8


def test_medians_over_rounds_and_speeds_paired_by_round() -> None:
    dense, other = inference.compared(np.array([[2.0, 1.0], [4.0, 1.0], [9.0, 10.0]]), batch=5)
    assert (dense.seconds, dense.speed) == (Spread(4.0, 3.0, 6.5), Spread(1.0, 1.0, 1.0))
    assert other.seconds == Spread(1.0, 1.0, 5.5)
    assert (other.speed.median, other.speed.high) == (2.0, 3.0)  # of 2, 4 and 0.9
    assert other.speed.low == pytest.approx(1.45)
    assert (other.rounds, other.batch, other.throughput) == (3, 5, 5.0)


def test_what_a_method_cannot_compute_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = saved_run(tmp_path / "run", Spec(data=Data(name="mnist-5k"), model=Model(name="lenet-5"), levels=1))
    only(monkeypatch, csr=inference.csr)
    measured = inference.measure(run.ticket(1), examples(run))
    (dense, csr) = measured.costs
    assert dense.latencies
    assert csr == Cost("csr", missing="PyTorch multiplies sparse matrices alone: there are no sparse convolutions")
    assert "PyTorch CSR: PyTorch multiplies" in terminal.cost_notes([measured]).plain
    assert "PyTorch CSR – – – – –" in " ".join(text_of(terminal.cost_table(measured), 120).split())
    assert slower(measured) == "Nothing but dense PyTorch was measured."


def test_a_level_that_is_measured_again_is_replaced(run: lottery.Run) -> None:
    timed(run)
    old = {level.place: level for level in timings.read(run)}
    assert [place.level for place in old] == [0, 1, 2, 3]
    new = replace(made_up(Place("rewind", 0, 1), 0.4), core=0.5)
    timings.record(run, new)
    timings.record(run, other := made_up(Place("reinit", 0, 1), 0.4))
    assert {level.place: level for level in timings.read(run)} == old | {new.place: new, other.place: other}


def test_levels_are_spread_over_those_that_are_there(run: lottery.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inference.spread(run) == [0, 1, 2, 3]
    assert inference.spread(run, branch="reinit") == [1, 2, 3]
    monkeypatch.setattr(type(run), "places", lambda run: [Place("rewind", 0, level) for level in range(21)])
    assert inference.spread(run) == [0, 4, 8, 12, 16, 20]
    with pytest.raises(LotteryError, match="has no level of rewind, replicate 7"):
        inference.spread(run, 7)


def test_a_damaged_file_is_named_with_what_to_do(run: lottery.Run, capsys: pytest.CaptureFixture[str]) -> None:
    timed(run)
    path = timings.path_of(run)
    whole = path.read_bytes()
    remedy = "move this file away, and `lottery bench` measures anew"
    for data in (whole[:-1], b"", whole.replace(b"Abacus 9", b"Abacus 8", 1)):
        path.write_bytes(data)
        with pytest.raises(LotteryError, match=f"inference.json is damaged: .*{remedy}"):
            timings.read(run)
    assert main(["report", str(run.path)]) == 2
    assert remedy in capsys.readouterr().err
    assert remedy in verify.verify(run.path).wrong[0]
    record = json.loads(whole)
    del record["checksum"]
    for change, words in (({"format": 2}, "has format 2, this version reads 1"), ({"run": "x"}, "another run")):
        path.write_bytes(files.seal(record | change))
        with pytest.raises(LotteryError, match=words):
            timings.read(run)
    path.write_bytes(files.seal(record | {"levels": [{}]}))
    with pytest.raises(LotteryError, match=f"KeyError.*{remedy}"):
        timings.read(run)


def test_the_page_has_it_where_it_was_measured(run: lottery.Run, tmp_path: Path) -> None:
    other = lottery.open_run(shutil.copytree(run.path, tmp_path / "other"))
    page = document.page([timed(run), other])
    assert [part.partition("<")[0] for part in page.split("<h3>")[1:] if part.startswith("Using")] == [
        "Using a ticket: A"
    ]
    for words in ("Abacus 9, one core, Linux; Python 3.11, torch 2.6", "ONNX Runtime dense was not measured: no beads"):
        assert words in page
    rows = [row for row in page.split("<tr>") if 'scope="row">PyTorch CSR<' in row]
    assert [row.partition("</td>")[0] for row in rows] == [f'<td class="n">{level}' for level in range(4)]
    ms = 1e3 * timings.read(run)[3].costs[1].latencies[1].seconds.median
    assert f">{measures.significant(ms)}<small>{measures.significant(8 / ms)} ×</small>" in rows[3]
    assert "Slower than dense PyTorch: PyTorch CSR at batch 1 (0.4 ×) and 32 (0.4 ×)." in page


def test_charts_and_figures_show_the_medians_that_were_kept(run: lottery.Run) -> None:
    levels = timings.read(timed(run))
    medians = [1e3 * level.costs[1].latencies[1].seconds.median for level in levels]
    percent = [100 * level.density for level in levels]
    shown = charts.Shown(run, "", "", 0, run.levels(), *(None,) * 3)  # type: ignore[arg-type]  # of no use to what is drawn here
    drawn = charts.inference(shown, levels)
    assert [chart.name for chart in drawn] == ["run_latency_1", "run_latency_32", "run_file_size"]
    assert [trace["name"] for trace in drawn[1].traces] == ["PyTorch dense", "PyTorch CSR"]
    assert drawn[1].traces[1]["y"] == pytest.approx(medians)
    assert drawn[1].traces[1]["x"] == pytest.approx(percent, abs=1e-4)
    assert drawn[2].traces[0]["y"] == pytest.approx([5000.0] * 4)
    assert "PyTorch CSR: 20 ms with 100 % of the weights" in drawn[1].says
    for ax in (plots.latency(run, 32), plots.inference(run)[1]):
        points = ax.containers[1][0]
        assert points.get_ydata() == pytest.approx(medians)
        assert points.get_xdata() == pytest.approx(percent)
        assert ax.get_ylabel() == "latency (ms)"
    (_, _, (bars,)) = ax.containers[1]
    assert bars.get_segments()[0][:, 1] == pytest.approx([0.9 * medians[0], 1.2 * medians[0]])
    assert [axes.get_title() for axes in plots.inference(run)] == [
        "Latency at batch 1",
        "Latency at batch 32",
        "File size",
    ]
    with pytest.raises(LotteryError, match="unknown batch size '7': choose from 1, 32"):
        plots.latency(run, 7)


def test_a_table_fits_a_terminal(run: lottery.Run) -> None:
    level = made_up(Place("rewind", 0, 12), 0.069)
    latency = replace(level.costs[0].latencies[0], batch=256)
    cost = replace(level.costs[0], method="onnx_shrunk", latencies=(*level.costs[0].latencies, latency))
    text = text_of(terminal.cost_table(replace(level, costs=(cost,) * 6)), 80)
    assert max(map(len, text.splitlines())) <= 80
    for words in ("ONNX Runtime shrunk", "5,000", "1 ×", "256,000"):
        assert text.count(words) >= 6


def test_one_sentence_says_where_it_is_slower() -> None:
    place = Place("rewind", 0, 1)
    assert slower(made_up(place, 0.5)) == "Slower than dense PyTorch: PyTorch CSR at batch 1 (0.67 ×) and 32 (0.67 ×)."
    assert slower(made_up(place, 0.1)) == "No method is slower than dense PyTorch."
    assert (
        slower(made_up(place, 0.26)) == "No method is slower than dense PyTorch."
    )  # 0.98: not in three of four rounds
    busy = replace(made_up(place, 0.1), core=0.4)
    assert "other work had 60 % of the core" in terminal.cost_notes([busy]).plain
    assert "of the core" not in terminal.cost_notes([made_up(place, 0.1)]).plain


def test_bad_input_is_one_line_before_any_work(
    run: lottery.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, message in (
        (["--level", "9"], "has no rewind, replicate 0, level 9: there are levels 0 to 3"),
        (["--branch", "shuffle"], "has no level of shuffle, replicate 0"),
        (["--level", "x"], "Error parsing --level"),
        (["--data-dir", "nowhere"], "data-dir = 'nowhere': there is no such folder"),
    ):
        assert main(["bench", str(run.path), *words]) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(LotteryError, match="3 examples: at least 4 are needed"):
        inference.measure(run.ticket(1), examples(run, 3))
    monkeypatch.setitem(run.info, "data", {"test images": "0"})
    with pytest.raises(LotteryError, match=r"was trained on data .*'0'"):
        next(inference.bench(run, [1]))
    monkeypatch.setattr("lottery.models.MODELS", {})
    with pytest.raises(
        LotteryError, match="is of a network of one's own, mlp: bench is for the package's own networks"
    ):
        next(inference.bench(run, [1]))
    assert not timings.path_of(run).exists()
