"""Networks of convolutions, and those whose order of layers is unknown: what their tickets are made of, counted in
another way than the code counts, and every view of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pruned import saved_run
from torch import nn

from lottery import cli
from lottery.analysis import anatomy
from lottery.analysis.answer import answer_of
from lottery.errors import LotteryError
from lottery.models.torch import described
from lottery.runs import trackers
from lottery.runs.store import Run
from lottery.spec import Data, Model, Pruning, Spec
from lottery.views import plots
from lottery.views.mosaic import Mosaic
from lottery.views.report import charts, document, layers


def spec(name: str, width: int = 0, **more: Any) -> Spec:
    data = Data("mnist-5k-m", validation=500)
    return Spec(data, Model(name, width=width), pruning=Pruning(rate=0.6), levels=2, replicates=2, **more)


class Odd(nn.Module):
    """Heads before bodies, groups, a transposed convolution, one axis: nothing that says what follows what."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 10)
        self.up = nn.ConvTranspose2d(6, 4, 2, 2)
        self.deep = nn.Conv2d(3, 6, 3, groups=3)
        self.line = nn.Conv1d(4, 5, 3)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    mlp = replace(spec("mlp"), model=Model("mlp", hidden=(4,)))
    return {
        "lenet-5": saved_run(folder / "lenet-5", spec("lenet-5")),
        "vgg-11": saved_run(folder / "vgg-11", spec("vgg-11", width=2)),
        "resnet-8": saved_run(folder / "resnet-8", spec("resnet-8", width=3)),
        "odd": saved_run(folder / "odd", mlp, described(Odd, (3, 28, 28))),
        "sequence": saved_run(folder / "sequence", mlp, described(lambda: nn.Sequential(nn.Linear(5, 4)), (5,))),
        "mlp": saved_run(folder / "mlp", mlp),
    }


# --- which unit, which input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(3, 4, bias=False),
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False),
        nn.Conv1d(4, 4, 3, padding=1, groups=4, bias=False),
        nn.ConvTranspose2d(3, 4, 3, padding=1, bias=False),
        nn.ConvTranspose2d(4, 6, 3, padding=1, groups=2, bias=False),
    ],
    ids=str,
)
def test_what_a_kernel_leads_to_and_comes_from(layer: nn.Module) -> None:
    """Against what the layer computes with that kernel alone."""
    weights = layer.weight
    assert isinstance(weights, nn.Parameter)
    network = described(lambda: nn.Sequential(layer.__class__(*_arguments(layer))), (3,))
    unit, source = network.tensors["0.weight"].ends()
    inputs = int(_arguments(layer)[0])
    for at in np.ndindex(*weights.shape[:2]):
        with torch.no_grad():
            weights.zero_()
            weights[at] = 1.0
        x = torch.ones(1, inputs, *[3] * (weights.ndim - 2), requires_grad=True)
        y = layer(x)
        y.sum().backward()
        assert x.grad is not None
        assert torch.nonzero(y.flatten(2).sum(2) if y.ndim > 2 else y)[:, 1].tolist() == [unit[at]]
        assert torch.nonzero(x.grad.flatten(2).sum(2) if y.ndim > 2 else x.grad)[:, 1].tolist() == [source[at]]


def _arguments(layer: nn.Module) -> tuple[Any, ...]:
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d)
    more = (0, layer.groups) if isinstance(layer, nn.ConvTranspose2d) else (1, layer.groups)
    return layer.in_channels, layer.out_channels, layer.kernel_size, 1, 1, *more


def test_weights_by_filter_and_channel(runs: dict[str, Run]) -> None:
    run = runs["lenet-5"]
    frame, saved = run.weights(2), run.load("rewind", 0, 2)
    assert list(frame.columns) == ["tensor", "unit", "input", "kept", "start", "trained"]
    for name in ("conv2.weight", "fc1.weight"):
        part, mask = frame[frame["tensor"] == name], saved.masks[name]
        by_kernel = part.groupby(["unit", "input"])["kept"].sum().unstack().to_numpy()
        assert (by_kernel == mask.reshape(*mask.shape[:2], -1).sum(axis=2)).all()
        assert (part["start"].to_numpy() == saved.start[name].ravel()).all()


