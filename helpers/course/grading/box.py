"""The sandbox: one process for one submission, which can read the reduced course and nothing of anybody else.

On Linux, bubblewrap (https://github.com/containers/bubblewrap) builds it from the kernel's namespaces: no
network, a read-only system, a small /tmp of its own, no other file. The process runs as an unprivileged
user; memory, processor time, wall time, processes, file size and output are limited, and whatever it has
started ends with it.
"""

import functools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

import psutil

RUNNER = Path(__file__).with_name("runner.py")
START = 180.0  # seconds until the course's own packages are imported, on a busy machine
WAITING = 1000  # lines that are read ahead
POLL = 0.05  # seconds between two looks at the memory


@dataclass(frozen=True)
class Limits:
    """What one sandbox may use. The processes in it share the memory, /tmp included."""

    memory: int = 4_000_000_000  # bytes, of all processes together
    address_space: int = 16_000_000_000  # bytes, of each; PyTorch reserves far more than it uses
    cpu_seconds: int = 900  # of each process
    processes: int = 128  # threads count
    file_size: int = 50_000_000  # bytes, of each file
    scratch: int = 100_000_000  # bytes, of /tmp and of /dev/shm
    output: int = 10_000_000  # bytes printed
    results: int = 100_000_000  # bytes of JSON


class BoxEnded(Exception):
    """The sandbox is gone before it was done. `verdict` is one of "timeout", "dead", "flood"."""

    def __init__(self, verdict: str, sentence: str) -> None:
        super().__init__(sentence)
        self.verdict = verdict


class NoSandbox(Exception):
    """This system cannot build the sandbox: why, and what to do, as sentences for the instructor."""


# What is in it ---------------------------------------------------------------------------------------------


def _command(course: Path, scratch: int) -> list[str]:
    """The command line of bubblewrap, up to the program."""
    command = [shutil.which("bwrap") or "bwrap", "--die-with-parent", "--new-session", "--clearenv"]
    command += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
    if os.getuid() == 0:  # the runner gives up root's rights by itself, and needs two of them for that
        command += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        command += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for path in ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin"):
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            command += ["--ro-bind", path, path]
    command += ["--perms", "0755", "--dir", "/etc"]  # made by --ro-bind, folders would be closed to others
    for path in ("/etc/alternatives", "/etc/fonts", "/etc/ld.so.cache", "/etc/localtime"):
        command += ["--ro-bind-try", path, path]
    # Before the folders of Python, which may lie in it.
    command += ["--size", str(scratch), "--tmpfs", "/tmp", "--dir", "/tmp/home", "--chmod", "1777", "/tmp"]
    command += ["--chmod", "1777", "/tmp/home"]
    bound = [Path("/usr")]
    for prefix in dict.fromkeys(Path(p).resolve() for p in (sys.base_prefix, sys.prefix)):
        if not any(prefix.is_relative_to(path) for path in bound):
            for parent in reversed(prefix.parents[:-1]):
                command += ["--perms", "0755", "--dir", str(parent)]
            command += ["--ro-bind", str(prefix), str(prefix)]
            bound.append(prefix)
    # The course itself, where it lies inside of one of these: they would show its answers.
    for path in (RUNNER.parents[3] / name for name in ("helpers", "solutions", "tests", ".git")):
        if path.exists() and any(path.is_relative_to(parent) for parent in bound):
            command += ["--tmpfs", str(path)]
    command += ["--proc", "/proc", "--dev", "/dev", "--size", str(scratch), "--tmpfs", "/dev/shm"]
    command += ["--chmod", "1777", "/dev/shm"]
    command += ["--ro-bind", str(course), "/course", "--ro-bind", str(course / "passwd"), "/etc/passwd"]
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp/home"]
    for name, value in _environment("/course", "/tmp/home").items():
        command += ["--setenv", name, value]
    return command


def _environment(course: str, home: str) -> dict[str, str]:
    return {
        "HOME": home,
        "LANG": "C.UTF-8",
        "MPLBACKEND": "agg",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": course,
        "PYTHONUTF8": "1",
        "TMPDIR": "/tmp",
    }


def write_course(folder: Path, files: dict[str, str]) -> None:
    """Write a reduced course into an empty folder, for `Box`."""
    for name, text in {**files, "runner.py": RUNNER.read_text(encoding="utf-8")}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    user = _user() or 65534
    (folder / "passwd").write_text(f"student:x:{user}:{user}::/tmp/home:/bin/sh\n", encoding="utf-8")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _user() -> int:
    """The user that root's sandboxes run as: one for each worker, for the limit on processes is per user."""
    return 61184 + os.getpid() % 4000 if hasattr(os, "getuid") and os.getuid() == 0 else 0


