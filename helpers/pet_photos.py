"""The photos of cats and dogs: where they are on this computer, and how they come from Kaggle.

They lie in `PetImages/Cat` and `PetImages/Dog`, as in Kaggle's data set. They may be used for research only,
so they are no part of this project; data/README.md says more.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from filelock import FileLock

from helpers.download import DataError, answering, data_folder
from helpers.photos import PhotoFolder, list_photos, subfolder

NAME = "pets"  # in commands
TITLE = "Cats vs Dogs"  # in sentences
SIZE = "about 800 MB"  # of the download
FOLDERS = ("Cat", "Dog")  # in the order of the labels
ROOT = "PetImages"  # the folder above them
HANDLE = "shaunthesheep/microsoft-catsvsdogs-dataset"  # at Kaggle
KAGGLE = "https://www.kaggle.com/"

_CONNECT = "connect to the network and try again"
_SIGN_IN = "sign in to Kaggle (https://www.kaggle.com/docs/api says how) and try again"
_EMBEDDED = "work with the embedded data: LABS_DATA_SOURCE=embedded"


def folder() -> Path:
    """Where the photos should be."""
    return data_folder() / ROOT


def find_pets() -> PhotoFolder | None:
    """The photos of cats and dogs on this computer, or None if there are none. Needs no network.

    They are in `PetImages/Cat` and `PetImages/Dog` in the data folder (in any case, and also one level too
    deep or too high, as unpacking by hand leaves them), or where kagglehub keeps what someone downloaded with
    it. Raises `DataError` if a folder is there but cannot be used.
    """
    base = data_folder()
    try:
        if root := subfolder(base, ROOT):
            return list_photos(subfolder(root, ROOT) or root, FOLDERS)
        if all(subfolder(base, name) for name in FOLDERS):
            return list_photos(base, FOLDERS)
    except OSError as error:
        raise DataError(
            f"{base} cannot be read ({error.strerror or error})",
            "make it readable, or set LABS_DATA to another folder",
        ) from error
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
    # kagglehub makes the mark when a version is there as a whole.
    for mark in sorted((cache / "datasets" / HANDLE).glob("*.complete")):
        root = mark.with_name("versions") / mark.stem / ROOT
        if root.is_dir():
            return list_photos(root, FOLDERS)
    return None


def get_pets() -> PhotoFolder:
    """As `find_pets`, but a `DataError` that says how to get the photos if there are none."""
    if found := find_pets():
        return found
    raise DataError(
        f"{TITLE} is not in {folder()}; `python -m helpers.data {NAME}` downloads {SIZE}",
        f"run that, copy the photos there, or {_EMBEDDED}",
    )


def fetch_pets() -> None:
    """Make sure that the photos are here: download them from Kaggle if they are not.

    They get their final place only when all of them are there; an interrupted download goes on where it
    stopped. Two programs that want them take turns. Raises `DataError` if they cannot be had or stored, or if
    something else is in their place.
    """
    if find_pets():
        return
    try:
        data_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(data_folder() / ".pets.lock"):
            if not find_pets():  # unless another program has just fetched them
                _download()
    except OSError as error:
        raise DataError(
            f"{TITLE} cannot be stored in {folder()} ({error.strerror or error})",
            "make room for twice the download, or set LABS_DATA to another folder where you may write",
        ) from error


def _download() -> None:
    """Bring Kaggle's photos into the data folder. Raises OSError if they cannot be stored there."""
    if os.path.lexists(folder()):
        raise DataError(f"{folder()} is not a folder", "move it away")
    if silence := answering([KAGGLE])[KAGGLE]:
        raise _not_sent(f"{KAGGLE} does not answer: {silence}", _CONNECT)
    print(f"Downloading {TITLE} ({SIZE}) to {folder()}", flush=True)
    cache = data_folder() / ".kagglehub"
    try:
        downloaded = Path(_kagglehub(cache)) / ROOT
        if not all((downloaded / name).is_dir() for name in FOLDERS):
            raise ValueError("the folders of the photos are not in it")
        os.replace(downloaded, folder())
    except Exception as error:
        if isinstance(error, OSError) and error.errno is None:  # requests': those of the system have a number
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is None:
                raise _not_sent(type(error).__name__, _CONNECT) from error
            advice = _SIGN_IN if status in (401, 403) else "try again later"
            raise _not_sent(f"HTTP status {status}", advice) from error
        # Nothing to go on with the next time. And if the disk is full, it needs the room.
        shutil.rmtree(cache, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        why = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise _not_sent(why, "try again") from error
    shutil.rmtree(cache, ignore_errors=True)


def _kagglehub(cache: Path) -> str:
    """Let kagglehub download the data set to a folder of its choice in `cache`. Returns that folder."""
    settings = {
        "KAGGLEHUB_CACHE": str(cache),
        "KAGGLEHUB_VERBOSITY": "error",  # is read when kagglehub is imported
        # In Kaggle's and Colab's own notebooks it would name a folder of theirs, where nothing may be moved.
        "DISABLE_KAGGLE_CACHE": "true",
        "DISABLE_COLAB_CACHE": "true",
    }
    before = {name: os.environ[name] for name in settings if name in os.environ}
    os.environ.update(settings)
    try:
        import kagglehub  # here, because it takes a second

        return kagglehub.dataset_download(HANDLE)
    finally:
        for name in settings:
            del os.environ[name]
        os.environ.update(before)


def _not_sent(why: str, advice: str) -> DataError:
    reason = f"{TITLE} is not in {folder()}, and Kaggle did not send it ({why})"
    return DataError(reason, f"{advice}, or {_EMBEDDED}")
