"""`load_pets`: photos as people really have them, Kaggle as it really answers, and the drawn pets."""

import io
import os
import re
import shutil
import struct
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kagglehub
import numpy as np
import pytest
from kagglehub import exceptions
from PIL import Image

from helpers import data, download, drawn_pets, pet_photos, photos
from helpers.data import DataError, load_pets
from helpers.photos import read_photo, read_photos, split_of
from tests.local_data import SPLITS

ROOT = Path(__file__).parents[1]
FOLDERS = ("Cat", "Dog")


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No network, no photos, and nothing remembered from the test before."""

    def blocked(*_, **__):
        raise OSError("the network is blocked")

    monkeypatch.setattr("socket.getaddrinfo", blocked)
    monkeypatch.setattr("socket.socket.connect", blocked)
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LABS_DATA_SOURCE", raising=False)
    monkeypatch.setattr(download, "_given_up", set())


def encoded(picture: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def photo(number: int, of: str = "Cat") -> bytes:
    """A JPEG in a colour of its own, red for cats and blue for dogs."""
    level = 80 + 3 * number
    return encoded(Image.new("RGB", (40, 30), (level, 40, 0) if of == "Cat" else (0, 40, level)), quality=95)


def number_in(image: np.ndarray) -> tuple[str, int]:
    red, _, blue = image.mean(axis=(1, 2))
    return "Cat" if red > blue else "Dog", round((max(red, blue) - 80) / 3)


@pytest.fixture
def pets(tmp_path) -> Path:
    """100 photos, and what else such folders hold."""
    folder = tmp_path / "data" / "PetImages"
    for name in FOLDERS:
        (folder / name).mkdir(parents=True)
        for number in range(50):
            (folder / name / f"{number}.jpg").write_bytes(photo(number, name))
    return folder


def loaded(split: str, n: int | None = None, **options: int) -> list[tuple[str, int]]:
    """What `load_pets` gives, by the colours of the photos."""
    return [number_in(image) for image in load_pets(split, n, size=32, **options).images]


# ------------------------------------------------------------------------------------------ photos


@pytest.mark.parametrize("setting", ["auto", "real", ""])
def test_photos_that_are_there(pets, monkeypatch, capsys, setting):
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    sets = {split: load_pets(split) for split in SPLITS}
    for one in sets.values():
        assert one.images.shape == (len(one), 3, 96, 96) and one.images.dtype == np.uint8
        assert one.labels.dtype == np.int64 and one.class_names == ("cat", "dog")
        assert one.source == "real" and one.parts is None and one.part_names == ()
        assert [FOLDERS[label] for label in one.labels] == [number_in(image)[0] for image in one.images]
    train, test = (list(map(number_in, one.images)) for one in sets.values())
    assert sorted(train + test) == sorted((name, number) for name in FOLDERS for number in range(50))
    assert capsys.readouterr().out == (
        f"Cats vs Dogs: real photos, {len(train)} training images\n"
        f"Cats vs Dogs: real photos, {len(test)} test images\n"
    )


def test_cats_and_dogs_are_mixed(pets):
    labels = load_pets("train", size=32).labels
    assert 15 < np.count_nonzero(np.diff(labels)) < 65  # in the folder 1


def test_split_depends_on_the_name_only():
    """These must never change: a network's training photos would become another one's test photos."""
    first = {name: [n for n in range(40) if split_of(f"{name}/{n}.jpg") == "test"] for name in FOLDERS}
    assert first == {"Cat": [19, 22, 25, 29], "Dog": [0, 5, 10, 14, 18, 23, 29, 36]}
    names = [f"{name}/{number}.jpg" for name in FOLDERS for number in range(12_500)]
    shares = Counter(name[:3] for name in names if split_of(name) == "test")
    assert all(0.19 < shares[name] / 12_500 < 0.21 for name in FOLDERS)


def test_order_in_which_the_file_system_lists_files(pets, monkeypatch):
    expected = {split: loaded(split) for split in SPLITS}
    scandir = os.scandir
    for mix in (reversed, np.random.RandomState(0).permutation):
        monkeypatch.setattr(os, "scandir", lambda folder, mix=mix: mix(list(scandir(folder))))
        assert {split: loaded(split) for split in SPLITS} == expected


def test_part_of_the_photos_is_split_like_all(pets):
    all_photos = {split: set(loaded(split)) for split in SPLITS}
    for number in range(0, 50, 3):
        (pets / "Cat" / f"{number}.jpg").unlink()
        (pets / "Dog" / f"{number + 1}.jpg").unlink(missing_ok=True)
    for split in SPLITS:
        assert set(loaded(split)) < all_photos[split]


def test_some_photos_are_the_beginning_of_more(pets):
    for number in range(0, 50, 7):
        (pets / "Cat" / f"{number}.jpg").write_bytes(b"")
    everything = loaded("train")
    assert loaded("train", 5) == everything[:5] and loaded("train", 30) == everything[:30]
    assert loaded("train", 30, seed=1) != everything[:30]
    assert len(everything) == len(set(everything))


def test_photo_is_squeezed_to_a_square(tmp_path):
    picture = Image.new("RGB", (120, 30), "red")
    picture.paste("blue", (60, 0, 120, 30))
    (tmp_path / "wide.png").write_bytes(encoded(picture, "PNG"))
    image = read_photo(tmp_path / "wide.png", 16)
    assert (image[0, :, :7] == 255).all() and (image[2, :, 9:] == 255).all()


def test_large_photo_is_reduced_without_jagged_edges(tmp_path):
    """Stripes of one pixel become grey; picking single pixels would leave stripes, or one colour."""
    stripes = np.zeros((1_600, 1_600), np.uint8)
    stripes[:, ::2] = 255
    (tmp_path / "fine.jpg").write_bytes(encoded(Image.fromarray(stripes), quality=95))
    image = read_photo(tmp_path / "fine.jpg", 32)
    assert np.abs(image.astype(int) - 127).max() < 12


# ------------------------------------------------------------------------------------------ kinds of files


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def enormous() -> bytes:
    """A BMP of a few kB that claims to have 900 million pixels."""
    content = bytearray(encoded(Image.new("RGB", (40, 30)), "BMP"))
    struct.pack_into("<ii", content, 18, 30_000, 30_000)
    return bytes(content)


NOISE = encoded(Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 80, 3), dtype=np.uint8)))
BAD = {
    "empty": (b"", "1 empty"),
    "one byte": (b"\xff", "1 broken"),
    "cut off": (NOISE[: len(NOISE) // 2], "1 broken"),
    "only the header": (NOISE[:300], "1 broken"),
    "zeros": (bytes(5_000), "1 broken"),
    "text": (b"<html>Please log in</html>", "1 broken"),
    "cut-off PNG": (encoded(Image.new("RGB", (400, 300)), "PNG")[:200], "1 broken"),
    "an image in a format that is no photo's": (encoded(Image.new("RGB", (40, 30)), "TIFF"), "1 broken"),
    "animated GIF": (animation("GIF"), "1 animated"),
    "animated PNG": (animation("PNG"), "1 animated"),
    "animated WebP": (animation("WEBP"), "1 animated"),
    "enormous": (enormous(), "1 too large"),
}


@pytest.mark.parametrize("content, fault", BAD.values(), ids=BAD.keys())
def test_file_that_cannot_be_used_is_skipped_and_counted(pets, capsys, content, fault):
    good = loaded("test")
    capsys.readouterr()
    victim, others = good[3], good[:3] + good[4:]
    (pets / victim[0] / f"{victim[1]}.jpg").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loaded("test") == others
        line = f"Cats vs Dogs: real photos, {len(others)} test images [1 file skipped: {fault}]\n"
        assert capsys.readouterr().out == line
        assert loaded("test", 5) == others[:5], "the next one takes its place"
        assert (
            capsys.readouterr().out == f"Cats vs Dogs: real photos, 5 test images [1 file skipped: {fault}]\n"
        )
        assert loaded("test", 3) == others[:3]
        assert capsys.readouterr().out == "Cats vs Dogs: real photos, 3 test images\n"


def test_huge_photo_is_skipped(tmp_path, monkeypatch):
    (tmp_path / "1.jpg").write_bytes(photo(1))
    monkeypatch.setattr(photos, "LARGEST", 40 * 30 - 1)
    assert read_photo(tmp_path / "1.jpg", 8) == "too large"


def test_photo_that_the_system_refuses_to_read(tmp_path, monkeypatch):
    assert read_photo(tmp_path / "gone.jpg", 8) == "unreadable"
    (tmp_path / "1.jpg").write_bytes(photo(1))

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert read_photo(tmp_path / "1.jpg", 8) == "unreadable"


def test_files_that_are_no_pictures(pets, capsys):
    expected = loaded("test", 10)
    capsys.readouterr()
    for name in FOLDERS:
        (pets / name / "Thumbs.db").write_bytes(bytes(1_000))
    (pets / "Cat" / ".DS_Store").write_bytes(b"")
    (pets / "Cat" / "._1.jpg").write_bytes(b"what macOS puts beside 1.jpg")
    (pets / "Dog" / "folder.jpg").mkdir()
    (pets / "readme[1].txt").write_text("hello", encoding="utf-8")
    assert loaded("test", 10) == expected
    line = "Cats vs Dogs: real photos, 10 test images [4 files skipped: 4 not a picture]\n"
    assert capsys.readouterr().out == line


def test_several_faults_in_one_line(pets, capsys):
    names = photos.list_photos(pets, FOLDERS).split("test")
    for name, content in zip(names, [b"", b"", NOISE[:500], animation("GIF")], strict=False):
        (pets / name).write_bytes(content)
    (pets / "Cat" / "Thumbs.db").touch()
    load_pets("test", size=32)
    assert capsys.readouterr().out.endswith(
        f" {len(names) - 4} test images [5 files skipped: 1 broken, 2 empty, 1 animated, 1 not a picture]\n"
    )


def test_no_photo_can_be_read(pets, capsys):
    for path in pets.glob("*/*.jpg"):
        path.write_bytes(b"")
    count = len(photos.list_photos(pets, FOLDERS).split("test"))
    with pytest.raises(DataError) as error:
        load_pets("test")
    assert str(error.value).startswith(
        f"The test split of Cats vs Dogs (real) in {pets} has no photo that can be read "
        f"[{count} files skipped: {count} empty]; put the photos there again, or "
    )
    assert not capsys.readouterr().out


GREY = Image.linear_gradient("L")  # black at the top, white at the bottom
RED = Image.new("RGB", (60, 40), (200, 30, 10))


def with_alpha() -> Image.Image:
    """Red above; below black, but transparent."""
    picture = RED.convert("RGBA")
    picture.paste((0, 0, 0, 0), (0, 20, 60, 40))
    return picture


def sixteen_bits() -> Image.Image:
    return Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)


KINDS = {
    "grey JPEG": (encoded(GREY, quality=95), GREY),
    "CMYK JPEG": (encoded(RED.convert("CMYK"), quality=95), RED),
    "grey PNG": (encoded(GREY, "PNG"), GREY),
    "grey PNG with alpha": (encoded(GREY.convert("LA"), "PNG"), GREY),
    "16-bit PNG": (encoded(sixteen_bits(), "PNG"), GREY),
    "PNG with a palette": (encoded(RED.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), RED),
    "black and white PNG": (encoded(GREY.convert("1"), "PNG"), GREY.convert("1")),
    "PNG with alpha": (
        encoded(with_alpha(), "PNG"),
        Image.alpha_composite(Image.new("RGBA", (60, 40), "white"), with_alpha()),
    ),
    "GIF": (encoded(RED, "GIF"), RED),
    "BMP": (encoded(RED, "BMP"), RED),
    "WebP": (encoded(RED, "WEBP", lossless=True), RED),
    "progressive JPEG": (encoded(RED, quality=95, progressive=True), RED),
    "stereo JPEG": (encoded(RED, "MPO", save_all=True, append_images=[GREY.convert("RGB")], quality=95), RED),
    "EXIF that is rubbish": (
        encoded(RED, quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(range(99))),
        RED,
    ),
    "EXIF that is cut off": (
        encoded(RED, quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03"),
        RED,
    ),
}


@pytest.mark.parametrize("content, shown", KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_picture_becomes_rgb(tmp_path, content, shown):
    """Whatever it is, it is called .jpg, as in the real folder."""
    (tmp_path / "1.jpg").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images, kept, faults = read_photos([tmp_path / "1.jpg"], 1, 20)
    assert kept == [0] and not faults
    wanted = np.asarray(shown.convert("RGB").resize((20, 20), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(images[0].astype(int) - wanted).max() <= 4


UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90,
    9: lambda stored: stored,  # means nothing
}


@pytest.mark.parametrize("size", [24, 8])  # 8: the JPEG is decoded at half its size
@pytest.mark.parametrize("orientation, turn", UPRIGHT.items())
def test_rotation_in_exif(tmp_path, orientation: int, turn: Callable[[np.ndarray], np.ndarray], size: int):
    quarters = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250), (250, 250, 250)]]
    stored = np.kron(np.array(quarters, np.uint8), np.ones((24, 48, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "1.jpg").write_bytes(encoded(Image.fromarray(stored), quality=95, subsampling=0, exif=exif))
    image = read_photo(tmp_path / "1.jpg", size).transpose(1, 2, 0)
    wanted = turn(np.array(quarters))
    near, far = size // 4, 3 * size // 4
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        assert np.abs(image[(near, far)[y], (near, far)[x]].astype(int) - wanted[y, x]).max() < 10


def test_threads_keep_the_order(tmp_path):
    paths = [tmp_path / f"{number}.jpg" for number in range(150)]
    for number, path in enumerate(paths):
        size = (40, 30) if number % 2 else (1_200, 900)  # every other one takes longer
        path.write_bytes(b"" if number % 10 == 3 else encoded(Image.new("RGB", size, (number + 60, 0, 0))))
    images, kept, faults = read_photos(paths, 120, 8)
    assert kept == [number for number in range(150) if number % 10 != 3][:120]
    assert [round(image[0].mean()) - 60 for image in images] == pytest.approx(kept, abs=2)
    assert faults == {"empty": 13}


MEMORY = """
import sys
from pathlib import Path
import numpy as np
import psutil
from helpers import data, photos

