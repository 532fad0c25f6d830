"""A folder of photos, one sub-folder per class: which files there are, and what they show.

Collections of photos hold more than photos: empty files, files that were cut off, `Thumbs.db`, animations
that are called .jpg. What cannot be used is skipped and counted. Nothing here depends on the order in which
the file system lists files.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from helpers.download import DataError

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp"}  # in any case
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")  # what a file with such a name may be in truth
LARGEST = 50_000_000  # pixels; a file that unpacks to more could fill the memory
CHUNK = 64  # photos that threads decode before the next ones are handed out

# Why a file is skipped, in the order in which the printed line names it.
FAULTS = ("broken", "empty", "animated", "too large", "unreadable", "not a picture")


@dataclass(frozen=True)
class PhotoFolder:
    """The photos of a folder that has a sub-folder per class.

    folder  the folder with the sub-folders
    photos  for each photo its name, for example "Cat/12.jpg", and where it is; class by class, in the order
            of the names. The name has the class as the program spells it, in whatever case the sub-folder is.
    others  how many files are there that are not pictures by their name: hidden ones, `Thumbs.db`, ...
    """

    folder: Path
    photos: dict[str, Path]
    others: int

    def split(self, split: str) -> list[str]:
        """The names of the photos of "train" or "test", sorted."""
        return [name for name in self.photos if split_of(name) == split]

    def counts(self) -> str:
        """How many photos each class has, good or not, for example "Cat: 1,000, Dog: 1,000"."""
        numbers = Counter(map(class_of, self.photos))
        return ", ".join(f"{class_name}: {number:,}" for class_name, number in numbers.items())


def class_of(name: str) -> str:
    """The class in a photo's name: "Cat" for "Cat/12.jpg"."""
    return name.partition("/")[0]


def split_of(name: str) -> str:
    """ "test" for about every fifth photo, "train" for the others.

    The name alone decides ("Cat/12.jpg"), so a photo is in the same split on every computer, and in part of a
    collection as in the whole.
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()  # a name may be any bytes
    return "test" if int(digest, 16) % 5 == 0 else "train"


def subfolder(folder: Path, name: str) -> Path | None:
    """The sub-folder with this name, in whatever case; None if there is none, or no folder at all."""
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.name.lower() == name.lower())
    except (FileNotFoundError, NotADirectoryError):
        return None
    candidates = [name] * (name in found) + found
    return next((folder / one for one in candidates if (folder / one).is_dir()), None)


def list_photos(folder: Path, class_names: Sequence[str]) -> PhotoFolder:
    """The photos in `folder`'s sub-folders, one per class. Looks at names, not into files.

    Raises `DataError` if the folder cannot be read, or if a class has no sub-folder or no photo in it.
    """
    photos: dict[str, Path] = {}
    others = 0
    try:
        places = {class_name: subfolder(folder, class_name) for class_name in class_names}
        if missing := [class_name for class_name, place in places.items() if place is None]:
            verb = "is" if len(missing) == 1 else "are"
            raise _wrong_shape(folder, class_names, f"{' and '.join(missing)} {verb} missing")
        for class_name, place in places.items():
            files = sorted(entry.name for entry in os.scandir(place) if entry.is_file())
            pictures = [name for name in files if _is_picture(name)]
            if not pictures:
                raise _wrong_shape(folder, class_names, f"{place.name} has no photo in it")
            photos |= {f"{class_name}/{name}": place / name for name in pictures}
            others += len(files) - len(pictures)
    except OSError as error:
        raise DataError(
            f"the photos in {folder} cannot be read ({error.strerror or error})",
            "make the folder readable, or set LABS_DATA to another one",
        ) from error
    return PhotoFolder(folder, photos, others)


def read_photos(paths: Sequence[Path], n: int, size: int) -> tuple[np.ndarray, list[int], Counter[str]]:
    """The first `n` of these photos that can be read, or fewer, if there are no more.

    Returns the images, uint8 (N, 3, size, size), RGB from 0 to 255; for each its index in `paths`; and how
    many files before the last of them were skipped for which of `FAULTS`.

    A photo is turned upright as its EXIF says, then squeezed to a square: nothing is cut off, and proportions
    change. Grey, CMYK and 16-bit pictures become RGB, what is transparent becomes white. Memory: the images,
    and one photo per thread while it is decoded.
    """
    images = np.empty((n, 3, size, size), dtype=np.uint8)
    kept: list[int] = []
    faults: Counter[str] = Counter()
    # Warnings cannot be filtered in a thread alone. Pillow's are about broken EXIF and huge pictures.
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")
        start = 0
        while len(kept) < n and start < len(paths):
            chunk = paths[start : start + min(CHUNK, n - len(kept))]
            for index, photo in enumerate(pool.map(partial(read_photo, size=size), chunk), start):
                if isinstance(photo, str):
                    faults[photo] += 1
                else:
                    images[len(kept)] = photo
                    kept.append(index)
            start += len(chunk)
    return images[: len(kept)], kept, faults


def read_photo(path: Path, size: int) -> np.ndarray | str:
    """One photo, uint8 (3, size, size) as `read_photos` says, or one of `FAULTS`."""
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                return "empty"
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                # A stereo photo (MPO) has two frames too, but its first one is the photo.
                if getattr(image, "is_animated", False) and image.format != "MPO":
                    return "animated"
                if image.width * image.height > LARGEST:
                    return "too large"
                image.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
                image.load()
                _turn_upright(image)
                small = _to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)
    except Image.DecompressionBombError:
        return "too large"
    except OSError as error:
        return "broken" if error.errno is None else "unreadable"  # Pillow's have no number, the system's have
    except Exception:  # there is hardly an exception that a broken file does not raise somewhere in Pillow
        return "broken"
    return np.asarray(small).transpose(2, 0, 1)


def describe_faults(faults: Counter[str]) -> str:
    """For the printed line, for example " [3 files skipped: 2 broken, 1 empty]"; "" if there are none."""
    total = faults.total()
    if not total:
        return ""
    listed = ", ".join(f"{faults[fault]:,} {fault}" for fault in FAULTS if faults[fault])
    return f" [{total:,} file{'s' if total != 1 else ''} skipped: {listed}]"


def _is_picture(name: str) -> bool:
    # Hidden files too have such names: macOS puts a "._12.jpg" beside each photo on foreign disks.
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def _wrong_shape(folder: Path, class_names: Sequence[str], fault: str) -> DataError:
    there = sorted(entry.name for entry in os.scandir(folder))
    found = ", ".join(there[:5]) + (", ..." if len(there) > 5 else "")
    return DataError(
        f"{folder} must have the folders {' and '.join(class_names)} with photos, but {fault} "
        f"(found: {found or 'nothing'})",
        "put the photos there, or move the folder away",
    )


def _turn_upright(image: Image.Image) -> None:
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:
        pass  # EXIF that cannot be read; the photo itself can


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits; Pillow would cut off what is above 255
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
