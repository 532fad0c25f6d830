"""`helpers.data`: the embedded digits, the choice of the source, and MNIST as torchvision reads it."""

import gzip
import hashlib
import os
import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from sklearn.utils import Bunch

from helpers import data, download
from helpers.data import MNIST, DataError, RemoteFile, load_mnist

ROOT = Path(__file__).parents[1]
SPLITS = ("train", "test")
PREFIX = {"train": "train", "test": "t10k"}


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, an empty data folder, and nothing remembered from the test before."""

    def blocked(*_, **__):
        raise OSError("the network is blocked")

    monkeypatch.setattr("socket.getaddrinfo", blocked)
    monkeypatch.setattr("socket.socket.connect", blocked)
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LABS_DATA_SOURCE", raising=False)
    monkeypatch.setattr(data, "_given_up", set())


@pytest.fixture
def embedded(monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")


# ------------------------------------------------------------------------------------------ embedded


@pytest.mark.parametrize("split, size", [("train", 1_029), ("test", 768)])
def test_embedded_digits_have_the_form_of_mnist(embedded, split, size):
    digits = load_mnist(split)
    assert digits.images.shape == (size, 1, 28, 28) and digits.images.dtype == np.float32
    assert digits.labels.shape == (size,) and digits.labels.dtype == np.int64
    assert (digits.source, digits.split, digits.class_names) == ("embedded", split, tuple("0123456789"))
    assert np.bincount(digits.labels).min() > 70

    levels = digits.images * 255
    assert np.abs(levels - levels.round()).max() < 1e-4 and levels.min() == 0 and levels.max() == 255
    # MNIST: .191 of the pixels are not black, mean .131, standard deviation .308
    assert (digits.images > 0).mean() == pytest.approx(0.191, abs=0.02)
    assert digits.images.mean() == pytest.approx(0.131, abs=0.02)
    assert digits.images.std() == pytest.approx(0.308, abs=0.02)


def test_embedded_digits_are_placed_like_those_of_mnist(embedded):
    images = np.concatenate([load_mnist(split).images[:, 0] for split in SPLITS])
    for profiles in (images.sum(axis=1), images.sum(axis=2)):  # along x, along y
        inked = profiles > 0
        extent = 28 - inked.argmax(axis=1) - inked[:, ::-1].argmax(axis=1)
        assert extent.max() <= 20
        centre = (profiles @ np.arange(28)) / profiles.sum(axis=1)
        assert np.abs(centre - 13.5).max() < 0.51


def test_splits_share_no_image_and_no_form(embedded, monkeypatch):
    """Every digit of scikit-learn's file is used once, and the test split begins with a new form."""
    original = load_digits()
    assert original.target[1029 : 1029 + 30].tolist() == 3 * list(range(10))  # so does every form begin
    images = {split: load_mnist(split).images for split in SPLITS}

    numbered = Bunch(images=original.images, target=np.arange(1_797))  # now a label is a row of the file
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: numbered)
    rows = {split: load_mnist(split).labels for split in SPLITS}
    assert sorted(rows["train"]) == list(range(1_029))
    assert sorted(rows["test"]) == list(range(1_029, 1_797))
    for split in SPLITS:
        drawn, meant = images[split].sum(axis=(1, 2, 3)), original.images[rows[split]].sum(axis=(1, 2))
        assert np.corrcoef(drawn, meant)[0, 1] > 0.9
    every = [image.tobytes() for split in SPLITS for image in images[split]]
    assert len(set(every)) == 1_797


def test_embedded_digits_can_be_learned(embedded):
    """Labels that belong to other images, or test images from another world, would show here."""
    train, test = (load_mnist(split) for split in SPLITS)
    judge = SVC().fit(train.images.reshape(len(train), -1), train.labels)
    assert judge.score(test.images.reshape(len(test), -1), test.labels) > 0.93


def test_order_is_mixed(embedded):
    labels = load_mnist("train").labels
    assert np.mean(np.diff(labels) % 10 == 1) < 0.15  # in scikit-learn's file .30


# The middle row of the first training digit, in grey levels.
MIDDLE_ROW = "0 0 0 0 0 0 0 34 161 255 255 176 23 57 206 255 255 255 255 255 225 25 0 0 0 0 0 0"


def test_embedded_digits_are_the_same_everywhere(embedded):
    digits = load_mnist("train")
    assert np.abs(digits.images[0, 0, 14] * 255 - np.array(MIDDLE_ROW.split(), dtype=float)).max() < 1.001
    assert digits.labels[:12].tolist() == [4, 8, 3, 1, 6, 7, 9, 1, 1, 7, 5, 1]
    assert np.array_equal(digits.images, load_mnist("train").images)


