"""`helpers.data`: embedded images, the choice of the source, and the real sets as torchvision reads them."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from sklearn.utils import Bunch

from helpers import data, download
from helpers.data import DataError, ImageSet, RemoteSet, load_fashion_mnist, load_mnist, load_things
from tests.local_data import SPLITS, TINY, TINY_FILES, TINY_PACKED, tiny_set

ROOT = Path(__file__).parents[1]
LOADERS = (load_mnist, load_fashion_mnist)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, an empty data folder, and nothing remembered from the test before."""

    def blocked(*_, **__):
        raise OSError("the network is blocked")

    monkeypatch.setattr("socket.getaddrinfo", blocked)
    monkeypatch.setattr("socket.socket.connect", blocked)
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LABS_DATA_SOURCE", raising=False)
    monkeypatch.setattr(download, "_given_up", set())


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


@pytest.mark.parametrize("split, size", [("train", 6_000), ("test", 2_000)])
def test_drawn_garments_have_the_form_of_fashion_mnist(embedded, split, size):
    garments = load_fashion_mnist(split)
    assert garments.images.shape == (size, 1, 28, 28) and garments.images.dtype == np.float32
    assert garments.images.min() == 0 and garments.images.max() <= 1
    assert garments.labels.dtype == np.int64 and np.bincount(garments.labels).tolist() == [size // 10] * 10
    assert garments.class_names[0] == "T-shirt/top" and garments.class_names[9] == "Ankle boot"
    assert garments.parts.shape == (size, 28, 28) and garments.parts.dtype == np.uint8
    assert garments.part_names[0] == "background" and garments.parts.max() < len(garments.part_names)
    assert (garments.images[:, 0][garments.parts > 0] > 0).mean() > 0.99


def test_drawn_splits_share_no_image(embedded):
    every = [image.tobytes() for split in SPLITS for image in load_fashion_mnist(split, 2_000).images]
    assert len(set(every)) == 4_000


def test_garments_keep_their_parts(embedded):
    every = load_fashion_mnist("test", 40)
    some = load_fashion_mnist("test", 10)
    assert np.array_equal(some.parts, every.parts[:10])
    chosen = every.subset([7, 3])
    assert np.array_equal(chosen.parts, every.parts[[7, 3]])
    assert chosen.part_names == every.part_names
    assert load_mnist("test", 10).subset([1]).parts is None


def test_more_garments_than_there_are(embedded):
    with pytest.raises(
        DataError, match=r"^The train split of Fashion-MNIST \(embedded\) has 6,000 images and"
    ):
        load_fashion_mnist("train", 60_000)


def test_embedded_data_import_neither_torch_nor_tensorflow():
    code = """if True:
        import sys
        from helpers.data import load_fashion_mnist, load_mnist
        load_mnist("test")
        load_fashion_mnist("test", 10)
        print({"torch", "torchvision", "tensorflow", "keras"} & set(sys.modules))
    """
    environment = {**os.environ, "LABS_DATA_SOURCE": "embedded", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    digits, garments, imported = run.stdout.splitlines()
    assert digits == "MNIST: embedded digits (scikit-learn), 768 test images"
    assert garments == "Fashion-MNIST: drawn garments (embedded), 10 test images"
    assert imported == "set()"
    assert run.stderr == ""


# ------------------------------------------------------------------------------------------ ImageSet


@pytest.mark.parametrize("load", LOADERS)
def test_part_of_the_images(embedded, load):
    few, more, others = load("test", 50), load("test", 200), load("test", 50, seed=1)
    assert np.array_equal(few.images, more.images[:50]) and np.array_equal(few.labels, more.labels[:50])
    assert not np.array_equal(few.images, others.images)
    assert len({image.tobytes() for image in more.images}) == 200
    everything = {image.tobytes(): label for image, label in load("test")}
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
@pytest.mark.parametrize("load", LOADERS)
def test_fewer_images_than_one(embedded, n, load):
    with pytest.raises(ValueError, match=f"n is {n}; ask for at least 1"):
        load("train", n)


@pytest.mark.parametrize("load", LOADERS)
def test_wrong_split(embedded, load):
    with pytest.raises(ValueError, match="split is 'validation'; use 'train' or 'test'"):
        load("validation")


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


@dataclass
class Tiny:
    """A tiny set in the place of a real one, and how a lab loads it."""

    remote: RemoteSet
    load: Callable[..., ImageSet]
    things: str
    embedded: str  # the embedded training images, as the printed line calls them

    def store(self) -> None:
        self.remote.folder.mkdir(parents=True, exist_ok=True)
        for name, content in TINY_FILES.items():
            (self.remote.folder / name).write_bytes(content)


@pytest.fixture(params=["MNIST", "FASHION_MNIST"])
def tiny(request, monkeypatch) -> Tiny:
    remote = tiny_set(getattr(data, request.param))
    monkeypatch.setattr(data, request.param, remote)
    monkeypatch.setitem(data.REMOTE_SETS, remote.name, remote)
    if request.param == "MNIST":
        return Tiny(remote, load_mnist, "digits", "embedded digits (scikit-learn), 1,029 training images")
    return Tiny(remote, load_fashion_mnist, "garments", "drawn garments (embedded), 6,000 training images")


@pytest.mark.parametrize("setting", ["auto", "real", ""])
@pytest.mark.parametrize("split", SPLITS)
def test_real_data_that_are_there(tiny, monkeypatch, capsys, setting, split):
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    tiny.store()
    digits = tiny.load(split)
    images, labels = TINY[split]
    assert digits.source == "real" and digits.parts is None
    assert digits.images.shape == (len(images), 1, 28, 28) and digits.images.dtype == np.float32
    assert np.array_equal(np.rint(digits.images[:, 0] * 255), images) and digits.images.max() <= 1
    assert digits.labels.tolist() == labels.tolist() and digits.labels.dtype == np.int64
    kind = {"train": "training", "test": "test"}[split]
    assert capsys.readouterr().out == (
        f"{tiny.remote.title}: real {tiny.things}, {len(images)} {kind} images\n"
    )


def test_more_real_images_than_there_are(tiny):
    tiny.store()
    with pytest.raises(
        DataError, match=rf"^The test split of {tiny.remote.title} \(real\) has 20 images and 21 were"
    ):
        tiny.load("test", 21)


def test_embedded_means_embedded(tiny, embedded):
    tiny.store()
    assert tiny.load("test").source == "embedded"


def test_old_processed_files_are_not_trusted(tiny):
    """torchvision's MNIST class would load these, and nobody knows what they hold."""
    import torch

    tiny.store()
    processed = tiny.remote.folder.parent / "processed"
    processed.mkdir()
    black = torch.zeros(5, 28, 28, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64)
    for name in ("training.pt", "test.pt"):
        torch.save(black, processed / name)
    assert len(tiny.load("train")) == 40


@pytest.mark.parametrize("name", TINY_FILES)
@pytest.mark.parametrize("split", SPLITS)
def test_damaged_file_offline(tiny, monkeypatch, capsys, name, split):
    """Whatever file it is, both splits are embedded: no lab may train on one source and test on the other."""
    tiny.store()
    (tiny.remote.folder / name).write_bytes(TINY_FILES[name][:-1])
    assert tiny.load(split).source == "embedded"
    assert f"{name} is damaged" in capsys.readouterr().out
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=f"{name} is damaged"):
        tiny.load(split)


def test_nothing_there_and_no_network(tiny, monkeypatch, capsys):
    assert tiny.load("train").source == "embedded"
    assert capsys.readouterr().out == (
        f"{tiny.remote.title}: {tiny.embedded} [{tiny.remote.title} is not in {tiny.remote.folder}, "
        "and no server answers (the network is blocked); restart the kernel to try again]\n"
    )
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=r"no server answers \(the network is blocked\); connect to"):
        tiny.load("train")