process = psutil.Process()
photos.read_photo(next(Path(sys.argv[1]).glob("PetImages/Cat/*")), 96)  # what Pillow loads once
before = process.memory_info().rss
peak = 0
original = photos.read_photo

def watched(path, size):
    global peak
    peak = max(peak, process.memory_info().rss)
    return original(path, size)

photos.read_photo = watched
pets = data.load_pets("train")
print((max(peak, process.memory_info().rss) - before - pets.images.nbytes) / 1e6)
print({"torch", "torchvision", "tensorflow", "kagglehub"} & set(sys.modules))
"""


def test_memory_stays_flat(tmp_path):
    """2,500 photos, of which about 2,000 are for training: 800 MB if all were kept as they are decoded."""
    noise = np.random.RandomState(0).randint(0, 256, (300, 400, 3), dtype=np.uint8)
    originals = []
    for number in range(5):
        originals.append(tmp_path / f"{number}.jpg")
        originals[-1].write_bytes(encoded(Image.fromarray(np.roll(noise, number)), quality=50))
    for name in FOLDERS:
        (tmp_path / "PetImages" / name).mkdir(parents=True)
        for number in range(1_250):
            os.link(originals[number % 5], tmp_path / "PetImages" / name / f"{number}.jpg")
    environment = {
        **os.environ,
        "LABS_DATA": str(tmp_path),
        "LABS_DATA_SOURCE": "real",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    line, megabytes, imported = run.stdout.splitlines()
    count = int(line.split()[-3].replace(",", ""))
    assert 1_900 < count < 2_100
    assert float(megabytes) < 40
    assert imported == "set()" and run.stderr == ""


# ------------------------------------------------------------------------------------------ folders


def move(pets: Path, how: str) -> None:
    if how == "lower case":
        for name in FOLDERS:
            (pets / name).rename(pets / f"{name.lower()}_")
            (pets / f"{name.lower()}_").rename(pets / name.lower())
    elif how == "all in lower case":
        move(pets, "lower case")
        pets.rename(pets.with_name("petimages_"))
        pets.with_name("petimages_").rename(pets.with_name("petimages"))
    elif how == "too deep":
        pets.rename(pets.with_name("moved"))
        pets.mkdir()
        pets.with_name("moved").rename(pets / "PetImages")
    elif how == "too high":
        for name in FOLDERS:
            (pets / name).rename(pets.parent / name)
        pets.rmdir()
    elif how == "upper-case names":
        for path in list(pets.glob("*/*.jpg")):
            path.rename(path.with_suffix(".JPG"))


@pytest.mark.parametrize("how", ["lower case", "all in lower case", "too deep", "too high"])
def test_folders_that_are_meant(pets, how):
    expected = loaded("test")
    move(pets, how)
    assert loaded("test") == expected


def test_suffix_in_upper_case(pets):
    move(pets, "upper-case names")
    assert len(loaded("test")) + len(loaded("train")) == 100


def test_data_folder_that_is_the_folder_of_photos(pets, monkeypatch):
    expected = loaded("test")
    monkeypatch.setenv("LABS_DATA", str(pets))
    assert loaded("test") == expected


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


WRONG = {
    "Cat is missing": (lambda pets: shutil.rmtree(pets / "Cat"), r"but Cat is missing \(found: Dog\)"),
    "Dog is missing": (lambda pets: shutil.rmtree(pets / "Dog"), r"but Dog is missing \(found: Cat\)"),
    "Dog is empty": (lambda pets: empty(pets / "Dog"), r"but Dog has no photo in it \(found: Cat, Dog\)"),
    "nothing at all": (empty, r"but Cat and Dog are missing \(found: nothing\)"),
    "photos without folders": (
        lambda pets: [empty(pets), *((pets / f"cat.{i}.jpg").write_bytes(photo(i)) for i in range(9))],
        r"but Cat and Dog are missing \(found: cat.0.jpg, cat.1.jpg, .*, cat.4.jpg, \.\.\.\)",
    ),
    "other names": (
        lambda pets: [(pets / name).rename(pets / f"{name}s") for name in FOLDERS],
        r"but Cat and Dog are missing \(found: Cats, Dogs\)",
    ),
    "a file in the place of a folder": (
        lambda pets: [shutil.rmtree(pets / "Cat"), (pets / "Cat").touch()],
        r"but Cat is missing \(found: Cat, Dog\)",
    ),
}


@pytest.mark.parametrize("spoil, complaint", WRONG.values(), ids=WRONG.keys())
def test_folder_of_the_wrong_shape(pets, monkeypatch, capsys, spoil, complaint):
    """One sentence; and no lab silently does without photos that are half there."""
    spoil(pets)
    sentence = rf"^{re.escape(str(pets))} must have the folders Cat and Dog with photos, {complaint}"
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=sentence + "; put the photos there, or move the folder away.$"):
        load_pets("test")
    monkeypatch.setenv("LABS_DATA_SOURCE", "auto")
    assert load_pets("test", 2).source == "embedded"
    out = capsys.readouterr().out
    assert out.startswith(f"Cats vs Dogs: drawn pets (embedded), 2 test images [{pets} must have the folders")
    assert out.endswith("; restart the kernel to try again]\n")


@pytest.mark.parametrize("level", ["data", "PetImages", "Cat"])
def test_folder_that_may_not_be_read(pets, monkeypatch, level):
    scandir = os.scandir

    def refuse(folder):
        if Path(folder).name == level:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); make "):
        load_pets("test")


# ------------------------------------------------------------------------------------------ source and n


def test_no_photos(monkeypatch, capsys, tmp_path):
    folder = tmp_path / "data" / "PetImages"
    missing = f"Cats vs Dogs is not in {folder}; `python -m helpers.data pets` downloads about 800 MB"
    assert load_pets("test", 3).source == "embedded"
    assert capsys.readouterr().out == (
        f"Cats vs Dogs: drawn pets (embedded), 3 test images [{missing}; restart the kernel to try again]\n"
    )
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError) as error:
        load_pets("test", 3)
    advice = "run that, copy the photos there, or work with the embedded data: LABS_DATA_SOURCE=embedded."
    assert str(error.value) == f"{missing}; {advice}"
    assert not (tmp_path / "data").exists()


def test_once_embedded_stays_embedded(tmp_path, capsys, request):
    assert load_pets("train", 2).source == "embedded"
    request.getfixturevalue("pets")  # someone copies the photos, say
    assert load_pets("test", 2).source == "embedded"
    assert capsys.readouterr().out.splitlines()[1].endswith("2 test images [for the same reason]")


def test_embedded_means_embedded(pets, monkeypatch, capsys):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    assert load_pets("test", 2).source == "embedded"
    assert capsys.readouterr().out == "Cats vs Dogs: drawn pets (embedded), 2 test images\n"


@pytest.mark.parametrize("setting", ["reel", "Real", "none"])
def test_wrong_setting(pets, monkeypatch, setting):
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    with pytest.raises(
        DataError, match=f"^LABS_DATA_SOURCE is '{setting}'; set it to auto, real or embedded"
    ):
        load_pets("test")


def test_more_photos_than_there_are(pets, monkeypatch, capsys):
    count = len(loaded("test"))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(photos, "read_photo", lambda *_, **__: pytest.fail("said before a photo is read"))
        with pytest.raises(DataError) as error:
            load_pets("test", count + 1)
    assert str(error.value) == (
        f"The test split of Cats vs Dogs (real) has {count} images and {count + 1} were asked for; "
        f"ask for at most {count}, or leave n out for all of them."
    )
    name = photos.list_photos(pets, FOLDERS).split("test")[0]
    (pets / name).write_bytes(b"")
    with pytest.raises(
        DataError, match=rf" has {count - 1} images and {count} were asked for; ask for at most"
    ):
        load_pets("test", count)
    assert not capsys.readouterr().out


def test_split_without_a_photo(pets):
    for name in photos.list_photos(pets, FOLDERS).split("test"):
        (pets / name).unlink()
    with pytest.raises(DataError, match="has no photo that can be read; put the photos there again"):
        load_pets("test")


@pytest.mark.parametrize("there", [True, False])
def test_wrong_arguments(there, request):
    if there:
        request.getfixturevalue("pets")
    with pytest.raises(ValueError, match="split is 'validation'; use 'train' or 'test'"):
        load_pets("validation")
    for n in (0, -1):
        with pytest.raises(ValueError, match=f"n is {n}; ask for at least 1"):
            load_pets("train", n)
    for size in (0, 31, 513):
        with pytest.raises(ValueError, match=f"size is {size}; use 32 to 512 pixels"):
            load_pets("train", 2, size=size)


def test_loading_leaves_the_random_numbers_alone(pets):
    np.random.seed(3)
    expected = np.random.RandomState(3).rand()
    load_pets("train", 5)
    assert np.random.rand() == expected


def test_pairs_and_parts_of_the_set(pets):
    some = load_pets("train", 6, size=32)
    image, label = some[4]
    assert image.shape == (3, 32, 32) and image.dtype == np.uint8 and type(label) is int
    assert some.subset([4]).images.dtype == np.uint8 and some.subset([4]).labels.tolist() == [label]


# ------------------------------------------------------------------------------------------ drawn


def test_drawn_pets(monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    few, more = load_pets("train", 6), load_pets("train", 12)
    assert few.images.shape == (6, 3, 96, 96) and few.images.dtype == np.uint8
    assert few.parts.shape == (6, 96, 96) and few.parts.dtype == np.uint8
    assert few.part_names == drawn_pets.PART_NAMES and few.parts.max() < len(few.part_names)
    assert few.class_names == ("cat", "dog") and few.labels.dtype == np.int64
    assert np.array_equal(few.images, more.images[:6]) and np.array_equal(few.parts, more.parts[:6])
    assert np.array_equal(few.labels, more.labels[:6])
    every = [image.tobytes() for split in SPLITS for image in load_pets(split, 12).images]
    assert len(set(every)) == 24
    assert load_pets("test", 2, size=64).images.shape == (2, 3, 64, 64)


def test_drawn_pets_are_what_their_labels_say(monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    drawn = []
    draw = drawn_pets.draw_pets
    monkeypatch.setattr(drawn_pets, "draw_pets", lambda pets, size: drawn.extend(pets) or draw(pets, size))
    labels = load_pets("test", 20, size=32).labels
    assert [("cat", "dog")[label] for label in labels] == [pet.species for pet in drawn]
    assert set(labels) == {0, 1}


@pytest.mark.parametrize("split, total", [("train", 3_000), ("test", 1_000)])
def test_number_of_drawn_pets(monkeypatch, split, total):
    monkeypatch.setenv("LABS_DATA_SOURCE", "embedded")
    with pytest.raises(
        DataError, match=rf"\(embedded\) has {total:,} images and {total + 1:,} were asked for"
    ):
        load_pets(split, total + 1)
    blank = lambda pets, size: (np.zeros((len(pets), 3, size, size), np.uint8), None)  # noqa: E731
    monkeypatch.setattr(drawn_pets, "draw_pets", blank)
    labels = load_pets(split).labels
    assert len(labels) == total and 0.45 < labels.mean() < 0.55


# ------------------------------------------------------------------------------------------ Kaggle


class Kaggle:
    """In the place of kagglehub.dataset_download: fills the folder that the real one would fill."""

    def __init__(self, pets: Path, outside: Path):
        self.pets = pets.rename(outside)
        self.asked: list[str] = []
        self.error: BaseException | None = None
        self.content = "PetImages"

    def __call__(self, handle: str) -> str:
        self.asked.append(handle)
        cache = Path(os.environ["KAGGLEHUB_CACHE"]) / "datasets" / handle
        target = cache / "versions" / "1"
        target.mkdir(parents=True, exist_ok=True)
        if self.error:
            (target.parent.parent / "1.archive").write_bytes(b"half")
            shutil.copytree(self.pets / "Cat", target / "PetImages" / "Cat", dirs_exist_ok=True)
            raise self.error
        shutil.copytree(self.pets, target / self.content, dirs_exist_ok=True)
        (cache / "1.complete").touch()
        return str(target)


@pytest.fixture
def kaggle(pets, tmp_path, monkeypatch) -> Kaggle:
    kaggle = Kaggle(pets, tmp_path / "at Kaggle")
    monkeypatch.setattr(pet_photos, "answering", lambda urls: dict.fromkeys(urls, ""))
    monkeypatch.setattr(kagglehub, "dataset_download", kaggle)
    return kaggle


def test_download_on_request(kaggle, tmp_path, capsys, monkeypatch):
    before = dict(os.environ)
    folder = tmp_path / "data" / "PetImages"
    assert data.main(["pets"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Downloading Cats vs Dogs (about 800 MB) to {folder}\n")
    assert out.endswith(f"pets: present in {folder} (Cat: 50, Dog: 50)\n")
    assert kaggle.asked == ["shaunthesheep/microsoft-catsvsdogs-dataset"]
    assert dict(os.environ) == before
    assert {path.name for path in (tmp_path / "data").iterdir()} - {".pets.lock"} == {"PetImages"}
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    assert len(loaded("test")) + len(loaded("train")) == 100  # without the network
    assert data.main(["pets"]) == 0 and len(kaggle.asked) == 1


def test_never_unasked(kaggle):
    assert load_pets("test", 2).source == "embedded" and not kaggle.asked


def from_requests(name: str) -> Exception:
    """An error of the library with which kagglehub speaks to Kaggle. They are OSErrors without a number."""
    return getattr(exceptions.requests.exceptions, name)("Max retries exceeded with url")


def with_status(status: int) -> Exception:
    answer = exceptions.requests.Response()
    answer.status_code = status
    return exceptions.KaggleApiHTTPError(f"{status} Client Error.\n\nYou may not", response=answer)


def damaged() -> Exception:
    return exceptions.DataCorruptionError("The checksum is wrong\n\nwanted this\nand got that")


FAILURES = {
    "no network": (from_requests("ConnectionError"), r"\(ConnectionError\); connect to the network"),
    "cut off": (from_requests("ChunkedEncodingError"), r"\(ChunkedEncodingError\); connect to the network"),
    "silence": (from_requests("ReadTimeout"), r"\(ReadTimeout\); connect to the network"),
    "no account": (with_status(401), r"\(HTTP status 401\); sign in to Kaggle"),
    "forbidden": (with_status(403), r"\(HTTP status 403\); sign in to Kaggle"),
    "gone": (with_status(404), r"\(HTTP status 404\); try again later, or work with"),
    "damaged": (damaged(), r"\(DataCorruptionError\); try again"),
    "no archive": (
        ValueError("Unsupported archive type."),
        r"\(Unsupported archive type.\); try",
    ),
    "file of the account": (ValueError("Invalid file at x"), r"\(Invalid file at x\); try again"),
}


@pytest.mark.parametrize("failure, complaint", FAILURES.values(), ids=FAILURES.keys())
def test_download_that_fails(kaggle, tmp_path, capsys, failure, complaint):
    """One sentence, and nothing that a later run would trust; the next try succeeds."""
    kaggle.error = failure
    folder = tmp_path / "data" / "PetImages"
    with pytest.raises(
        DataError,
        match=rf"^Cats vs Dogs is not in {re.escape(str(folder))}, and Kaggle did not send it {complaint}",
    ):
        pet_photos.fetch_pets()
    assert data.main(["pets"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert pet_photos.find_pets() is None and load_pets("test", 2).source == "embedded"
    kaggle.error = None
    assert data.main(["pets"]) == 0
    assert pet_photos.find_pets().counts() == "Cat: 50, Dog: 50"


def test_download_that_is_interrupted(kaggle, tmp_path):
    kaggle.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        pet_photos.fetch_pets()
    assert pet_photos.find_pets() is None
    half = tmp_path / "data" / ".kagglehub" / "datasets" / pet_photos.HANDLE / "1.archive"
    assert half.read_bytes() == b"half", "kagglehub goes on with it"
    kaggle.error = None
    pet_photos.fetch_pets()
    assert pet_photos.find_pets() and not half.exists()


def test_full_disk(kaggle, tmp_path):
    kaggle.error = OSError(28, "No space left on device")
    with pytest.raises(
        DataError, match=r"cannot be stored in .* \(No space left on device\); make room for twice"
    ):
        pet_photos.fetch_pets()
    assert {path.name for path in (tmp_path / "data").iterdir()} <= {".pets.lock"}


def test_kaggle_sends_something_else(kaggle, tmp_path):
    kaggle.content = "Birds"
    with pytest.raises(DataError, match=r"did not send it \(the folders of the photos are not in it\)"):
        pet_photos.fetch_pets()
    assert pet_photos.find_pets() is None


def test_no_network_is_noticed_before_kagglehub_is_asked(kaggle, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(kagglehub, "dataset_download", kaggle)
    monkeypatch.setattr(pet_photos, "answering", lambda urls: dict.fromkeys(urls, "no answer within 5 s"))
    monkeypatch.setenv("LABS_DATA", str(kaggle.pets.parent / "elsewhere"))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(kaggle.pets.parent / "cache"))
    with pytest.raises(
        DataError, match=r"\(https://www.kaggle.com/ does not answer: no answer within 5 s\); conn"
    ):
        pet_photos.fetch_pets()
    assert not kaggle.asked


def test_folder_that_is_half_there_is_not_overwritten(kaggle, tmp_path, capsys):
    shutil.copytree(kaggle.pets / "Cat", tmp_path / "data" / "PetImages" / "Cat")
    assert data.main(["pets"]) == 1
    assert "but Dog is missing (found: Cat); put the photos there, or move" in capsys.readouterr().err
    assert not kaggle.asked
    assert data.main([]) == 0
    assert "pets: unusable, " in capsys.readouterr().out


def test_file_in_the_place_of_the_folder(kaggle, tmp_path):
    (tmp_path / "data" / "PetImages").touch()
    with pytest.raises(DataError, match="PetImages is not a folder; move it away"):
        pet_photos.fetch_pets()
    assert not kaggle.asked


def test_what_someone_downloaded_with_kagglehub_is_used(kaggle, tmp_path, monkeypatch, capsys):
    root = Path(kagglehub.dataset_download(pet_photos.HANDLE)) / "PetImages"
    assert pet_photos.find_pets().folder == root
    assert len(loaded("test")) + len(loaded("train")) == 100
    assert data.main(["pets"]) == 0 and len(kaggle.asked) == 1
    (root.parents[2] / "1.complete").unlink()  # as long as that is missing, kagglehub has not finished
    assert pet_photos.find_pets() is None


def test_where_kagglehub_keeps_its_files(tmp_path):
    """`find_pets` looks there, and kagglehub has no function that says so without the network."""
    from kagglehub import cache
    from kagglehub.handle import parse_dataset_handle

    handle = parse_dataset_handle(f"{pet_photos.HANDLE}/versions/1")
    root = Path(cache.get_cached_path(handle)) / "PetImages"
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").touch()
    assert pet_photos.find_pets() is None
    mark_as_complete = getattr(cache, "mark_as_complete", None) or cache.Cache().mark_as_complete
    mark_as_complete(handle)
    assert pet_photos.find_pets().folder == root


def test_command_line(tmp_path, capsys):
    assert data.main([]) == 0
    out = capsys.readouterr().out
    assert f"pets: missing in {tmp_path / 'data' / 'PetImages'} (download: about 800 MB)\n" in out
    with pytest.raises(SystemExit, match="2"):
        data.main(["cats"])
    err = capsys.readouterr().err
    assert "there is no set called cats; choose from: mnist, fashion-mnist, pets" in err


# What the tests before put into LABS_DATA is gone again; this is the folder that the person or CI has named.
REAL = Path(os.environ.get("LABS_DATA") or ROOT / "data")


@pytest.mark.skipif(
    not (REAL / "PetImages").is_dir(), reason="PetImages is neither in LABS_DATA nor in data/"
)
def test_photos_themselves(monkeypatch):
    monkeypatch.setenv("LABS_DATA", str(REAL))
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    some = load_pets("test", 100)
    assert 30 < some.labels.sum() < 70
    assert len({image.tobytes() for image in some.images}) > 95
    assert 90 < some.images.mean() < 150 and 50 < some.images.std() < 90