def test_embedded_digits_import_neither_torch_nor_tensorflow():
    code = """if True:
        import sys
        from helpers.data import load_mnist
        load_mnist("test")
        print({"torch", "torchvision", "tensorflow", "keras"} & set(sys.modules))
    """
    environment = {**os.environ, "LABS_DATA_SOURCE": "embedded", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "MNIST: embedded digits (scikit-learn), 768 test images\nset()\n"
    assert run.stderr == ""


# ------------------------------------------------------------------------------------------ ImageSet


def test_part_of_the_images(embedded):
    few, more, others = load_mnist("test", 50), load_mnist("test", 200), load_mnist("test", 50, seed=1)
    assert np.array_equal(few.images, more.images[:50]) and np.array_equal(few.labels, more.labels[:50])
    assert not np.array_equal(few.images, others.images)
    assert len({image.tobytes() for image in more.images}) == 200
    everything = {image.tobytes(): label for image, label in load_mnist("test")}
    assert all(everything[image.tobytes()] == label for image, label in more)


def test_more_images_than_there_are(embedded, capsys):
    assert len(load_mnist("train", 1_029)) == 1_029
    capsys.readouterr()
    with pytest.raises(DataError) as error:
        load_mnist("train", 5_000)
    assert str(error.value) == (
        "The train split of MNIST (embedded) has 1,029 images and 5,000 were asked for; "
        "ask for at most 1,029, or leave n out for all of them."
    )
    assert not capsys.readouterr().out


@pytest.mark.parametrize("n", [0, -1])
def test_fewer_images_than_one(embedded, n):
    with pytest.raises(ValueError, match=f"n is {n}; ask for at least 1"):
        load_mnist("train", n)


def test_wrong_split(embedded):
    with pytest.raises(ValueError, match="split is 'validation'; use 'train' or 'test'"):
        load_mnist("validation")


def test_subset(embedded):
    digits = load_mnist("test")
    chosen = digits.subset([5, 3, 3])
    assert np.array_equal(chosen.images, digits.images[[5, 3, 3]])
    assert chosen.labels.tolist() == digits.labels[[5, 3, 3]].tolist()
    assert chosen.caption == "MNIST: embedded digits (scikit-learn), 3 test images"
    assert digits.subset([0]).caption.endswith(" 1 test image")
    chosen.images[:] = 0
    assert digits.images[3].any()
    fours = digits.subset(digits.labels == 4)
    assert len(fours) == np.sum(digits.labels == 4) and set(fours.labels) == {4}
    assert len(digits.subset([])) == 0
    with pytest.raises(IndexError):
        digits.subset([768])


def test_pairs_by_index_as_a_data_loader_wants_them(embedded):
    digits = load_mnist("test", 10)
    image, label = digits[4]
    assert image.shape == (1, 28, 28) and type(label) is int and label == digits.labels[4]
    assert len(list(digits)) == 10
    with pytest.raises(IndexError):
        digits[10]


def test_loading_leaves_the_random_numbers_alone(embedded):
    np.random.seed(3)
    expected = np.random.RandomState(3).rand()
    load_mnist("train", 100)
    assert np.random.rand() == expected


# ------------------------------------------------------------------------------------------ real


def idx(array: np.ndarray) -> bytes:
    """The format of MNIST's files: two zeros, type, number of axes, their lengths, values."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


RNG = np.random.RandomState(0)
TINY = {"train": (RNG.randint(0, 256, (40, 28, 28)), np.arange(40) % 10)}
TINY["test"] = (RNG.randint(0, 256, (20, 28, 28)), np.arange(20)[::-1] % 10)
TINY_FILES = {
    f"{PREFIX[split]}-{what}-ubyte": idx(array)
    for split, arrays in TINY.items()
    for what, array in zip(("images-idx3", "labels-idx1"), arrays, strict=True)
}


@pytest.fixture
def tiny(monkeypatch):
    """In the place of MNIST a set of 40 + 20 images in the same format, in files with the same names."""
    files = tuple(
        RemoteFile(file.name, hashlib.sha256(TINY_FILES[file.name]).hexdigest(), 1_000, packed=True)
        for file in MNIST.files
    )
    remote = replace(MNIST, files=files)
    monkeypatch.setattr(data, "MNIST", remote)
    monkeypatch.setitem(data.REMOTE_SETS, "mnist", remote)
    return remote


def store(remote) -> None:
    remote.folder.mkdir(parents=True, exist_ok=True)
    for name, content in TINY_FILES.items():
        (remote.folder / name).write_bytes(content)


@pytest.mark.parametrize("setting", ["auto", "real", ""])
@pytest.mark.parametrize("split", SPLITS)
def test_real_data_that_are_there(tiny, monkeypatch, capsys, setting, split):
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    store(tiny)
    digits = load_mnist(split)
    images, labels = TINY[split]
    assert digits.source == "real"
    assert digits.images.shape == (len(images), 1, 28, 28) and digits.images.dtype == np.float32
    assert np.array_equal(np.rint(digits.images[:, 0] * 255), images) and digits.images.max() <= 1
    assert digits.labels.tolist() == labels.tolist() and digits.labels.dtype == np.int64
    kind = {"train": "training", "test": "test"}[split]
    assert capsys.readouterr().out == f"MNIST: real digits, {len(images)} {kind} images\n"


def test_more_real_images_than_there_are(tiny):
    store(tiny)
    with pytest.raises(DataError, match=r"^The test split of MNIST \(real\) has 20 images and 21 were"):
        load_mnist("test", 21)


def test_embedded_means_embedded(tiny, embedded):
    store(tiny)
    assert load_mnist("test").source == "embedded"


def test_old_processed_files_are_not_trusted(tiny):
    """torchvision's MNIST class would load these, and nobody knows what they hold."""
    import torch

    store(tiny)
    processed = tiny.folder.parent / "processed"
    processed.mkdir()
    black = torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)
    for name in ("training.pt", "test.pt"):
        torch.save(black, processed / name)
    assert len(load_mnist("train")) == 40


