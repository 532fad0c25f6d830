"""Photos: a folder of them with one sub-folder per class, and single ones that someone brings along.

Collections of photos hold more than photos: empty files, files that were cut off, `Thumbs.db`, animations
that are called .jpg. What cannot be used is skipped and counted. Nothing here depends on the order in which
the file system lists files.

A single photo comes from scikit-image, from a path, or from the browser (`load_photo`, `upload`). Here, what
cannot be used gets a sentence that says what to do.
"""

from __future__ import annotations

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from helpers.download import DataError, megabytes

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp"}  # in any case
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")  # what a file with such a name may be in truth
LARGEST = 50_000_000  # pixels; a file that unpacks to more could fill the memory
CHUNK = 64  # photos that threads decode before the next ones are handed out

# Why a file is skipped, in the order in which the printed line names it.
FAULTS = ("broken", "empty", "animated", "too large", "unreadable", "not a picture")

# Photos that scikit-image has in its package, so they need no network: a name, and its function there.
SHIPPED_PHOTOS = {
    **{"cat": "chelsea", "astronaut": "astronaut", "coffee": "coffee", "rocket": "rocket"},
    **{"camera": "camera", "clock": "clock", "coins": "coins", "motorcycle": "stereo_motorcycle"},
    **{"page": "page", "moon": "moon", "galaxies": "hubble_deep_field"},
    **{"brick": "brick", "grass": "grass", "gravel": "gravel"},  # nothing but texture
    **{"retina": "retina", "tissue": "immunohistochemistry"},  # through a doctor's instruments
}
LARGEST_OWN = 60_000_000  # pixels of a single photo
LARGEST_FILE = 50_000_000  # bytes


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


def load_photo(which: str | os.PathLike[str]) -> Image.Image:
    """One photo, RGB and upright: one that scikit-image brings along, or the user's own file.

    which: a name of `SHIPPED_PHOTOS`, such as "cat", or the path of a JPEG, PNG, GIF, BMP or WebP file with
    at most 60 megapixels and 50 MB. Grey, CMYK and 16-bit pictures become RGB, what is transparent becomes
    white, of an animation there is the first frame. Raises `DataError`, one sentence, if it cannot be read.
    """
    if which in SHIPPED_PHOTOS:
        from skimage import data  # here, because it takes a while

        found = getattr(data, SHIPPED_PHOTOS[which])()
        array = found[0] if isinstance(found, tuple) else found  # of a stereo pair, the left one
        return Image.fromarray(array).convert("RGB")
    path = Path(which).expanduser()
    try:
        if path.is_dir():
            raise DataError(f"{path} is a folder", "give the path of one photo in it")
        if not path.is_file():  # nor is a device or a pipe, which may have no end
            raise DataError(
                f"there is no photo {str(which)!r}",
                f"give the path of a file, or one of these names: {', '.join(SHIPPED_PHOTOS)}",
            )
        with open(path, "rb") as file:
            return _read_own(file, path.name)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error})", "make it readable, or choose another photo"
        ) from error


def upload(show: Callable[[Image.Image], None]) -> None:
    """Display a field for the user's own photos, by drag and drop or by a click.

    show: called with each photo, as `load_photo` returns it; what it displays or prints appears below the
    field. A file that cannot be read gets its sentence there. At a time, up to 10 MB. Without a person to
    bring photos (LABS_HEADLESS=1) there is one plain line and no field.
    """
    if os.environ.get("LABS_HEADLESS") == "1":
        print("Your own photos: in JupyterLab, there is a field for them here.")
        return
    import ipywidgets
    from IPython.display import Javascript, display

    field = ipywidgets.FileUpload(
        accept=",".join(sorted(SUFFIXES)),
        multiple=True,
        description="Drop photos here, or click to choose some",
        tooltip="at most 10 MB at a time",
        layout={"width": "100%", "height": "4em"},
    )
    field.add_class(_FIELD_CLASS)
    shown = ipywidgets.Output()

    def receive(change: dict) -> None:
        if not change["new"]:
            return
        shown.clear_output()
        with shown:
            for file in change["new"]:
                try:
                    photo = _read_own(io.BytesIO(file["content"]), file["name"])
                except DataError as error:
                    print(error)
                else:
                    show(photo)
        field.value = ()  # so that the same file can be brought again

    field.observe(receive, "value")
    display(field, shown, Javascript(_FIELD_SCRIPT))


_FIELD_CLASS = "labs-photo-upload"
# ipywidgets' button opens a dialog for files. It takes none that are dropped on it, and its input for files
# is not in the page: it is met only when the button opens it. Jupyter takes messages of up to 10 MiB; after a
# larger one it closes the connection to the kernel.
_FIELD_SCRIPT = """
if (!window.labsPhotoUpload) {
    window.labsPhotoUpload = true;
    let dropped = null;
    const field = (event) => {
        const target = event.target.closest ? event.target : event.target.parentElement;
        return target && target.closest(".CLASS");
    };
    const refuseLarge = (event) => {
        const size = [...event.target.files].reduce((sum, file) => sum + file.size, 0);
        if (size > 10e6) {
            event.stopImmediatePropagation();
            alert(`This is ${(size / 1e6).toFixed(1)} MB, and the field takes at most 10 MB at a time; `
                + "bring fewer or smaller photos, or read yours with load_photo and the path of its file.");
        }
    };
    document.addEventListener("click", (event) => {
        if (!field(event)) return;
        const openDialog = HTMLInputElement.prototype.click;
        HTMLInputElement.prototype.click = function () {
            this.addEventListener("change", refuseLarge, {capture: true});
            if (dropped) {
                this.files = dropped;
                this.dispatchEvent(new Event("change"));
            } else {
                openDialog.call(this);
            }
        };
        setTimeout(() => { HTMLInputElement.prototype.click = openDialog; });
    }, true);
    document.addEventListener("dragover", (event) => {
        if (field(event)) event.preventDefault();
    }, true);
    document.addEventListener("drop", (event) => {
        const button = field(event);
        if (!button) return;
        event.preventDefault();
        event.stopPropagation();
        dropped = event.dataTransfer.files;
        if (dropped.length) button.click();
        dropped = null;
    }, true);
}
""".replace("CLASS", _FIELD_CLASS)


def _read_own(file: BinaryIO, name: str) -> Image.Image:
    """A single photo as `load_photo` says. Raises OSError with a number if the system cannot read it."""
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise DataError(f"{name} is empty", "choose another photo")
    if size > LARGEST_FILE:
        raise DataError(
            f"{name} has {megabytes(size)}, more than {megabytes(LARGEST_FILE)}", "save it smaller, as a JPEG"
        )
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about broken EXIF and large pictures
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > LARGEST_OWN:
                    raise Image.DecompressionBombError  # as Pillow does, at three times as many pixels
                image.load()
                _turn_upright(image)
                return _to_rgb(image)
    except Image.DecompressionBombError as error:
        raise DataError(
            f"{name} has more than {LARGEST_OWN / 1e6:.0f} megapixels", "save a smaller version and try again"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(
            f"{name} is none of {', '.join(FORMATS)}", "save it as a JPEG or PNG and try again"
        ) from error
    except Exception as error:  # there is hardly an exception that a broken file does not raise in Pillow
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{name} is broken or was cut off",
            "copy it from where it came once more, or choose another photo",
        ) from error


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
