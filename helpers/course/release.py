"""`release`: write labs/ from solutions/, without solutions, outputs and marking schemes.

The work is done by nbgrader's own preprocessors, used as a library: its command line wants another folder
layout, and its `--force` deletes the whole release folder. The result is what `nbgrader generate_assignment`
writes, and a release id in the metadata, `course.release`.
"""

import argparse
import difflib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearMarkScheme,
    ClearOutput,
    ClearSolutions,
    ComputeChecksums,
    LockCells,
)
from traitlets.config import Config

from helpers.course import notebooks
from helpers.course.notebooks import CourseError

# nbgrader's own order. Missing: SaveCells, which fills a gradebook and leaves the notebook as it is.
PREPROCESSORS = (
    LockCells,
    ClearSolutions,
    ClearOutput,
    CheckCellMetadata,
    ComputeChecksums,
    ClearHiddenTests,
    ClearMarkScheme,
    ComputeChecksums,
    CheckCellMetadata,
)
DIFF_LINES = 12


def released(source: Path, registry: Mapping[str, Any]) -> str:
    """The text of the students' notebook made from the solution `source`.

    registry: key -> helpers.exercises.Exercise. Raises CourseError, one sentence per malformed exercise.
    """
    notebook = notebooks.read(source)
    if found := notebooks.problems(notebook, source.name, registry):
        raise CourseError("\n".join(found))
    exporter = NotebookExporter(config=Config({"Exporter": {"default_preprocessors": []}}))
    for preprocessor in PREPROCESSORS:
        exporter.register_preprocessor(preprocessor, enabled=True)
    text, _ = exporter.from_notebook_node(notebook)
    lab = nbformat.reads(text, as_version=4)
    notebooks.tidy(lab)
    lab.metadata["course"] = {**lab.metadata.get("course", {}), "release": notebooks.release_id(lab)}
    return notebooks.text_of(lab)


def release(solutions: Path, labs: Path, registry: Mapping[str, Any]) -> list[Path]:
    """Write one notebook to `labs` for each in `solutions`, and return the paths written.

    Other files in `labs` are left alone. Raises CourseError, before anything is written, when an exercise is
    malformed.
    """
    texts = _all_released(solutions, registry)
    for name, text in texts.items():
        notebooks.write(labs / name, text)
    return [labs / name for name in texts]


def differences(solutions: Path, labs: Path, registry: Mapping[str, Any]) -> list[str]:
    """How `labs` differs from what `release` would write: one text per notebook, empty when in step."""
    texts = _all_released(solutions, registry)
    found = []
    for name, text in texts.items():
        path = labs / name
        if not path.exists():
            found.append(f"{labs.name}/{name} is missing; run `make release`.")
        elif (stored := path.read_bytes().decode()) != text:
            sentence = f"{labs.name}/{name} is out of step with its source; run `make release`."
            found.append(f"{sentence}\n{_diff(stored, text)}")
    for path in sorted(labs.glob("*.ipynb")):
        if path.name not in texts:
            found.append(
                f"{labs.name}/{path.name} has no source in {solutions.name}/; delete it or move it to work/."
            )
    return found


def _all_released(solutions: Path, registry: Mapping[str, Any]) -> dict[str, str]:
    sources = sorted(solutions.glob("*.ipynb"))
    if not sources:
        raise CourseError(f"There is no notebook in {solutions}; run this in a checkout of the course.")
    texts, complaints = {}, []
    for source in sources:
        try:
            texts[source.name] = released(source, registry)
        except CourseError as error:
            complaints.append(str(error))
    if complaints:
        raise CourseError("\n".join(complaints))
    return texts


def _diff(stored: str, wanted: str) -> str:
    lines = difflib.unified_diff(
        stored.split("\n"), wanted.split("\n"), "labs/", "from solutions/", lineterm="", n=1
    )
    shown = list(lines)
    if len(shown) > DIFF_LINES:
        shown = [*shown[:DIFF_LINES], f"... and {len(shown) - DIFF_LINES} more lines"]
    return "\n".join(f"    {line[:110]}" for line in shown)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--check", action="store_true", help="write nothing; fail when labs/ is out of step")


def main(args: argparse.Namespace) -> int:
    """Exit status 0 when labs/ was written, or with `--check` is in step; 1 otherwise, with the reasons."""
    from helpers.exercises import registry

    try:
        if args.check:
            found = differences(notebooks.SOLUTIONS, notebooks.LABS, registry)
            print("\n".join(found) or "labs/ is in step with solutions/.")
            return 1 if found else 0
        for path in release(notebooks.SOLUTIONS, notebooks.LABS, registry):
            print(f"{path.parent.name}/{path.name}")
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
