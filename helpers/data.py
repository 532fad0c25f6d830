"""The pictures of the labs: real data first, embedded data always.

`LABS_DATA_SOURCE` decides which is used:

- `auto` (the default): the real data if they are there or can be downloaded, otherwise the embedded ones;
- `real`: the real data, or a `DataError` that says what to do;
- `embedded`: what comes with the installed packages, without any network.

`LABS_DATA` is the folder of the real data; without it, `data/` beside this package.

`python -m helpers.data` lists the sets of real data, `python -m helpers.data mnist` downloads one. The photos
of cats and dogs come only in this way, and so do the larger ones of the weights (`helpers.pretrained`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from helpers import drawn_pets, drawn_things, pet_photos
from helpers.download import DataError, RemoteFile, RemoteSet, Source, choose_source, fetch, megabytes
from helpers.drawn_garments import CLASS_NAMES, PART_NAMES, draw_garments
from helpers.photos import class_of, describe_faults, read_photos

__all__ = [
    "FASHION_MNIST",
    "MNIST",
    "REMOTE_SETS",
    "DataError",
    "ImageSet",
    "load_fashion_mnist",
    "load_mnist",
    "load_pets",
]

Split = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, which know where they come from.

    images       (N, C, H, W): float32 from 0 to 1, or, for pets, uint8 from 0 to 255, which needs a quarter
                 of the memory
    labels       int64 (N,), indices into `class_names`
    class_names  one name per class
    title        what is shown, for example "MNIST"
    split        "train" or "test"
    source       "real" or "embedded"
    origin       the source in words, for example "embedded digits (scikit-learn)"
    parts        uint8 (N, H, W), which part of the object each pixel shows: an index into `part_names`, 0 for
                 the background. None where that is not known, as for photographs
    part_names   one name per part, background first; empty without `parts`

    It has a length and gives (image, label) pairs by index, so a torch `DataLoader` takes it as it is.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    title: str
    split: Split
    source: Source
    origin: str
    parts: np.ndarray | None = None
    part_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Image `index`, shape (C, H, W), as it is stored, and its label."""
        return self.images[index], int(self.labels[index])

    def subset(self, indices: Sequence[int] | np.ndarray) -> ImageSet:
        """A copy of the images with these indices, in this order, or of those where a mask of N is true."""
        chosen = list(indices)
        parts = None if self.parts is None else self.parts[chosen]
        return replace(self, images=self.images[chosen], labels=self.labels[chosen], parts=parts)

    @property
    def caption(self) -> str:
        """One truthful line for a figure, for example "MNIST: real digits, 1,000 test images"."""
        kind = {"train": "training", "test": "test"}[self.split]
        return f"{self.title}: {self.origin}, {len(self):,} {kind} image{'s' if len(self) != 1 else ''}"


def load_mnist(split: Split, n: int | None = None, *, seed: int = 0) -> ImageSet:
    """Handwritten digits of 28x28: MNIST, or scikit-learn's digits in the same shape. Prints which.

    split  "train" (60,000 real or 1,029 embedded images) or "test" (10,000 or 768), by other writers.
    n      how many images; without it all of them, in the order of the source. The choice is random but
           fixed: a smaller `n` with the same `seed` gives the beginning of a larger one.

    Returns an `ImageSet` with images (n, 1, 28, 28). Raises `DataError` if there are fewer than `n`, if
    `LABS_DATA_SOURCE` has a wrong value, or if it is "real" and MNIST cannot be had; `ValueError` for another
    split or an `n` below 1.

    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database"; E. Alpaydin, C. Kaynak, "Optical
    recognition of handwritten digits" (UCI), as it comes with scikit-learn. data/README.md says more.
    """
    source, note = _choose_source(split, MNIST.folder, partial(fetch, MNIST))
    images, labels = _read_idx(MNIST, split) if source == "real" else _embedded_digits(split)
    chosen = _choose(len(images), n, seed, f"The {split} split of {MNIST.title} ({source})")
    digits = ImageSet(
        images=images[chosen, None] / np.float32(255),
        labels=labels[chosen].astype(np.int64),
        class_names=tuple("0123456789"),
        title=MNIST.title,
        split=split,
        source=source,
        origin="real digits" if source == "real" else "embedded digits (scikit-learn)",
    )
    print(digits.caption + note)
    return digits