def test_once_embedded_stays_embedded(tiny, capsys):
    assert tiny.load("train").source == "embedded"
    tiny.store()  # the network is back, say
    assert tiny.load("test").source == "embedded"
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("restart the kernel to try again]") and second.endswith("[for the same reason]")


def test_download_on_the_way(tiny, monkeypatch, capsys):
    monkeypatch.setattr(download, "answering", lambda urls: dict.fromkeys(urls, ""))
    asked = []

    def send(url, part, size, bar, before):
        asked.append(url)
        part.write_bytes(TINY_PACKED[url.rsplit("/", 1)[1].removesuffix(".gz")])

    monkeypatch.setattr(download, "_download", send)
    assert tiny.load("train").source == "real"
    assert tiny.load("test").source == "real"
    assert asked == [f"{tiny.remote.mirrors[0]}{name}.gz" for name in TINY_FILES]
    assert capsys.readouterr().out.startswith(f"Downloading {tiny.remote.title} (0.0 MB) to ")


@pytest.mark.parametrize("setting", ["reel", "Real", "none"])
@pytest.mark.parametrize("load", LOADERS)
def test_wrong_setting(monkeypatch, setting, load):
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    with pytest.raises(DataError) as error:
        load("train")
    assert str(error.value) == f"LABS_DATA_SOURCE is '{setting}'; set it to auto, real or embedded."


