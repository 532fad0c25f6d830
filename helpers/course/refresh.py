"""`refresh`: run the notebooks of solutions/ and store the outputs that the tests compare.

A second run changes nothing: what depends on when, where and by whom a notebook was run is switched off or
taken out. `refresh --times` also measures each notebook and states its minutes and memory in its opening.
"""

import argparse
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from helpers.course import notebooks
from helpers.course.notebooks import CourseError

CELL_TIMEOUT = 600  # seconds
TIMES_MARK = "**Time and memory:**"

# What every kernel of a refresh or a test runs under, so that both see the same outputs.
KERNEL_SETTINGS = {
    "PYTEST_CURRENT_TEST": "notebook",  # ipykernel then leaves C-level output alone, here as under pytest
    "TQDM_DISABLE": "1",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "LABS_HEADLESS": "1",
    "LABS_DATA_SOURCE": "embedded",
}


def kernel_environment(*folders: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with a PYTHONPATH that starts with `folders` and the tree that this module stands in.

    So a kernel imports the same `helpers` as the process that starts it, even if another copy is installed.
    A relative LABS_DATA is made absolute, because kernels run in the folder of their notebook.
    """
    paths = [*map(str, folders), str(notebooks.ROOT), environment.get("PYTHONPATH", "")]
    data = {"LABS_DATA": os.path.abspath(environment["LABS_DATA"])} if environment.get("LABS_DATA") else {}
    return {**environment, **data, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@dataclass
class Usage:
    """What one run of a notebook took: wall seconds, and the peak memory of its processes in bytes."""

    seconds: float = 0.0
    memory: int = 0


@contextmanager
def measured() -> Iterator[Usage]:
    """Measure the block into the `Usage` it yields: wall time, and the memory of this process's children.

    The resident memory of all children is summed ten times a second, so pages that they share count twice.
    """
    usage, done = Usage(), threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            usage.memory = max(usage.memory, sum(map(_resident, psutil.Process().children(recursive=True))))

    watcher = threading.Thread(target=watch, daemon=True)
    start = time.perf_counter()
    watcher.start()
    try:
        yield usage
    finally:
        usage.seconds = time.perf_counter() - start
        done.set()
        watcher.join()


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.Error:  # it ended since it was listed
        return 0


def execute(notebook: NotebookNode, name: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run all cells in a fresh kernel started in `folder`, and keep their outputs in place.

    Raises CourseError, naming the cell, when one raises, writes to stderr, takes over ten minutes, or holds a
    solution that its own check does not find right.
    """
    started = 0  # cells, counted from 1

    def count(cell: NotebookNode, cell_index: int) -> None:
        nonlocal started
        started = cell_index + 1

    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name=notebooks.KERNELSPEC["name"],
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,
        on_cell_start=count,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        # What Python writes to stderr reaches the notebook; this is the kernel process's own talk of ports.
        client.execute(env=dict(environment), stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        raise CourseError(f"{name}, cell {started} raised {error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise CourseError(f"{name}, cell {started} ran for more than {CELL_TIMEOUT} s.") from error
    except DeadKernelError as error:
        raise CourseError(f"{name}, cell {started} ended the kernel; is there enough memory?") from error
    for number, cell in enumerate(notebook.cells, 1):
        if complaint := _unfit_output(cell):
            raise CourseError(f"{name}, cell {number} {complaint}")


def _unfit_output(cell: NotebookNode) -> str:
    """What must not be stored of a cell that has run, "" when all is well."""
    outputs = cell.get("outputs", [])
    for output in outputs:
        if output.get("name") == "stderr":
            return f"wrote to stderr ({_first_line(output.text)}); find the cause and silence it there."
    if notebooks.is_exercise(cell):
        cards = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
        if not any(_first_line(card).endswith(": right") for card in cards):
            judged = "; ".join(map(_first_line, cards))
            return f"holds a solution that is not judged right ({judged}); correct it."
    return ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def refresh(path: Path, registry: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Usage:
    """Fill the solutions of one notebook from their references, run it, and store it with its outputs.

    registry: key -> helpers.exercises.Exercise; environment: of the kernel, os.environ by default.
    Raises CourseError and leaves the file as it was when an exercise is malformed or a cell fails.
    """
    notebook = notebooks.read(path)
    notebooks.fill_solutions(notebook, registry)
    if found := notebooks.problems(notebook, path.name, registry):
        raise CourseError("\n".join(found))
    notebooks.tidy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    environment = kernel_environment(environment={**(environment or os.environ), **KERNEL_SETTINGS})
    with measured() as usage:
        execute(notebook, path.name, path.parent, environment)
    notebooks.tidy(notebook)
    notebooks.write(path, notebooks.text_of(notebook))
    return usage


def state_times(path: Path, registry: Mapping[str, Any]) -> dict[str, Any]:
    """Refresh one notebook, and write what it took into its metadata and its line `**Time and memory:**`.

    The CPU's minutes come from a run in which CUDA is hidden. Where CUDA is there, a second run gives the
    GPU's minutes; elsewhere those measured before are kept. Returns the notebook's `course` metadata.
    """
    _times_line_of(notebooks.read(path), path.name)  # rather now than after minutes of running
    usage = refresh(path, registry, {**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    times = {"minutes_cpu": round(usage.seconds / 60, 1), "memory_gb": round(usage.memory / 1e9, 1)}
    if _cuda_is_there():
        times["minutes_gpu"] = round(refresh(path, registry).seconds / 60, 1)
    notebook = notebooks.read(path)
    course = {**notebook.metadata.get("course", {}), **times}
    notebook.metadata["course"] = course
    opening, line = _times_line_of(notebook, path.name)
    opening.source = opening.source.replace(line, times_line(course))
    notebooks.write(path, notebooks.text_of(notebook))
    return course


def _times_line_of(notebook: NotebookNode, name: str) -> tuple[NotebookNode, str]:
    """The first Markdown cell, and its line on time and memory."""
    opening = next((cell for cell in notebook.cells if cell.cell_type == "markdown"), None)
    lines = opening.source.split("\n") if opening else []
    marked = [line for line in lines if line.startswith(TIMES_MARK)]
    if len(marked) != 1:
        raise CourseError(f"{name}: its first Markdown cell needs one line that starts with {TIMES_MARK}.")
    return opening, marked[0]


def times_line(course: Mapping[str, Any]) -> str:
    """A lab's line on time and memory, from its `course` metadata (minutes, GB)."""
    parts = [f"{spoken_minutes(course['minutes_cpu'])} on CPU"]
    if "minutes_gpu" in course:
        parts.append(f"{spoken_minutes(course['minutes_gpu'])} on GPU")
    return f"{TIMES_MARK} {', '.join(parts)}, {course['memory_gb']:.1f} GB"


def spoken_minutes(minutes: float) -> str:
    """Measured minutes as a lab's opening and the README state them."""
    if minutes < 1:
        return "less than 1 minute"
    whole = math.ceil(minutes)
    return f"about {whole} minute{'s' * (whole > 1)}"


def _cuda_is_there() -> bool:
    import torch  # takes seconds, and only the measurement needs it

    return torch.cuda.is_available()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "notebooks", nargs="*", type=Path, help="notebooks to run (default: all of solutions/)"
    )
    parser.add_argument(
        "--times", action="store_true", help="measure minutes and memory, and state them in the lab"
    )


def main(args: argparse.Namespace) -> int:
    """Exit status 0 when every notebook ran; 1 otherwise, with the reasons, after running the others."""
    from helpers.exercises import registry

    failed = False
    for path in args.notebooks or sorted(notebooks.SOLUTIONS.glob("*.ipynb")):
        try:
            if args.times:
                course = state_times(path, registry)
                print(f"{path.name}: {times_line(course).removeprefix(TIMES_MARK).strip()}")
            else:
                usage = refresh(path, registry)
                print(f"{path.name}: {usage.seconds:.0f} s")
        except CourseError as error:
            print(error, file=sys.stderr)
            failed = True
    return 1 if failed else 0