def load_fashion_mnist(split: Split, n: int | None = None, *, seed: int = 0) -> ImageSet:
    """Garments of 28x28: Fashion-MNIST, or garments that this project draws. Prints which.

    split  "train" (60,000 real or 6,000 drawn images) or "test" (10,000 or 2,000).
    n      how many images; without it all of them, in the order of the source. The choice is random but
           fixed: a smaller `n` with the same `seed` gives the beginning of a larger one.

    Returns an `ImageSet` with images (n, 1, 28, 28). The drawn ones bring `parts` (sleeves, sole, ...), so
    that one can measure where a heatmap points; photographs do not. Raises as `load_mnist` does.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", 2017; or `helpers.drawn_garments`.
    """
    source, note = _choose_source(split, FASHION_MNIST.folder, partial(fetch, FASHION_MNIST))
    what = f"The {split} split of {FASHION_MNIST.title} ({source})"
    parts = None
    if source == "real":
        images, labels = _read_idx(FASHION_MNIST, split)
        chosen = _choose(len(images), n, seed, what)
        images, labels = images[chosen], labels[chosen]
    else:
        total, series = DRAWN_GARMENTS[split]
        images, labels, parts = draw_garments(_choose(total, n, seed, what), seed=series)
    garments = ImageSet(
        images=images[:, None] / np.float32(255),
        labels=labels.astype(np.int64),
        class_names=CLASS_NAMES,
        title=FASHION_MNIST.title,
        split=split,
        source=source,
        origin="real garments" if source == "real" else "drawn garments (embedded)",
        parts=parts,
        part_names=() if parts is None else PART_NAMES,
    )
    print(garments.caption + note)
    return garments


def load_pets(split: Split, n: int | None = None, *, size: int = 96, seed: int = 0) -> ImageSet:
    """Cats (0) and dogs (1): real photos, or pets that this project draws. Prints which.

    split  "train" (3,000 drawn images; of the photos about 80 %) or "test" (1,000; the others). The name of
           a photo alone decides, so it is in the same split on every computer, and in a part of the photos.
    n      how many images; without it all of them. The choice is random but fixed: a smaller `n` with the
           same `seed` gives the beginning of a larger one. For photos, all of them too come in this mixed
           order, because in the folder every cat is before the first dog.
    size   height and width in pixels, 32 to 512. Photos are squeezed to a square, nothing is cut off.

    Returns an `ImageSet` with images uint8 (n, 3, size, size), RGB from 0 to 255: 28 kB each at 96 pixels,
    151 kB at 224. The classes are about equally frequent, not exactly. The drawn pets bring `parts` (ears,
    muzzle, ...), photos do not.

    Files that are broken, empty, animated (GIFs that are called .jpg), too large, unreadable, or by their
    name no pictures are skipped and counted in the printed line; the next photos take their place.

    The photos are in `PetImages/Cat` and `PetImages/Dog` in the data folder. They are never downloaded from
    here: `python -m helpers.data pets` does that. Raises `DataError` if there are fewer than `n`, if none
    can be read, if `LABS_DATA_SOURCE` has a wrong value, or if it is "real" and a folder is missing or
    empty; `ValueError` for another split or size, or an `n` below 1.

    Source: J. Elson, J. R. Douceur, J. Howell, J. Saul, "Asirra: A CAPTCHA that Exploits Interest-Aligned
    Manual Image Categorization", 2007; or `helpers.drawn_pets`.
    """
    if not 32 <= size <= 512:  # smaller or larger pets are not drawn, and photos should not differ in this
        raise ValueError(f"size is {size}; use 32 to 512 pixels.")
    source, note = _choose_source(split, pet_photos.folder(), pet_photos.get_pets)
    what = f"The {split} split of {pet_photos.TITLE} ({source})"
    parts, part_names = None, ()
    if source == "real":
        images, labels, note = _read_pets(split, n, size, seed, what)
    else:
        total, series = DRAWN_PETS[split]
        drawn = drawn_pets.sample_pets(_choose(total, n, seed, what).tolist(), seed=series)
        images, parts = drawn_pets.draw_pets(drawn, size=size)
        part_names = drawn_pets.PART_NAMES
        labels = [drawn_pets.CLASS_NAMES.index(pet.species) for pet in drawn]
    pets = ImageSet(
        images=images,
        labels=np.array(labels, dtype=np.int64),
        class_names=drawn_pets.CLASS_NAMES,
        title=pet_photos.TITLE,
        split=split,
        source=source,
        origin="real photos" if source == "real" else "drawn pets (embedded)",
        parts=parts,
        part_names=part_names,
    )
    print(pets.caption + note)
    return pets