# --- anatomy --------------------------------------------------------------------------------------------------------


def test_channels_of_a_stack(runs: dict[str, Run]) -> None:
    """Behind the second pooling each of 50 channels has 5x5 pixels, which the linear layer reads in a row."""
    run = runs["lenet-5"]
    found = anatomy.anatomy(run, 2)
    saved = [run.load("rewind", r, 2) for r in (0, 1)]
    assert [layer.units for layer in found.layers] == [20, 50, 500, 10]
    assert [layer.inputs for layer in found.layers] == [3, 20, 1250, 500]
    dead = fed = read = 0
    for s in saved:
        conv2, fc1 = s.masks["conv2.weight"], s.masks["fc1.weight"]
        for c in range(50):
            dead += not conv2[c].any() or not any(fc1[:, 25 * c + pixel].any() for pixel in range(25))
        fed += sum(bool(f.any()) for f in fc1)
        read += sum(bool(conv2[:, c].any()) for c in range(20))
    assert found.layers[1].dead == dead / 2
    assert found.layers[2].fed == fed / 2
    assert found.layers[1].read == read / 2
    into = np.mean([sorted(s.masks["conv2.weight"].sum(axis=(1, 2, 3)), reverse=True) for s in saved], axis=0)
    assert found.layers[1].into.tolist() == into.tolist()
    assert not found.linear
    assert found.pixels is None


