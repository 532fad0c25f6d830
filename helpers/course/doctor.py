"""`python -m helpers.course doctor`: can this machine run the labs? One line per finding, with what to do.

    ok    runs
    note  worth knowing; the labs run all the same (without network or real data they use embedded data)
    FAIL  a lab could not run; then the exit status is 1

Packages, device and kernel are tried in processes of their own: a broken package may end its process, and
torch and TensorFlow must never meet in one.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTION = "where-does-it-look"
PYTHONS = ((3, 11), (3, 13))  # oldest and newest, as in pyproject.toml
IMPORT_NAMES = {
    **{"ipython": "IPython", "pillow": "PIL", "scikit-image": "skimage", "scikit-learn": "sklearn"},
    **{"grad-cam": "pytorch_grad_cam", "opencv-python-headless": "cv2"},
}
MEMORY_GB = 2.0  # the most that a lab may take
DISK_GB = 1.0  # notebooks, and the data sets that labs download unasked
PROBE_SECONDS = 120.0  # the first import on a slow disk takes long
REINSTALL = "run `make clean labs` (without make: delete .venv and set up again)"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    status: Literal["ok", "note", "FAIL"]
    subject: str
    text: str  # what was found and, unless all is well, what to do

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.subject:<16}  {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`doctor` takes no arguments."""


def main(args: argparse.Namespace) -> int:
    """Print all findings. 1 if a lab could not run here, else 0."""
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "Python": check_python,
        "Packages": check_packages,
        "Memory": check_memory,
        "Disk": check_disk,
        "Kernel": check_kernel,
        "Data": check_data,
        "Weights": check_weights,
        "Network": check_network,
        "Sandbox": check_sandbox,
    }
    # Threads, because most checks wait for a process or for the network.
    with ThreadPoolExecutor(len(checks)) as pool:
        running = [pool.submit(_findings, subject, check) for subject, check in checks.items()]
        findings = []
        for result in running:
            for finding in result.result():
                print(finding, flush=True)
                findings.append(finding)
    failed = sum(finding.status == "FAIL" for finding in findings)
    print(f"{failed} of {len(findings)} findings must be mended." if failed else "The labs can run here.")
    return 1 if failed else 0


