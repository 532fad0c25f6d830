"""`helpers.download` against a server on this machine that fails in every way a real one does."""

import errno
import gzip
import hashlib
import multiprocessing
import os
import pickle
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import data, download
from helpers.download import DataError, RemoteFile, RemoteSet, fetch
from tests.local_data import TINY, TINY_FILES, TINY_PACKED, Server, tiny_set

# Noise, so that gzip cannot shrink it and half a download is half of the data.
CONTENT = {"one": random.Random(1).randbytes(300_000), "two": random.Random(2).randbytes(1_000)}
PACKED = {f"/{name}.gz": gzip.compress(content, mtime=0) for name, content in CONTENT.items()}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(PACKED)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def remote(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RemoteSet:
    """The set that the server has, with an empty data folder."""
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "data"))
    return RemoteSet(
        name="noise",
        title="Noise",
        subfolder="noise/raw",
        mirrors=(server.address,),
        files=tuple(
            RemoteFile(name, hashlib.sha256(content).hexdigest(), len(PACKED[f"/{name}.gz"]), packed=True)
            for name, content in CONTENT.items()
        ),
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where a server is silent: on a busy machine even a good one takes a while to answer."""
    monkeypatch.setattr(download, "TIMEOUT", 1.0)


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def left_in(remote: RemoteSet) -> set[str]:
    return {path.name for path in remote.folder.iterdir()} - {".lock"}


def assert_complete(remote: RemoteSet) -> None:
    assert {name: (remote.folder / name).read_bytes() for name in left_in(remote)} == CONTENT


def test_downloads_says_the_size_and_leaves_nothing_else(remote, server, capsys):
    fetch(remote)
    assert_complete(remote)
    size = sum(map(len, PACKED.values())) / 1e6
    assert capsys.readouterr().out == f"Downloading Noise ({size:.1f} MB) to {remote.folder}\n"
    assert server.seen == [("/one.gz", 0), ("/two.gz", 0)]


def test_file_that_is_not_packed(remote, server, monkeypatch):
    monkeypatch.setitem(PACKED, "/plain", CONTENT["one"])
    plain = RemoteFile("plain", hashlib.sha256(CONTENT["one"]).hexdigest(), len(CONTENT["one"]))
    remote = replace(remote, files=(plain,))
    server.mode = "cut once"
    fetch(remote)
    assert left_in(remote) == {"plain"} and (remote.folder / "plain").read_bytes() == CONTENT["one"]


def test_what_is_there_is_not_downloaded_again(remote, server, capsys):
    fetch(remote)
    server.seen.clear()
    capsys.readouterr()
    fetch(remote)
    assert not server.seen and not capsys.readouterr().out


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "one bit": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "empty": lambda _: b"",
    "too long": lambda content: content + b"\n",
    "still packed": gzip.compress,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_file_is_replaced(remote, server, damage):
    fetch(remote)
    server.seen.clear()
    (remote.folder / "one").write_bytes(damage(CONTENT["one"]))
    assert remote.states() == {"one": "damaged", "two": "present"}
    fetch(remote)
    assert_complete(remote)
    assert server.seen == [("/one.gz", 0)]


def test_damaged_file_without_network_is_named(remote):
    fetch(remote)
    (remote.folder / "one").write_bytes(b"half")
    with pytest.raises(DataError, match=r"one is damaged.* no server answers .*; connect to the network"):
        fetch(replace(remote, mirrors=(unused_address(),)))
    assert remote.states()["one"] == "damaged"


def test_download_that_was_cut_off_goes_on_in_the_same_run(remote, server):
    server.mode = "cut once"
    fetch(remote)
    assert_complete(remote)
    assert [path for path, _ in server.seen] == ["/one.gz", "/one.gz", "/two.gz"]
    assert server.seen[1][1] == len(PACKED["/one.gz"]) // 2


@pytest.mark.parametrize("mode", ["fine", "no ranges"])
def test_download_that_was_cut_off_goes_on_in_a_later_run(remote, server, mode):
    server.mode = "cut"
    with pytest.raises(DataError, match=r"one did not come \(cut off after [\d,]+ of [\d,]+ bytes\);"):
        fetch(remote)
    assert left_in(remote) == {"one.part"} and set(remote.states().values()) == {"missing"}
    server.mode = mode
    fetch(remote)
    assert_complete(remote)
    assert [path for path, _ in server.seen[2:]] == ["/one.gz", "/two.gz"]
    assert server.seen[2][1] == (remote.files[0].size // 2 + remote.files[0].size) // 2


@pytest.mark.parametrize("rubbish", [b"rubbish", b"x" * 10_000_000], ids=["short", "too long"])
def test_rubbish_from_an_earlier_download_does_no_harm(remote, rubbish):
    remote.folder.mkdir(parents=True)
    (remote.folder / "one.part").write_bytes(rubbish)
    (remote.folder / "one.unpacked").write_bytes(rubbish)
    fetch(remote)
    assert_complete(remote)


@pytest.mark.parametrize(
    "mode, why",
    [
        ("wrong bytes", "wrong checksum"),
        ("other content", "wrong checksum"),
        ("login page", "wrong checksum"),
        ("gone", "HTTP status 404"),
        ("silent", r"no answer within 1 s"),
        ("trickle", "slower than 5 kB/s"),
    ],
)
def test_server_that_fails(remote, server, impatient, mode, why):
    server.mode = mode
    begun = time.monotonic()
    with pytest.raises(DataError, match=rf"^Noise is not in .*, and one did not come \({why}\); connect"):
        fetch(remote)
    assert time.monotonic() - begun < 10
    assert set(remote.states().values()) == {"missing"}
    assert left_in(remote) <= {"one.part"}
    server.mode = "fine"
    fetch(remote)
    assert_complete(remote)


@pytest.mark.parametrize("mode", ["wrong bytes", "gone", "cut", "dead"])
def test_second_mirror_helps_out(remote, server, impatient, mode):
    first = Server(PACKED)
    first.mode = mode
    fetch(replace(remote, mirrors=(first.address, server.address)))
    first.released.set()
    first.shutdown()
    first.server_close()
    assert_complete(remote)


def test_all_problems_are_told_when_they_differ(remote, server):
    other = Server(PACKED)
    other.mode, server.mode = "gone", "wrong bytes"
    with pytest.raises(DataError, match=r"127.0.0.1:\d+: HTTP status 404, 127.0.0.1:\d+: wrong checksum"):
        fetch(replace(remote, mirrors=(other.address, server.address)))
    other.shutdown()
    other.server_close()


def test_no_network_is_noticed_soon(remote, impatient, monkeypatch):
    """A look-up of a name may hang for minutes and obeys no time limit."""
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(30) and [])
    begun = time.monotonic()
    with pytest.raises(DataError, match=r"no server answers \(no answer within 1 s\)"):
        fetch(replace(remote, mirrors=("https://one.invalid/", "https://two.invalid/")))
    assert time.monotonic() - begun < 4
    released.set()


def test_large_download_only_on_request(remote, server, monkeypatch, capsys):
    monkeypatch.setattr(download, "ASK_ABOVE", 100_000)
    sentence = r"a download of 0.3 MB starts only on request; start it with: python -m helpers.data noise\."
    with pytest.raises(DataError, match=sentence):
        fetch(remote)
    assert not server.seen and not left_in(remote)
    fetch(remote, requested=True)
    assert_complete(remote)
    assert "Downloading Noise (0.3 MB)" in capsys.readouterr().out


def test_limit_of_unasked_downloads():
    assert download.ASK_ABOVE == 50_000_000


def test_folder_that_cannot_be_made(remote, tmp_path):
    (tmp_path / "data").write_text("a file is in the way", encoding="utf-8")
    with pytest.raises(DataError, match=r"cannot be written to \(.+\); set LABS_DATA to a folder"):
        fetch(remote)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_that_cannot_be_written_to(remote):
    remote.folder.mkdir(parents=True)
    remote.folder.chmod(0o555)
    with pytest.raises(DataError, match=r"cannot be written to \(Permission denied\); set LABS_DATA"):
        fetch(remote)
    remote.folder.chmod(0o755)


def test_damaged_file_in_a_read_only_folder_is_named(remote, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    fetch(remote)
    (remote.folder / "one").write_bytes(b"half")
    monkeypatch.setattr(download.FileLock, "acquire", refuse)
    with pytest.raises(DataError, match=r"one is damaged.* cannot be written to \(Read-only file system"):
        fetch(remote)


def test_folder_without_write_permission_is_read_all_the_same(remote, monkeypatch):
    """A shared folder of data is often read-only."""
    fetch(remote)
    (remote.folder / ".lock").unlink(missing_ok=True)
    monkeypatch.setattr(os, "open", lambda *_, **__: pytest.fail("nothing to write"))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: pytest.fail("nothing to make"))
    fetch(remote)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("file", ["one.part", "one.unpacked"])
def test_full_disk(remote, file):
    """`/dev/full` fails like a full disk, in the kernel; here it lies where the download is to be written."""
    remote.folder.mkdir(parents=True)
    (remote.folder / file).symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"does not fit on the disk .*No space left on device.*; make room"):
        fetch(remote)
    assert not left_in(remote) and Path("/dev/full").is_char_device()
    fetch(remote)
    assert_complete(remote)


def test_full_disk_on_any_system(remote, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "copyfileobj", full)
        with pytest.raises(DataError, match=r"does not fit on the disk .*; make room there, or set"):
            fetch(remote)
    assert not left_in(remote)


LIMITED = """
import pickle, resource, sys
from helpers.download import DataError, fetch
remote = pickle.load(sys.stdin.buffer)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    fetch(remote)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for the size of files")
def test_quota(remote):
    outcome = subprocess.run(
        [sys.executable, "-c", LIMITED], input=pickle.dumps(remote), capture_output=True, check=True
    )
    assert b"does not fit on the disk" in outcome.stdout
    assert not left_in(remote)


def test_programs_that_fetch_at_once(remote, server):
    server.mode = "slow"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(fetch, 3 * [remote], chunksize=1) == 3 * [None]
    assert_complete(remote)
    assert sorted(server.seen) == [("/one.gz", 0), ("/two.gz", 0)], "one of them downloads, the others wait"


def test_program_that_is_killed(remote, server):
    server.mode = "slow"
    victim = multiprocessing.get_context("spawn").Process(target=fetch, args=(remote,))
    victim.start()
    part = remote.folder / "one.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.kill()
    victim.join()
    assert left_in(remote) == {"one.part"} and set(remote.states().values()) == {"missing"}
    server.mode = "fine"
    fetch(remote)  # the lock went with the process that held it
    assert_complete(remote)
    assert server.seen[1][1] > 0


def test_answering(server):
    nobody = unused_address()
    answers = download.answering([server.address, nobody])
    assert answers[server.address] == "" and "refused" in answers[nobody].lower()


def test_data_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_DATA", "~/digits")
    assert download.data_folder() == Path.home().resolve() / "digits"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABS_DATA", "here")
    assert download.data_folder() == tmp_path.resolve() / "here"
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("LABS_DATA")
        else:
            monkeypatch.setenv("LABS_DATA", unset)
        assert download.data_folder() == Path(download.__file__).resolve().parents[1] / "data"


def test_error_survives_pickling():
    error = pickle.loads(pickle.dumps(DataError("it rains", "stay at home")))
    assert str(error) == "it rains; stay at home." and error.reason == "it rains"


# The sets of the labs, loaded as a lab loads them, through the same server.


@pytest.fixture(params=[("MNIST", data.load_mnist), ("FASHION_MNIST", data.load_fashion_mnist)])
def lab(request, tmp_path, monkeypatch):
    """A tiny set on the server in the place of a real one, and how a lab loads it."""
    name, load = request.param
    server = Server({f"/{file}.gz": content for file, content in TINY_PACKED.items()})
    remote = replace(tiny_set(getattr(data, name)), mirrors=(server.address,))
    monkeypatch.setattr(data, name, remote)
    monkeypatch.setattr(download, "_given_up", set())
    monkeypatch.setenv("LABS_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("LABS_DATA_SOURCE", raising=False)
    yield server, remote, load
    server.released.set()
    server.shutdown()
    server.server_close()


def assert_real(images: data.ImageSet) -> None:
    assert images.source == "real" and images.labels.tolist() == TINY[images.split][1].tolist()


@pytest.mark.parametrize("mode", ["fine", "slow", "cut once", "no ranges"])
def test_lab_downloads(lab, mode):
    server, remote, load = lab
    server.mode = mode
    assert_real(load("train"))
    count = len(server.seen)
    assert_real(load("test"))
    assert len(server.seen) == count, "the second split must not download again"
    assert left_in(remote) == set(TINY_FILES)


@pytest.mark.parametrize(
    "mode, why",
    [
        ("cut", "cut off after"),
        ("wrong bytes", "wrong checksum"),
        ("other content", "wrong checksum"),
        ("login page", "wrong checksum"),
        ("gone", "HTTP status 404"),
        ("silent", "no answer within 1 s"),
        ("trickle", "slower than"),
        ("dead", "no server answers"),
    ],
)
def test_lab_falls_back_and_says_why(lab, impatient, monkeypatch, capsys, mode, why):
    server, remote, load = lab
    server.mode = mode
    for split in ("train", "test"):
        assert load(split).source == "embedded"
    first, second = (
        line for line in capsys.readouterr().out.splitlines() if line.startswith(remote.title + ": ")
    )
    assert why in first and first.endswith("restart the kernel to try again]")
    assert second.endswith("[for the same reason]")
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    with pytest.raises(DataError, match=why):
        load("train")
    server.mode = "fine"  # nothing that was left behind is in the way
    assert_real(load("train"))
    assert left_in(remote) == set(TINY_FILES)