# What the tests before put into LABS_DATA is gone again; this is the folder that the person or CI has named.
REAL = Path(os.environ.get("LABS_DATA") or ROOT / "data")


@pytest.fixture
def real(monkeypatch):
    monkeypatch.setenv("LABS_DATA", str(REAL))
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")


@pytest.mark.skipif(not (REAL / "MNIST").is_dir(), reason="real MNIST is neither in LABS_DATA nor in data/")
def test_mnist_itself(real):
    train, test = (load_mnist(split) for split in SPLITS)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3] and test.labels[:4].tolist() == [7, 2, 1, 0]
    assert train.images.mean() == pytest.approx(0.1307, abs=1e-4)
    assert train.images.std() == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.skipif(not (REAL / "FashionMNIST").is_dir(), reason="no real Fashion-MNIST here either")
def test_fashion_mnist_itself(real):
    train, test = (load_fashion_mnist(split) for split in SPLITS)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2] and test.labels[:4].tolist() == [9, 2, 1, 1]
    assert train.images.mean() == pytest.approx(0.2860, abs=1e-4)
    assert train.images.std() == pytest.approx(0.3530, abs=1e-4)
    assert np.bincount(train.labels).tolist() == [6_000] * 10
    assert load_fashion_mnist("train", 6_000).images.nbytes < 20e6  # and not a view of all 60,000


# ------------------------------------------------------------------------------------------ around it


def test_readme_has_every_checksum():
    readme = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\S+)` \| `([0-9a-f]{64})` \|$", readme, re.MULTILINE)
    sets = data.REMOTE_SETS.values()
    assert listed == [(f"{one.subfolder}/{file.name}", file.sha256) for one in sets for file in one.files]


def test_sets_are_small_enough_to_come_unasked():
    sizes = [(remote.name, download.megabytes(remote.size)) for remote in data.REMOTE_SETS.values()]
    assert sizes == [("mnist", "11.6 MB"), ("fashion-mnist", "30.9 MB")]
    assert max(remote.size for remote in data.REMOTE_SETS.values()) < download.ASK_ABOVE


def test_command_line(tiny, capsys):
    name = tiny.remote.name
    assert data.main([]) == 0
    assert f"{name}: missing in {tiny.remote.folder} (download: 0.0 MB)\n" in capsys.readouterr().out
    assert data.main([name]) == 1
    assert "connect to the network" in capsys.readouterr().err
    tiny.store()
    assert data.main([name]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: present in ")
    with pytest.raises(SystemExit, match="2"):
        data.main(["mnits"])
    assert "there is no set called mnits; choose from: mnist, fashion-mnist" in capsys.readouterr().err


def test_drawn_things_come_in_two_series(capsys):
    train, test = load_things("train", 16, size=32), load_things("test", 8, size=32)
    assert train.images.shape == (16, 3, 32, 32) and train.images.dtype == np.uint8
    assert np.bincount(train.labels).tolist() == [2] * 8
    assert train.parts.max() < len(train.part_names) and train.parts[3].max() > 0
    assert not np.array_equal(train.images[:8], test.images)
    assert np.array_equal(load_things("train", 8, size=32).images, train.images[:8])
    assert (train.source, train.class_names[5]) == ("embedded", "fish")
    assert capsys.readouterr().out == ""
    with pytest.raises(ValueError, match="split is 'valid'; use 'train' or 'test'"):
        load_things("valid", 8)