def _findings(subject: str, check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What `check` finds. A check that breaks is a finding too: often the package that it needs is broken."""
    try:
        return list(check())
    except Exception as error:
        return [Finding("FAIL", subject, f"could not be checked: {_last_line(repr(error))}; {REINSTALL}")]


# --------------------------------------------------------------------------- Python and packages


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Iterable[Finding]:
    """The version of this Python."""
    found = ".".join(map(str, version))
    if PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        yield Finding("ok", "Python", f"{found} ({sys.prefix})")
    else:
        yield Finding("FAIL", "Python", f"{found}; install 3.11, 3.12 or 3.13 and set the course up with it")


def check_packages() -> Iterable[Finding]:
    """Every package that the course depends on, its version, whether it can be imported; then the device."""
    from packaging.requirements import Requirement

    try:
        lines = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("FAIL", "Packages", f"the course is not installed in this Python; {REINSTALL}")
        return
    needed = [Requirement(line) for line in lines]
    needed = [need for need in needed if need.marker is None or need.marker.evaluate({"extra": ""})]
    names = [need.name for need in needed]
    steps = {name: f"import {IMPORT_NAMES.get(name, name.replace('-', '_'))}" for name in names}
    keras = {name: steps.pop(name) for name in ("tensorflow",) if name in steps}
    steps["Device"] = DEVICE_PROBE  # here, because torch takes seconds to import
    with ThreadPoolExecutor(2) as pool:
        outcomes: dict[str, Outcome] = {}
        for part in pool.map(run_steps, (steps, keras)):
            outcomes |= part
    for need in needed:
        yield _package(need.name, str(need.specifier), outcomes[need.name].error)
    yield _device(outcomes["Device"])


def _package(name: str, wanted: str, error: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("FAIL", name, f"missing; {REINSTALL}")
    if error:
        return Finding("FAIL", name, f"{version} cannot be imported: {error}; {REINSTALL}")
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding("note", name, f"{version} is untested (we test {wanted}); if a lab fails, {REINSTALL}")
    return Finding("ok", name, version)


DEVICE_PROBE = """
import torch
from helpers.device import pick_device
device = pick_device()
layer = torch.nn.Conv2d(1, 1, 3).to(device)
layer(torch.ones(1, 1, 8, 8, device=device)).sum().item()
print(torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper())
"""


def _device(outcome: Outcome) -> Finding:
    """The device that `helpers.device.pick_device` chooses, after a convolution on it."""
    if outcome.error:
        advice = "renew the driver of the GPU, or set CUDA_VISIBLE_DEVICES to nothing to use the CPU"
        return Finding("FAIL", "Device", f"a convolution failed: {outcome.error}; {advice}")
    if outcome.output == "CPU":
        return Finding("ok", "Device", "CPU; the labs are made for it, a GPU only saves time")
    return Finding("ok", "Device", outcome.output)


@dataclass
class Outcome:
    """What became of a step: what it printed, and what went wrong ("" if nothing did)."""

    output: str = ""
    error: str = ""


UNFINISHED = "not finished"
STEPS_PROBE = """
import contextlib, io, json, sys
for name, code in json.loads(sys.argv[1]).items():
    print("?", name, flush=True)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(code, {})
        print("=", " ".join(printed.getvalue().split()), flush=True)
    except Exception as error:
        print("!", " ".join(f"{type(error).__name__}: {error}".split()), flush=True)
"""


def run_steps(steps: dict[str, str]) -> dict[str, Outcome]:
    """Run pieces of Python, name -> code, one after the other in one new process.

    A step that takes the process down with it is named as the culprit; those after it run in another process.
    """
    outcomes: dict[str, Outcome] = {}
    while rest := {name: code for name, code in steps.items() if name not in outcomes}:
        failure, printed = _python(STEPS_PROBE, json.dumps(rest))
        current = None
        for line in printed.splitlines():
            mark, _, text = line.partition(" ")
            if mark == "?":
                current = outcomes[text] = Outcome(error=UNFINISHED)
            elif current and mark == "=":
                current.output, current.error = text, ""
            elif current and mark == "!":
                current.error = text
        if current is None:
            raise RuntimeError(f"a second Python did not start ({failure})")
        if current.error == UNFINISHED and failure:
            current.error = failure
    return outcomes


def _python(code: str, *arguments: str) -> tuple[str, str]:
    """Run `code` in a new Python. Returns why it did not end well ("" if it did), and what it printed."""
    with subprocess.Popen(
        [sys.executable, "-X", "utf8", "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        errors="replace",
        cwd=ROOT,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            printed, _ = process.communicate()
            return f"it took more than {PROBE_SECONDS:.0f} s", printed
    return f"it ended Python with status {process.returncode}" if process.returncode else "", printed


# --------------------------------------------------------------------------- machine


def check_memory() -> Iterable[Finding]:
    """Free memory against what a lab may take."""
    import psutil

    memory = psutil.virtual_memory()
    total, free = memory.total / 1e9, memory.available / 1e9
    text = f"{free:.1f} of {total:.1f} GB free"
    if total < MEMORY_GB:
        yield Finding("FAIL", "Memory", f"{text}; labs take up to {MEMORY_GB:.0f} GB, use a larger machine")
    elif free < MEMORY_GB:
        yield Finding("note", "Memory", f"{text}; labs take up to {MEMORY_GB:.0f} GB, close other programs")
    else:
        yield Finding("ok", "Memory", text)


def check_disk(root: Path = ROOT) -> Iterable[Finding]:
    """Free space where the course stands, and whether it may be written there."""
    try:
        with tempfile.TemporaryFile(dir=root) as trial:
            trial.write(b"x" * 1_000_000)
            trial.flush()
    except OSError as error:
        advice = "free some space or move the course to a folder of yours"
        yield Finding("FAIL", "Disk", f"nothing can be written to {root} ({error.strerror}); {advice}")
        return
    free = shutil.disk_usage(root).free / 1e9
    if free < DISK_GB:
        yield Finding("note", "Disk", f"{free:.1f} GB free; labs and data take {DISK_GB:.0f} GB, make room")
    else:
        yield Finding("ok", "Disk", f"{free:.0f} GB free")


def check_kernel() -> Iterable[Finding]:
    """Start the notebooks' kernel, python3, and see which Python it runs and whether it finds `helpers`."""
    import nbclient
    import nbformat

    cell = nbformat.v4.new_code_cell("import helpers, sys\nprint(sys.prefix)")
    notebook = nbformat.v4.new_notebook(cells=[cell])
    with tempfile.TemporaryDirectory() as elsewhere:  # as in work/, helpers are not beside the notebook
        client = nbclient.NotebookClient(
            notebook,
            kernel_name="python3",
            startup_timeout=60,
            timeout=60,
            extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: this is a report, not a log
        )
        try:
            client.execute(cwd=elsewhere)
        except Exception as error:
            yield Finding("FAIL", "Kernel", f"python3 does not work: {_last_line(str(error))}; {REINSTALL}")
            return
    prefix = notebook.cells[0].outputs[0].text.strip()
    if Path(prefix).resolve() == Path(sys.prefix).resolve():
        yield Finding("ok", "Kernel", "python3 starts")
    else:
        advice = "remove that kernel (`jupyter kernelspec list` shows where it is)"
        yield Finding("FAIL", "Kernel", f"python3 runs {prefix} instead of {sys.prefix}; {advice}")


# --------------------------------------------------------------------------- data and network


def check_data() -> Iterable[Finding]:
    """The setting of `LABS_DATA_SOURCE`, and which real data sets are there, with the right content."""
    from helpers import data, download

    setting = os.environ.get("LABS_DATA_SOURCE") or "auto"
    if setting not in ("auto", "real", "embedded"):
        yield Finding("FAIL", "Data", f"LABS_DATA_SOURCE is {setting!r}; set it to auto, real or embedded")
    for remote in data.REMOTE_SETS.values():
        states = set(remote.states().values())
        if states == {"present"}:
            yield Finding("ok", remote.title, f"in {remote.folder}")
        else:
            found = f"{' and '.join(sorted(states - {'present'}))} in {remote.folder}"
            fetch = f"`python -m helpers.data {remote.name}` downloads it"
            if setting != "real":
                text = f"{found}; the labs use embedded data until then; {fetch}"
                yield Finding("note", remote.title, text)
            elif all(download.answering(remote.mirrors).values()):
                advice = "copy it there, or set LABS_DATA_SOURCE to auto or embedded"
                yield Finding("FAIL", remote.title, f"{found}, and no server answers: {advice}")
            else:
                yield Finding("note", remote.title, f"{found}; the labs will try a download; {fetch}")
    yield _check_pets(setting)


def _check_pets(setting: str) -> Finding:
    """The photos of cats and dogs, which no lab downloads by itself."""
    from helpers import pet_photos
    from helpers.download import DataError

    status = "FAIL" if setting == "real" else "note"
    try:
        found = pet_photos.find_pets()
    except DataError as error:
        return Finding(status, pet_photos.TITLE, str(error).removesuffix("."))
    if found:
        return Finding("ok", pet_photos.TITLE, f"in {found.folder} ({found.counts()})")
    instead = "set LABS_DATA_SOURCE to auto or embedded" if setting == "real" else "the labs use drawn pets"
    fetch = f"`python -m helpers.data {pet_photos.NAME}` downloads it ({pet_photos.SIZE})"
    text = f"missing in {pet_photos.folder()}; {instead} until then; {fetch}"
    return Finding(status, pet_photos.TITLE, text)


def check_weights() -> Iterable[Finding]:
    """Which ImageNet weights are there. Labs that want them use stand-ins until then."""
    from helpers.download import megabytes
    from helpers.pretrained import NAMES, remote_set

    for name in NAMES:
        remote = remote_set(name)
        (state,) = remote.states().values()
        if state == "present":
            yield Finding("ok", remote.title, f"in {remote.folder}")
        else:
            fetch = f"`python -m helpers.data {name}` downloads the weights ({megabytes(remote.size)})"
            text = f"{state} in {remote.folder}; labs 04 and 05 use stand-ins until then; {fetch}"
            yield Finding("note", remote.title, text)


def check_network() -> Iterable[Finding]:
    """Whether a server answers that has real data."""
    from helpers import data, download

    mirrors = {mirror for remote in data.REMOTE_SETS.values() for mirror in remote.mirrors}
    for address, problem in sorted(download.answering(sorted(mirrors)).items()):
        if problem:
            advice = "only downloads need it; behind a proxy set HTTPS_PROXY and HTTP_PROXY"
            yield Finding("note", "Network", f"{address}: {problem}; {advice}")
        else:
            yield Finding("ok", "Network", f"{address} answers")


def check_sandbox() -> Iterable[Finding]:
    """What the command `grade` needs; labs and students don't."""
    from helpers.course.grading.box import why_not

    if reason := why_not():
        yield Finding("note", "sandbox", f"only for grading what students hand in: {reason}")
    else:
        yield Finding("ok", "sandbox", "what students hand in can be graded here")


def _last_line(text: str) -> str:
    """The last line that is not empty, without colours: of a traceback, the error itself."""
    lines = re.sub(r"\x1b\[[\d;]*m", "", text).strip().splitlines()
    return lines[-1].strip() if lines else ""