@pytest.mark.parametrize("name", TINY_FILES)
@pytest.mark.parametrize("split", SPLITS)
def test_damaged_file_offline(tiny, monkeypatch, capsys, name, split):
    """Whatever file it is, both splits are embedded: no lab may train on one source and test on the other."""
    store(tiny)
    (tiny.folder / name).write_bytes(TINY_FILES[name][:-1])
    assert load_mnist(split).source == "embedded"
    assert f"{name} is damaged" in capsys.readouterr().out
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=f"{name} is damaged"):
        load_mnist(split)


def test_nothing_there_and_no_network(tiny, monkeypatch, capsys):
    assert load_mnist("train").source == "embedded"
    assert capsys.readouterr().out == (
        "MNIST: embedded digits (scikit-learn), 1,029 training images "
        f"[MNIST is not in {tiny.folder}, and no server answers (the network is blocked); "
        "restart the kernel to try again]\n"
    )
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=r"no server answers \(the network is blocked\); connect to"):
        load_mnist("train")


def test_once_embedded_stays_embedded(tiny, capsys):
    assert load_mnist("train").source == "embedded"
    store(tiny)  # the network is back, say
    assert load_mnist("test").source == "embedded"
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("restart the kernel to try again]") and second.endswith("[for the same reason]")


def test_download_on_the_way(tiny, monkeypatch, capsys):
    monkeypatch.setattr(download, "answering", lambda urls: dict.fromkeys(urls, ""))
    asked = []

    def send(url, part, size, bar, before):
        asked.append(url)
        part.write_bytes(gzip.compress(TINY_FILES[url.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr(download, "_download", send)
    assert load_mnist("train").source == "real"
    assert load_mnist("test").source == "real"
    assert asked == [f"{MNIST.mirrors[0]}{name}.gz" for name in TINY_FILES]
    assert capsys.readouterr().out.startswith("Downloading MNIST (0.0 MB) to ")


@pytest.mark.parametrize("setting", ["reel", "Real", "none"])
def test_wrong_setting(monkeypatch, setting):
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    with pytest.raises(DataError) as error:
        load_mnist("train")
    assert str(error.value) == f"LABS_DATA_SOURCE is '{setting}'; set it to auto, real or embedded."


# What the tests before put into LABS_DATA is gone again; this is the folder that the person or CI has named.
REAL = Path(os.environ.get("LABS_DATA") or ROOT / "data")


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="real MNIST is neither in LABS_DATA nor in data/")
def test_mnist_itself(monkeypatch):
    monkeypatch.setenv("LABS_DATA", str(REAL))
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    train, test = (load_mnist(split) for split in SPLITS)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3] and test.labels[:4].tolist() == [7, 2, 1, 0]
    assert train.images.mean() == pytest.approx(0.1307, abs=1e-4)
    assert train.images.std() == pytest.approx(0.3081, abs=1e-4)


# ------------------------------------------------------------------------------------------ around it


def test_readme_has_every_checksum():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE)
    sets = data.REMOTE_SETS.values()
    assert listed == [(f"{one.subfolder}/{file.name}", file.sha256) for one in sets for file in one.files]


def test_mnist_is_small_enough_to_come_unasked():
    assert download.megabytes(MNIST.size) == "11.6 MB" and MNIST.size < download.ASK_ABOVE


def test_command_line(tiny, capsys):
    assert data.main([]) == 0
    assert capsys.readouterr().out == f"mnist: missing in {tiny.folder} (download: 0.0 MB)\n"
    assert data.main(["mnist"]) == 1
    assert "connect to the network" in capsys.readouterr().err
    store(tiny)
    assert data.main(["mnist"]) == 0
    assert capsys.readouterr().out.startswith("mnist: present in ")
    with pytest.raises(SystemExit, match="2"):
        data.main(["mnits"])
    assert "there is no set called mnits; choose from: mnist" in capsys.readouterr().err
