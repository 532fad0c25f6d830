"""Stands in for the network in the tests: a server on this machine that fails in every way a real one does,
and sets of 40 + 20 images in MNIST's format."""

import gzip
import hashlib
import struct
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from helpers.download import RemoteFile, RemoteSet

SPLITS = ("train", "test")
PREFIX = {"train": "train", "test": "t10k"}


class Server(ThreadingHTTPServer):
    """Serves `files` (path: content) in the manner of `mode`; `seen` lists (path, first byte) per GET."""

    daemon_threads = True
    request_queue_size = 20

    def __init__(self, files: dict[str, bytes]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.mode = "fine"
        self.seen: list[tuple[str, int]] = []
        self.released = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, request, client_address) -> None:
        pass  # clients that were killed or lost patience


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        if self.server.mode == "dead":
            self.server.released.wait(30)
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        mode, body = self.server.mode, self.server.files[self.path]
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        self.server.seen.append((self.path, start))
        if mode == "gone":
            return self.send_error(404)
        if mode == "login page":
            body = b"<html>Please log in to the school's network</html>" * (len(body) // 40)
        if mode == "wrong bytes":
            body = body[:-100] + bytes(100)
        if mode == "other content":
            body = gzip.compress(gzip.decompress(body)[::-1], mtime=0)
        if mode == "no ranges":
            start = 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if mode == "silent":
            self.server.released.wait(30)
        elif mode in ("trickle", "slow"):
            size, pause = (10, 0.02) if mode == "trickle" else (30_000, 0.1)
            for at in range(start, len(body), size):
                self.wfile.write(body[at : at + size])
                time.sleep(pause)
        elif mode == "cut":
            self.wfile.write(body[start : (start + len(body)) // 2])
        elif mode == "cut once":
            self.server.mode = "fine"
            self.wfile.write(body[start : (start + len(body)) // 2])
        else:
            self.wfile.write(body[start:])


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
TINY_PACKED = {name: gzip.compress(content, mtime=0) for name, content in TINY_FILES.items()}


def tiny_set(remote: RemoteSet) -> RemoteSet:
    """In the place of `remote` a set of 40 + 20 images, in files with the same names."""
    files = tuple(
        RemoteFile(
            file.name,
            hashlib.sha256(TINY_FILES[file.name]).hexdigest(),
            len(TINY_PACKED[file.name]),
            packed=True,
        )
        for file in remote.files
    )
    return replace(remote, files=files)