def test_dead_channels_made_by_hand(runs: dict[str, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    saved = runs["lenet-5"].load("rewind", 0, 0)
    saved.masks["conv1.weight"][3] = False  # nothing leads to it
    saved.masks["conv2.weight"][:, 5] = False  # nothing leads on from it
    saved.masks["fc1.weight"][:, 7 * 25 : 8 * 25] = False  # nothing leads on from any of its pixels
    saved.masks["fc1.weight"][:, 9 * 25 : 10 * 25 - 1] = False  # one pixel does
    monkeypatch.setattr(runs["lenet-5"], "read", lambda place: saved)
    found = anatomy.anatomy(runs["lenet-5"], 0)
    assert [layer.dead for layer in found.layers] == [2, 1, 0, 0]
    assert [layer.left for layer in found.layers] == [18, 49, 500, 10]


def test_without_an_order_nothing_is_called_dead(runs: dict[str, Run]) -> None:
    for name in ("resnet-8", "odd", "sequence"):
        run = runs[name]
        found = anatomy.anatomy(run, 2)
        assert [layer.name for layer in found.layers] == run.network.prunable
        assert {layer.dead for layer in found.layers} == {None}
        assert found.pixels is None
    masks = [runs["resnet-8"].load("rewind", r, 2).masks["stage2.block1.conv1.weight"] for r in (0, 1)]
    (layer,) = (one for one in anatomy.anatomy(runs["resnet-8"], 2).layers if one.name == "stage2.block1.conv1.weight")
    assert (layer.units, layer.inputs) == (6, 3)
    assert layer.left == layer.fed == np.mean([m.any(axis=(1, 2, 3)).sum() for m in masks])
    assert layer.read == np.mean([m.any(axis=(0, 2, 3)).sum() for m in masks])
    by_name = {one.name: one for one in anatomy.anatomy(runs["odd"], 0).layers}
    assert (by_name["up.weight"].units, by_name["up.weight"].inputs) == (4, 6)
    assert (by_name["deep.weight"].units, by_name["deep.weight"].inputs) == (6, 3)
    assert by_name["deep.weight"].into.tolist() == [9] * 6


def test_kernels_of_the_convolution_that_reads_images(runs: dict[str, Run]) -> None:
    for name, tensor in (("lenet-5", "conv1.weight"), ("vgg-11", "conv1.weight"), ("resnet-8", "conv.weight")):
        found, saved = anatomy.anatomy(runs[name], 2).kernels, runs[name].load("rewind", 0, 2)
        assert found is not None
        assert (found.name, found.replicate) == (tensor, 0)
        assert (np.isnan(found.start) == ~saved.masks[tensor]).all()
        assert (np.nan_to_num(found.start) == saved.start[tensor]).all()
        assert (np.nan_to_num(found.trained) == saved.trained[tensor]).all()
    assert [anatomy.anatomy(runs[name], 2).kernels for name in ("odd", "sequence", "mlp")] == [None] * 3


def test_pixels_of_colour_are_counted_together(runs: dict[str, Run]) -> None:
    found = anatomy.anatomy(runs["mlp"], 2).pixels
    assert found is not None
    masks = [runs["mlp"].load("rewind", r, 2).masks["fc1.weight"] for r in (0, 1)]
    assert found.shape == (32, 32)
    assert found[5, 20] == np.mean([m[:, [c * 1024 + 5 * 32 + 20 for c in range(3)]].sum() for m in masks])


# --- views ----------------------------------------------------------------------------------------------------------


def tickets(run: Run) -> layers.Tickets:
    frame = run.levels()
    margin: Any = None
    found = layers.tickets(charts.Shown(run, "", "", 0, frame, answer_of(run), margin, []), [0, 1, 2])
    assert found
    return found


def test_many_layers_are_rows_of_maps(runs: dict[str, Run]) -> None:
    for name in ("vgg-11", "resnet-8"):
        found = {chart.name: chart for chart in tickets(runs[name]).charts}
        names = [n.removesuffix(".weight") for n in runs[name].network.prunable]
        assert len(names) > layers.FEW
        (density,) = found["run_layers"].traces
        assert density["y"] == names
        frame = runs[name].levels()
        for tensor, row in zip(runs[name].network.prunable, density["z"], strict=True):
            means = frame.groupby("level")[f"density:{tensor}"].mean()
            assert 10 ** np.array(row, float) == pytest.approx(100 * means.to_numpy(), rel=2e-3)
        assert found["run_layers"].layout["yaxis"]["autorange"] == "reversed"
        for chart in ("run_left", "run_units", "run_spread", "run_layers"):
            assert found[chart].rows == len(names)
        (bars,) = found["run_left"].by_level[2]
        expected = [layer.left / layer.units for layer in anatomy.anatomy(runs[name], 2).layers]
        assert bars["x"] == pytest.approx([100 * x for x in expected], abs=0.06)
        assert tickets(runs[name]).weights == []


def test_columns_of_the_layers_table(runs: dict[str, Run]) -> None:
    assert tickets(runs["mlp"]).headings == [
        *("weights left", "of", "left", "units", "dead", "connections into a unit: median", "range")
    ]
    ordered = [
        "weights left",
        "of",
        "left",
        "units",
        "fed",
        "dead",
        "inputs",
        "read",
        "weights into a unit: median",
        "range",
    ]
    assert tickets(runs["lenet-5"]).headings == ordered
    assert tickets(runs["resnet-8"]).headings == [heading for heading in ordered if heading != "dead"]
    assert "dead" in " ".join(tickets(runs["lenet-5"]).notes)
    assert "dead" not in " ".join(tickets(runs["resnet-8"]).notes)
    name, cells = tickets(runs["lenet-5"]).tables[0][1]
    assert name == "conv2.weight"
    assert cells == ["25,000", "25,000", "100\u00a0%", "50", "50", "0", "20", "20", "500", "500–500"]


@pytest.mark.parametrize("name", ["lenet-5", "resnet-8", "odd"])
def test_every_view_of_any_network(runs: dict[str, Run], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs[name]
    for words in (["show"], ["verify"], ["list"], ["figures"]):
        path = ["--runs-dir", str(run.path.parent)] if words == ["list"] else [str(run.path)]
        assert cli.main([*words, *path]) == 0, words
    drawn = {path.stem for path in run.path.glob("figures/*")}
    there = {"kernels": name != "odd", "pixels": False}
    there |= dict.fromkeys(("channels", "layers", "units", "weights"), True)
    assert {figure: figure in drawn for figure in there} == there
    page = document.page([run])
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert ("run_kernels_trained" in data["charts"]) == there["kernels"]
    assert "run_left" in data["charts"]
    for chart in data["charts"].values():
        assert not chart["by_level"] or len(chart["by_level"]) == 3
    assert repr(run).startswith("<Run ")
    assert run._repr_html_().count("<tr>") == 4
    assert len(run.weights(1)) == run.network.weights
    capsys.readouterr()


def test_the_page_of_flat_inputs_and_that_of_linear_layers(runs: dict[str, Run]) -> None:
    shared = {"run_units", "run_layers", "run_overlap"}
    assert {chart.name for chart in tickets(runs["sequence"]).charts} == {"run_left"} | shared
    assert {chart.name for chart in tickets(runs["mlp"]).charts} == {"run_pixels"} | shared
    document.page([runs["sequence"], runs["mlp"]])


def test_a_network_whose_every_weight_is_pruned(tmp_path: Path) -> None:
    run = saved_run(
        tmp_path / "none", replace(spec("vgg-11", width=2), pruning=Pruning(rate=1.0), levels=1, replicates=1)
    )
    document.page([run])
    for name in ("layers", "units", "channels", "kernels"):
        plots.FIGURES[name](run, level=1) if name != "layers" else plots.layers(run)  # type: ignore[call-arg]
    assert [layer.left for layer in anatomy.anatomy(run, 1).layers] == [0] * 9


def test_histories_go_to_the_trackers(runs: dict[str, Run]) -> None:
    pytest.importorskip("tensorboard")
    with trackers.Logs("tensorboard", runs["resnet-8"].path) as logs:
        pass
    assert len(list(Path(logs.where["tensorboard"]).glob("rewind/replicate-*/events.*"))) == 2


def test_figures_say_what_is_missing(runs: dict[str, Run]) -> None:
    with pytest.raises(LotteryError, match="no convolution is known to read its images"):
        plots.kernels(runs["odd"])
    with pytest.raises(LotteryError, match="which have no filters; see units"):
        plots.channels(runs["mlp"])
    with pytest.raises(LotteryError, match="no first layer reads images pixel by pixel"):
        plots.pixels(runs["lenet-5"])


def test_figures_show_the_numbers(runs: dict[str, Run]) -> None:
    found = anatomy.anatomy(runs["resnet-8"], 2)
    bars = plots.channels(runs["resnet-8"], 2).patches
    assert [bar.get_width() for bar in bars] == [100 * layer.left / layer.units for layer in found.layers]  # type: ignore[attr-defined]
    picture = plots.layers(runs["resnet-8"]).images[0].get_array()
    assert picture is not None
    frame = runs["resnet-8"].levels()
    means = [frame.groupby("level")[f"density:{n}"].mean().to_numpy() for n in runs["resnet-8"].network.prunable]
    assert np.asarray(picture) == pytest.approx(100 * np.array(means))


def test_a_mosaic_has_every_kernel_once() -> None:
    kernels = np.arange(8 * 3 * 2 * 5, dtype=float).reshape(8, 3, 2, 5)
    mosaic = Mosaic((8, 3, 2, 5), aspect=1.3)
    cells = mosaic.picture(kernels)
    assert sorted(cells[~np.isnan(cells)]) == sorted(kernels.ravel())
    row, column = mosaic.corner(6)
    assert (cells[row + 2 : row + 4, column : column + 5] == kernels[6, 1]).all()
    assert 8 % mosaic.columns == 0
    x, y = mosaic.outlines()
    assert x.count(None) == y.count(None) == 8 * 3
    assert Mosaic((512, 3, 3, 3), aspect=1.3).picture(np.ones((512, 3, 3, 3)))[0, 0] == 1
    assert np.nansum(Mosaic((512, 3, 3, 3), aspect=1.3).picture(np.ones((512, 3, 3, 3)))) == 64 * 27
