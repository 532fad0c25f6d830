"""Files from the network, trusted only when their content is right.

A `RemoteSet` lists files with their SHA-256, or its beginning. `fetch` makes sure that they are in the data
folder: it checks what is there, downloads what is missing or damaged, and gives a file its final name only
when its content is right. So neither a download that was cut off nor a failing disk leaves anything that a
later run would trust. `choose_source` decides between real data and what is embedded.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import http.client
import os
import re
import shutil
import ssl
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

Source = Literal["real", "embedded"]
T = TypeVar("T")

TIMEOUT = 5.0  # seconds that a server may stay silent
SLOWEST = 5_000  # bytes per second; a slower download is given up
ASK_ABOVE = 50_000_000  # bytes; a larger download starts only on request

# What urllib raises for the network. Every other OSError is about the disk.
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)

_TRY_AGAIN = "connect to the network and try again, or work with the embedded data: LABS_DATA_SOURCE=embedded"


class DataError(RuntimeError):
    """The data asked for cannot be had. The message says why, and what to do next.

    reason  a clause without a full stop
    advice  another, in the imperative
    """

    def __init__(self, reason: str, advice: str):
        super().__init__(reason, advice)
        self.reason, self.advice = reason, advice

    def __str__(self) -> str:
        return f"{self.reason}; {self.advice}."


@dataclass(frozen=True)
class RemoteFile:
    """One file of a `RemoteSet`."""

    name: str  # in the set's folder
    sha256: str  # of the file as it is stored; at least the first 8 hexadecimal digits
    size: int  # bytes to download
    packed: bool = False  # the server has it as name.gz; it is stored unpacked
    slack: int = 0  # bytes by which `size` may be off, where only a rounded size is known

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{8,64}", self.sha256):  # an empty one would be right for every file
            raise ValueError(f"{self.sha256!r} is no SHA-256; give 8 to 64 of its digits, in lower case.")


@dataclass(frozen=True)
class RemoteSet:
    """Files that belong together: all of them are there, or the set is not."""

    name: str  # in commands, for example "mnist"
    title: str  # in sentences, for example "MNIST"
    subfolder: str  # below the data folder
    mirrors: tuple[str, ...]  # addresses to which a file's name is added, tried in this order
    files: tuple[RemoteFile, ...]

    @property
    def folder(self) -> Path:
        return data_folder() / self.subfolder

    @property
    def size(self) -> int:
        """Bytes to download, all files together."""
        return sum(file.size for file in self.files)

    def states(self, folder: Path | None = None) -> dict[str, str]:
        """For each file "present" (and its content right), "missing", "damaged" or "unreadable".

        folder: where to look instead of the set's own folder. Reads every file: about 0.1 s for 50 MB.
        """
        return {file.name: _state((folder or self.folder) / file.name, file.sha256) for file in self.files}


_given_up: set[Hashable] = set()  # what could not be had


def choose_source(
    what: Hashable, get: Callable[[], T], reason: Callable[[DataError], str] = attrgetter("reason")
) -> tuple[Source, T | None, str]:
    """Real data or what is embedded, by `LABS_DATA_SOURCE` (auto, real or embedded; without it, auto).

    what: names the data; get: makes sure that the real ones are there, or raises DataError; reason: turns
    that error into words -> the source, what `get` returned (None if embedded), and what to add to the
    printed line. Raises DataError for another setting, and for "real" if `get` does.
    """
    setting = os.environ.get("LABS_DATA_SOURCE") or "auto"
    if setting == "embedded":
        return "embedded", None, ""
    if setting == "real":
        return "real", get(), ""
    if setting != "auto":
        raise DataError(f"LABS_DATA_SOURCE is {setting!r}", "set it to auto, real or embedded")
    # A lab asks more than once, as for two splits. What began embedded stays so, even if the network is back.
    if what in _given_up:
        return "embedded", None, " [for the same reason]"
    try:
        return "real", get(), ""
    except DataError as error:
        _given_up.add(what)
        return "embedded", None, f" [{reason(error)}; restart the kernel to try again]"


def data_folder() -> Path:
    """The folder of the real data: `LABS_DATA`, or `data/` beside this package."""
    chosen = os.environ.get("LABS_DATA")
    return Path(chosen).expanduser().resolve() if chosen else Path(__file__).resolve().parents[1] / "data"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def fetch(remote: RemoteSet, *, requested: bool = False) -> None:
    """Make sure that all files of a set are in its folder, with the right content.

    What is missing or damaged is downloaded, its size printed first; more than 50 MB only if `requested`. A
    download that was cut off goes on where it stopped. Two programs that want the same set take turns. Raises
    `DataError` if a file cannot be had or stored.
    """
    lacking = _lacking(remote)
    if not lacking:
        return
    try:
        remote.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(remote.folder / ".lock"):
            if lacking := _lacking(remote):  # unless another program has just fetched them
                _download_lacking(remote, lacking, requested)
    except OSError as error:
        raise _storage_error(error, _complaint(remote, lacking)) from error


def answering(urls: Sequence[str]) -> dict[str, str]:
    """Ask each address for a sign of life, all at once, for at most `TIMEOUT` seconds.

    Returns for each an empty text if its server answers, otherwise what went wrong. In threads, because
    looking up a name has no time limit of its own: without a network it can take minutes.
    """
    outcome = dict.fromkeys(urls, f"no answer within {TIMEOUT:g} s")

    def ask(url: str) -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=TIMEOUT).close()
            outcome[url] = ""
        except urllib.error.HTTPError:
            outcome[url] = ""  # a refusal is an answer; the download will show whether it matters
        except Exception as error:  # whatever it is, it must not surface in a thread
            outcome[url] = _why(error)

    threads = [threading.Thread(target=ask, args=(url,), daemon=True) for url in urls]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(outcome)


def _state(path: Path, sha256: str) -> str:
    try:
        with open(path, "rb") as stored:
            right = hashlib.file_digest(stored, "sha256").hexdigest().startswith(sha256)
        return "present" if right else "damaged"
    except (FileNotFoundError, NotADirectoryError):
        return "missing"
    except OSError:
        return "unreadable"


def _lacking(remote: RemoteSet) -> dict[RemoteFile, str]:
    """The files that are not there as they should be, with their state."""
    states = remote.states()
    return {file: states[file.name] for file in remote.files if states[file.name] != "present"}


def _complaint(remote: RemoteSet, lacking: dict[RemoteFile, str]) -> str:
    """The beginning of every `DataError` about a set: what is wrong with it."""
    if list(lacking.values()) == ["missing"] * len(remote.files):
        return f"{remote.title} is not in {remote.folder}"
    faults = ", ".join(f"{file.name} is {state}" for file, state in lacking.items())
    return f"{remote.title} in {remote.folder} cannot be used ({faults})"


def _download_lacking(remote: RemoteSet, lacking: dict[RemoteFile, str], requested: bool) -> None:
    what = _complaint(remote, lacking)
    size = sum(file.size for file in lacking)
    if size > ASK_ABOVE and not requested:
        raise DataError(
            f"{what}, and a download of {megabytes(size)} starts only on request",
            f"start it with: python -m helpers.data {remote.name}",
        )
    addresses = {_url(mirror, next(iter(lacking))): mirror for mirror in remote.mirrors}
    silence = answering(list(addresses))
    mirrors = [mirror for url, mirror in addresses.items() if not silence[url]]
    if not mirrors:
        raise DataError(f"{what}, and no server answers ({_list(silence)})", _TRY_AGAIN)
    print(f"Downloading {remote.title} ({megabytes(size)}) to {remote.folder}", flush=True)
    with tqdm(total=size, unit="B", unit_scale=True, desc=remote.title) as bar:
        for file in lacking:
            if problems := _download_file(file, remote.folder, mirrors, bar):
                raise DataError(f"{what}, and {file.name} did not come ({_list(problems)})", _TRY_AGAIN)


def _download_file(file: RemoteFile, folder: Path, mirrors: list[str], bar: tqdm) -> dict[str, str]:
    """Bring one file into the folder. Returns what went wrong with each address, nothing if one succeeded."""
    target = folder / file.name
    part = folder / f"{file.name}.part"
    before = bar.n
    problems: dict[str, str] = {}
    for mirror in 2 * mirrors:  # the second round goes on where the first was cut off
        url = _url(mirror, file)
        try:
            _download(url, part, file, bar, before)
        except _NETWORK_ERRORS as error:
            problems[url] = _why(error)
            continue
        except OSError:
            part.unlink(missing_ok=True)  # a full disk needs the room
            raise
        if _keep_if_right(part, target, file):
            return {}
        problems[url] = "wrong checksum"
    return problems


def _download(url: str, part: Path, file: RemoteFile, bar: tqdm, before: int) -> None:
    """Complete `part`. `before` is where the progress bar stood at the beginning of the file."""
    start = part.stat().st_size if part.exists() else 0
    least, size = file.size - file.slack, file.size + file.slack
    if start >= size:
        return  # complete, or nonsense: the checksum decides
    begun = time.monotonic()
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"})
    try:
        opened = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if start and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # there is nothing after `start`: complete, or nonsense
        raise
    with opened as answer:
        if answer.status != http.client.PARTIAL_CONTENT:
            start = 0  # this server sends the whole file again
        least = max(least, min(size, start + (answer.length or 0)))  # this server knows its size to the byte
        bar.update(before + start - bar.n)
        done = start
        with open(part, "ab" if start else "wb") as out:
            while done < size and (chunk := _read(answer, size - done)):
                out.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
                seconds = time.monotonic() - begun
                if seconds > TIMEOUT and done - start < SLOWEST * seconds:
                    raise ConnectionError(f"slower than {SLOWEST / 1000:g} kB/s")
    if done < least:
        raise ConnectionError(f"cut off after {done:,} of {least:,} bytes")


def _read(answer: http.client.HTTPResponse, limit: int) -> bytes:
    """At most `limit` bytes, as soon as some arrive, so that a trickle is noticed; none at the end."""
    try:
        return answer.read1(min(65536, limit))
    except OSError as error:  # said to be the network's, because every other OSError is taken for the disk's
        raise ConnectionError(_why(error)) from error


def _keep_if_right(part: Path, target: Path, file: RemoteFile) -> bool:
    """Unpack a complete download and give it its final name if its content is right; remove it otherwise."""
    unpacked = part
    try:
        if file.packed:
            unpacked = target.with_name(target.name + ".unpacked")
            with gzip.open(part, "rb") as source, open(unpacked, "wb") as out:
                shutil.copyfileobj(source, out)
        if _state(unpacked, file.sha256) != "present":
            return False
        os.replace(unpacked, target)
        return True
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return False
    finally:
        part.unlink(missing_ok=True)
        unpacked.unlink(missing_ok=True)


def _storage_error(error: OSError, what: str) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DataError(
            f"{what}, and a download does not fit on the disk ({_why(error)})",
            "make room there, or set LABS_DATA to a folder on another disk",
        )
    return DataError(
        f"{what}, and the folder cannot be written to ({_why(error)})",
        "set LABS_DATA to a folder where you may write",
    )


def _url(mirror: str, file: RemoteFile) -> str:
    return f"{mirror}{file.name}{'.gz' if file.packed else ''}"


def _list(problems: dict[str, str]) -> str:
    """Each address's problem in one line; the problem alone if all have the same."""
    if len(set(problems.values())) == 1:
        return next(iter(problems.values()))
    return ", ".join(f"{urlsplit(url).netloc}: {why}" for url, why in problems.items())


def _why(error: BaseException) -> str:
    """What went wrong, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _why(error.reason)
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