def load_things(split: Split, n: int, *, size: int = 96) -> ImageSet:
    """Drawings of the eight classes that the stand-ins of labs 04 and 05 know. Prints nothing.

    split  "train" or "test": two series of drawings; n: how many, the classes in equal numbers if 8 divides
           it; a smaller `n` gives the beginning of a larger one; size: height and width, 32 to 512 pixels

    Returns an `ImageSet` with images uint8 (n, 3, size, size), RGB from 0 to 255, and `parts`. There are no
    photos of them: the source is always "embedded". Raises `ValueError` for another split, number or size.
    """
    if split not in THINGS_SERIES:
        raise ValueError(f"split is {split!r}; use 'train' or 'test'.")
    things = drawn_things.sample_things(n, seed=THINGS_SERIES[split])
    images, parts = drawn_things.draw_things(things, size)
    return ImageSet(
        images=images,
        labels=np.array([drawn_things.CLASS_NAMES.index(thing.kind) for thing in things], dtype=np.int64),
        class_names=drawn_things.CLASS_NAMES,
        title="Drawn things",
        split=split,
        source="embedded",
        origin="eight drawn classes (embedded)",
        parts=parts,
        part_names=drawn_things.PART_NAMES,
    )


# ------------------------------------------------------------------------------------------ choosing


def _choose_source(split: str, folder: Path, get: Callable[[], object]) -> tuple[Source, str]:
    """The source to use, and what to add to the printed line. Raises ValueError for an unknown split.

    `get` makes sure that the real data are in `folder`, or raises DataError.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split is {split!r}; use 'train' or 'test'.")
    source, _, note = choose_source(folder, get)
    return source, note


def _choose(total: int, n: int | None, seed: int, what: str) -> np.ndarray:
    """Indices of `n` out of `total` images."""
    if n is None:
        return np.arange(total)
    if n < 1:
        raise ValueError(f"n is {n}; ask for at least 1 image, or leave n out for all of them.")
    if n > total:
        raise _too_few(what, total, n)
    # NumPy promises the same numbers in every version for RandomState, but not for default_rng.
    return np.random.RandomState(seed).permutation(total)[:n]


def _too_few(what: str, total: int, n: int) -> DataError:
    return DataError(
        f"{what} has {total:,} images and {n:,} were asked for",
        f"ask for at most {total:,}, or leave n out for all of them",
    )


# ------------------------------------------------------------------------------------------ the sets


def _in_mnist_format(*files: tuple[str, str, int]) -> tuple[RemoteFile, ...]:
    """Files in MNIST's format from (name, SHA-256 as torchvision stores it, bytes of the packed download)."""
    return tuple(RemoteFile(name, sha256, size, packed=True) for name, sha256, size in files)


# Origin and licence of each set: data/README.md. The folders are where torchvision keeps them.
MNIST = RemoteSet(
    name="mnist",
    title="MNIST",
    subfolder="MNIST/raw",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    files=_in_mnist_format(
        (
            "train-images-idx3-ubyte",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            9_912_422,
        ),
        (
            "train-labels-idx1-ubyte",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            28_881,
        ),
        (
            "t10k-images-idx3-ubyte",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            1_648_877,
        ),
        (
            "t10k-labels-idx1-ubyte",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            4_542,
        ),
    ),
)
FASHION_MNIST = RemoteSet(
    name="fashion-mnist",
    title="Fashion-MNIST",
    subfolder="FashionMNIST/raw",
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",  # has no https; the checksum decides
    ),
    files=_in_mnist_format(
        (
            "train-images-idx3-ubyte",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            26_421_880,
        ),
        (
            "train-labels-idx1-ubyte",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            29_515,
        ),
        (
            "t10k-images-idx3-ubyte",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            4_422_102,
        ),
        (
            "t10k-labels-idx1-ubyte",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
            5_148,
        ),
    ),
)
REMOTE_SETS = {remote.name: remote for remote in (MNIST, FASHION_MNIST)}

# How many garments of which series are drawn for a split.
DRAWN_GARMENTS = {"train": (6_000, 0), "test": (2_000, 1)}
# The same for pets.
DRAWN_PETS = {"train": (3_000, 0), "test": (1_000, 1)}
THINGS_SERIES = {"train": 0, "test": 1}  # of drawn things, without an end