@functools.cache
def why_not() -> str:
    """Why there can be no sandbox here, and the way out; "" if there can be one."""
    way_out = (
        "Grade on Linux: a virtual machine, WSL 2 on Windows, or a container that may create namespaces. "
        "Only if you trust every submission as you trust your own code, add --trusted."
    )
    if sys.platform != "linux":
        return f"The sandbox needs Linux. {way_out}"
    if shutil.which("bwrap") is None:
        return f"The sandbox needs bubblewrap: apt install bubblewrap. {way_out}"
    with tempfile.TemporaryDirectory() as folder:
        write_course(Path(folder), {})
        tried = [*_command(Path(folder), 1_000_000), "/usr/bin/env", "true"]
        try:
            ended = subprocess.run(tried, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap does not start ({error}). {way_out}"
    if ended.returncode:
        said = (ended.stderr.strip().splitlines() or ["it says nothing"])[-1]
        return f"This system does not let bubblewrap build a sandbox ({said}). {way_out}"
    return ""


# The running sandbox ---------------------------------------------------------------------------------------


class Box:
    """One running sandbox. Use it in a `with` block: at its end nothing of it is left.

    trusted: no sandbox at all, the runner is an ordinary process of the instructor's.
    """

    def __init__(self, course: Path, job: dict, *, limits: Limits, trusted: bool = False) -> None:
        if not trusted and (reason := why_not()):
            raise NoSandbox(reason)
        self._limits, self._job = limits, job
        self._home = tempfile.mkdtemp() if trusted else ""
        if trusted:
            self._command = [sys.executable, str(course / "runner.py")]
            self._environment = {**os.environ, **_environment(str(course), self._home)}
            self._environment["TMPDIR"] = self._home
        else:
            self._command = [*_command(course, limits.scratch), sys.executable, "/course/runner.py"]
            self._environment = {"PATH": "/usr/bin:/bin"}
        self._user = 0 if trusted else _user()

    def __enter__(self) -> "Box":
        limits = self._limits
        resources = {
            "AS": limits.address_space,
            "CPU": limits.cpu_seconds,
            "FSIZE": limits.file_size,
            "NPROC": limits.processes,
            "CORE": 0,
        }
        if self._home:  # an ordinary process counts among all those of the instructor
            del resources["NPROC"]
        job = {**self._job, "limits": {"resources": resources, "user": self._user}}
        with tempfile.TemporaryFile("w+", encoding="utf-8") as stdin:
            json.dump(job, stdin)
            stdin.seek(0)
            self._process = subprocess.Popen(
                self._command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                cwd=self._home or "/",
                start_new_session=True,
            )
        self._lines: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._ended = ""  # why it was ended from here, as verdict
        self._over = threading.Event()
        self._last_output = b""
        for task in (self._read_results, self._read_output, self._watch_memory):
            threading.Thread(target=task, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._kill("")
        self._process.wait()
        if self._home:
            shutil.rmtree(self._home, ignore_errors=True)

    def message(self, seconds: float) -> dict:
        """The next line of the runner. Raises BoxEnded if none comes within so many seconds."""
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            self._kill("timeout")
            raise BoxEnded("timeout", f"It was still running after {seconds:.0f} s.") from None
        try:
            message = json.loads(line) if line is not None else None
        except (ValueError, RecursionError):
            message = None
        if isinstance(message, dict):
            return message
        self._kill("")  # it may have written nonsense and gone on
        self._process.wait()
        match self._ended:
            case "flood":
                said = f"It put out more than {self._limits.output / 1e6:.0f} MB."
                raise BoxEnded("flood", said)
            case "memory":
                said = f"It used more than {self._limits.memory / 1e9:.0f} GB of memory."
                raise BoxEnded("dead", said)
        raise BoxEnded("dead", "The process ended in the middle of it.")

    @property
    def last_output(self) -> str:
        """The end of what was printed, for the instructor, if the course itself did not start."""
        return self._last_output.decode("utf-8", "replace")

    def _read_results(self) -> None:
        left = self._limits.results
        with self._process.stdout as pipe:
            while line := pipe.readline(left):
                left -= len(line)
                if left <= 0:
                    self._kill("flood")
                    break
                if not self._put(line):
                    return
        self._put(None)

    def _put(self, line: bytes | None) -> bool:
        """Hand a line on; False if nobody takes it any more."""
        while not self._over.is_set():
            try:
                self._lines.put(line, timeout=1)
                return True
            except queue.Full:
                continue
        return False

    def _read_output(self) -> None:
        left = self._limits.output
        with self._process.stderr as pipe:
            while block := pipe.read1(65536):
                left -= len(block)
                self._last_output = (self._last_output + block)[-2000:]
                if left < 0:
                    self._kill("flood")

    def _watch_memory(self) -> None:
        try:
            top = psutil.Process(self._process.pid)
        except psutil.NoSuchProcess:
            return
        while not self._over.wait(POLL):
            try:
                family = [top, *top.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            resident = [_memory(process, "rss") for process in family]
            if sum(resident) > self._limits.memory:  # shared pages are counted more than once: look again
                if sum(_memory(process, "pss") for process in family) > self._limits.memory:
                    self._kill("memory")

    def _kill(self, why: str) -> None:
        """End everything in the sandbox: with bubblewrap's first process the kernel ends all others."""
        self._ended = self._ended or why
        try:
            top = psutil.Process(self._process.pid)
            family = [*top.children(recursive=True), top]
        except psutil.NoSuchProcess:
            return
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def _memory(process: psutil.Process, kind: str) -> int:
    """Bytes that a process uses: "rss" counts shared pages whole, "pss" its share of them."""
    try:
        if kind == "pss":
            return process.memory_full_info().pss
        return process.memory_info().rss
    except psutil.AccessDenied:
        return process.memory_info().rss if kind == "pss" else 0
    except (psutil.NoSuchProcess, AttributeError):
        return 0