def _read_idx(remote: RemoteSet, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """All images of a split, uint8 (N, 28, 28), and their labels, from files that `fetch` has checked."""
    # Imported here because it takes seconds. Its readers, not its MNIST class: where that finds files of an
    # older format beside these, it takes those, which nobody has checked.
    from torchvision.datasets.mnist import read_image_file, read_label_file

    prefix = {"train": "train", "test": "t10k"}[split]
    images = read_image_file(str(remote.folder / f"{prefix}-images-idx3-ubyte"))
    labels = read_label_file(str(remote.folder / f"{prefix}-labels-idx1-ubyte"))
    return images.numpy(), labels.numpy()


def _embedded_digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 8x8 digits as MNIST would show them, uint8 (N, 28, 28), and their labels.

    Each digit is enlarged to 20x20 and its centre of mass brought to the middle of 28x28. Pillow enlarges in
    integers, and the other steps are exact too, so every platform gets the same pictures.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    # The file goes through 14 forms, one after the other; the ninth begins at image 1,029. The split is made
    # there, so that the test digits are by other writers, as in MNIST.
    rows = np.arange(len(digits.target))
    rows = rows[:1029] if split == "train" else rows[1029:]
    rows = np.random.RandomState(0).permutation(rows)  # in the file, 0 to 9 often come in turn

    images = np.zeros((len(rows), 28, 28), dtype=np.uint8)
    for image, digit in zip(images, digits.images[rows], strict=True):
        small = Image.fromarray((digit.astype(int) * 255 // 16).astype(np.uint8))
        large = np.asarray(small.resize((20, 20), Image.Resampling.BICUBIC)).astype(int)
        # Contrast stretched until the share of ink, mean and deviation are near MNIST's (data/README.md).
        large = np.clip((large - 80) * 255 // (200 - 80), 0, 255)
        top, left = _margin(large.sum(axis=1)), _margin(large.sum(axis=0))
        image[top : top + 20, left : left + 20] = large
    return images, digits.target[rows]


def _margin(profile: np.ndarray) -> int:
    """How many of the 8 free pixels go before 20 others to bring their centre of mass to the middle of 28."""
    centre = (profile @ np.arange(20)) / profile.sum()
    return int(np.clip(round(13.5 - centre), 0, 8))


def _read_pets(
    split: Split, n: int | None, size: int, seed: int, what: str
) -> tuple[np.ndarray, list[int], str]:
    """Images and labels of `n` photos, and what to add to the printed line."""
    found = pet_photos.get_pets()
    names = found.split(split)
    order = _choose(len(names), n, seed, what)  # raises if n is wrong, before any photo is read
    if len(names) > 0:
        order = _choose(len(names), len(names), seed, what)  # the others step in for broken ones
    names = [names[i] for i in order]
    images, kept, faults = read_photos([found.photos[name] for name in names], n or len(names), size)
    if not kept:
        raise DataError(
            f"{what} in {found.folder} has no photo that can be read{describe_faults(faults)}",
            "put the photos there again, or work with the embedded data: LABS_DATA_SOURCE=embedded",
        )
    if n and len(kept) < n:
        raise _too_few(what, len(kept), n)
    faults["not a picture"] += found.others
    labels = [pet_photos.FOLDERS.index(class_of(names[i])) for i in kept]
    return images, labels, describe_faults(faults)


# ------------------------------------------------------------------------------------------ command line

PRETRAINED = ("resnet18", "resnet50", "vgg16")  # as in helpers.pretrained, whose import takes seconds


def main(arguments: Sequence[str] | None = None) -> int:
    """Download the sets named on the command line, or list all of them. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Real data for the labs.")
    known = [*REMOTE_SETS, pet_photos.NAME, *PRETRAINED]
    parser.add_argument("sets", nargs="*", metavar="SET", help=" or ".join(known))
    names = parser.parse_args(arguments).sets
    if unknown := [name for name in names if name not in known]:
        parser.error(f"there is no set called {' or '.join(unknown)}; choose from: {', '.join(known)}")
    try:
        for name in names:
            if name == pet_photos.NAME:
                pet_photos.fetch_pets()
            else:
                fetch(_remote_set(name), requested=True)
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    for name in names or known:
        print(f"{name}: {_pets_state() if name == pet_photos.NAME else _state(_remote_set(name))}")
    return 0


def _remote_set(name: str) -> RemoteSet:
    if name in PRETRAINED:
        from helpers.pretrained import remote_set

        return remote_set(name)
    return REMOTE_SETS[name]


def _state(remote: RemoteSet) -> str:
    states = ", ".join(dict.fromkeys(remote.states().values()))
    return f"{states} in {remote.folder} (download: {megabytes(remote.size)})"


def _pets_state() -> str:
    try:
        found = pet_photos.find_pets()
    except DataError as error:
        return f"unusable, {error}"
    if found is None:
        return f"missing in {pet_photos.folder()} (download: {pet_photos.SIZE})"
    return f"present in {found.folder} ({found.counts()})"


if __name__ == "__main__":
    sys.exit(main())
