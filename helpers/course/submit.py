"""`python -m helpers.course submit LAB`: check your notebook of a lab and make the file to hand in.

The notebook itself is never changed: what is handed in is a copy that carries, in its metadata
`course.submission`, the name, the time, the release and a digest of the cells. The digest shows that a copy
was edited afterwards; it is no proof of anything, since whoever reads this file can compute one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "hand_in"  # beside the student's notebook
MEGABYTE = 1_000_000
READ_LIMIT = 200 * MEGABYTE  # a notebook with more outputs than that is not worth a student's memory
SIZE_LIMIT = 10 * MEGABYTE  # above it, outputs are left out; graders take 20 MB
GRADERS_LIMIT = 20 * MEGABYTE
RUN_MINUTES = 15.0
NO_ANSWER = "YOUR ANSWER HERE"


class SubmitError(Exception):
    """Why there is nothing to hand in yet, and what to do: one sentence for a student."""


# --------------------------------------------------------------------------- the stamp of a submission


@dataclass(frozen=True)
class Stamp:
    """What a notebook that was made by `submit` says about itself."""

    name: str
    time: datetime  # UTC
    release: str  # "" if the notebook carried none
    intact: bool  # whether cells, name, time and release are still those that were stamped


def stamp_of(notebook: Mapping[str, Any]) -> Stamp | None:
    """The stamp of a notebook (as JSON gives it, of any shape); None when there is none to be read."""
    try:
        found = notebook["metadata"]["course"]["submission"]
        name, release = str(found["name"]), str(found["release"])
        when = datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        intact = found["sha256"] == _digest(notebook, name, found["time"], release)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    return Stamp(name, when, release, intact)


def stamped(notebook: Mapping[str, Any], name: str, when: datetime) -> dict[str, Any]:
    """A copy of the notebook that carries a stamp; the rest of its metadata and its cells are shared."""
    text = when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = dict(notebook["metadata"])
    course = dict(metadata.get("course", {}))
    release = str(course.get("release", ""))
    digest = _digest(notebook, name, text, release)
    course["submission"] = {"name": name, "time": text, "release": release, "sha256": digest}
    return {**notebook, "metadata": {**metadata, "course": course}}


def _digest(notebook: Mapping[str, Any], name: str, time: str, release: str) -> str:
    """SHA-256 of the sources, outputs left out, together with what else the stamp says."""
    cells = [[cell["cell_type"], source_of(cell)] for cell in notebook["cells"]]
    return hashlib.sha256(json.dumps([name, time, release, cells]).encode()).hexdigest()


def source_of(cell: Mapping[str, Any]) -> str:
    """A cell's source, which a file holds as one text or as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


# --------------------------------------------------------------------------- the notebook and its lab


def find_notebook(lab: str, work: Path, labs: Path) -> Path:
    """The student's notebook that `lab` means: "01", a lab's file name, or a path. Raises SubmitError."""
    path = Path(lab).expanduser()
    if path.is_dir():
        raise SubmitError(f"{lab} is a folder; give the notebook in it.")
    if path.exists() and path.resolve().parent != labs.resolve():
        return path
    stem = path.name.removesuffix(".ipynb")
    names = [known.name for known in sorted(labs.glob("*.ipynb")) if _means(stem, known.stem)]
    if not names or (path.parent != Path() and not path.exists()):
        known = ", ".join(known.stem for known in sorted(labs.glob("*.ipynb"))) or "none here"
        raise SubmitError(f"There is no notebook {lab}; give a path, or one of the labs: {known}.")
    if not (work / names[0]).exists():
        raise SubmitError(
            f"{work.name}/{names[0]} is not there; if yours has another name or place, give its path."
        )
    return work / names[0]


def _means(wanted: str, stem: str) -> bool:
    number = stem.partition("_")[0]
    return wanted == stem or (wanted.isdecimal() and number.isdecimal() and int(wanted) == int(number))


def read(path: Path) -> dict[str, Any]:
    """The notebook as JSON has it. Raises SubmitError when it cannot be read or is no notebook."""
    again = "open it in JupyterLab and save it, or copy your answers into a fresh copy of the lab"
    try:
        if path.stat().st_size > READ_LIMIT:
            advice = "clear its outputs in JupyterLab (Edit, Clear Outputs of All Cells) and save it"
            raise SubmitError(f"{path.name} is larger than {READ_LIMIT // MEGABYTE} MB; {advice}.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SubmitError(
            f"{path} cannot be read ({error.strerror}); is it open elsewhere, or not yours?"
        ) from error
    except UnicodeDecodeError as error:
        raise SubmitError(f"{path.name} is not UTF-8 text, as notebooks are; {again}.") from error
    if not text.strip():
        raise SubmitError(
            f"{path.name} is empty; look for an older state in .ipynb_checkpoints beside it, or start afresh."
        )
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "too deep"
        raise SubmitError(f"{path.name} is damaged ({where} is not JSON); {again}.") from error
    if isinstance(notebook, dict) and notebook.get("nbformat") != 4:
        raise SubmitError(f"{path.name} is not in notebook format 4; {again}.")
    if not _well_formed(notebook):
        raise SubmitError(f"{path.name} is JSON but not a notebook; {again}.")
    return notebook


def _well_formed(notebook: Any) -> bool:
    def is_cell(cell: Any) -> bool:
        if not isinstance(cell, dict) or not isinstance(cell.get("metadata", {}), dict):
            return False
        source = cell.get("source")
        lines = source if isinstance(source, list) else [source]
        return isinstance(cell.get("cell_type"), str) and all(isinstance(line, str) for line in lines)

    return (
        isinstance(notebook, dict)
        and isinstance(notebook.get("metadata"), dict)
        and isinstance(notebook["metadata"].get("course", {}), dict)
        and isinstance(notebook.get("cells"), list)
        and all(map(is_cell, notebook["cells"]))
    )


def lab_of(notebook: Mapping[str, Any], path: Path, labs: Path) -> Path:
    """The lab as released that this notebook was made from. Raises SubmitError when it is none of ours."""
    known = sorted(labs.glob("*.ipynb"))
    number = str(notebook["metadata"].get("course", {}).get("lab", ""))
    found = [lab for lab in known if number and _means(number, lab.stem)]
    found = found or [lab for lab in known if not number and path.name.startswith(lab.stem)]
    if not found:
        names = ", ".join(lab.stem for lab in known) or "none here"
        raise SubmitError(f"{path.name} belongs to no lab of this course ({names}); give the right notebook.")
    return found[0]


# --------------------------------------------------------------------------- what is in it


@dataclass(frozen=True)
class Contents:
    """How a student's notebook compares with the lab as released. Sentences, and names of cells."""

    exercises: tuple[str, ...]  # keys, all that the lab has
    answers: tuple[str, ...]  # grade_ids of the answers that a person grades
    broken: tuple[str, ...]  # what is missing or doubled and would cost points
    unattempted: tuple[str, ...]  # of both


def contents(notebook: Mapping[str, Any], lab: Mapping[str, Any], name: str) -> Contents:
    """Look for every exercise and every answer of the released `lab`, whose file is called `name`."""
    fresh = f"copy it from labs/{name}, with both of its cells' settings, or take a fresh copy of the lab"
    exercises, answers, broken, unattempted = [], [], [], []
    cells = list(enumerate(notebook["cells"], 1))
    for original in lab["cells"]:
        grade_id = _grade_id(original)
        key = key_of(original)
        if key:
            exercises.append(key)
            what, kind = f"exercise {key}", "code"
            found = [(number, cell) for number, cell in cells if key_of(cell) == key]
            by_id = [(number, cell) for number, cell in cells if grade_id and _grade_id(cell) == grade_id]
            if not found and by_id:
                number, cell = by_id[0]
                if cell["cell_type"] == "code":
                    broken.append(
                        f'Exercise {key}: cell {number} does not begin with @exercise("{key}") any more; '
                        "write that line back above def."
                    )
                else:
                    broken.append(_retyped(what, number, "code", "Y"))
                continue
        elif original["metadata"].get("nbgrader", {}).get("solution"):
            answers.append(grade_id)
            what, kind = f"answer {grade_id}", original["cell_type"]
            found = [(number, cell) for number, cell in cells if _grade_id(cell) == grade_id]
        else:
            continue
        capital = what[0].upper() + what[1:]
        if not found:
            broken.append(f"{capital} is missing; {fresh}.")
            continue
        if len(found) > 1:
            numbers = " and ".join(str(number) for number, _ in found)
            broken.append(f"{capital} is there {len(found)} times, in cells {numbers}; keep one of them.")
        for number, cell in found:
            if cell["cell_type"] != kind:
                broken.append(_retyped(what, number, kind, "Y" if kind == "code" else "M"))
        if all(_is_blank(cell, original) for _, cell in found):
            unattempted.append(key or grade_id)
    return Contents(tuple(exercises), tuple(answers), tuple(broken), tuple(unattempted))


def _retyped(what: str, number: int, kind: str, letter: str) -> str:
    name = {"code": "a code cell", "markdown": "a Markdown cell"}.get(kind, f"a {kind} cell")
    return (
        f"{what[0].upper()}{what[1:]}: cell {number} is not {name} any more; "
        f"select it, press Esc and then {letter}."
    )


def key_of(cell: Mapping[str, Any]) -> str:
    """The exercise that a cell holds, "" if none."""
    if cell["cell_type"] != "code":
        return ""
    found = re.search(r"""^@exercise\(\s*["']([^"']+)["']\s*\)""", source_of(cell), re.MULTILINE)
    return found[1] if found else ""


def _grade_id(cell: Mapping[str, Any]) -> str:
    grading = cell.get("metadata", {}).get("nbgrader")
    return str(grading.get("grade_id", "")) if isinstance(grading, dict) else ""


def _is_blank(cell: Mapping[str, Any], original: Mapping[str, Any]) -> bool:
    """Whether nothing was written; white space and comments are nothing."""

    def words(cell: Mapping[str, Any]) -> list[str]:
        lines = source_of(cell).splitlines()
        if original["cell_type"] == "code":
            lines = [line for line in lines if not line.lstrip().startswith("#")]
        return " ".join(lines).split()

    return words(cell) in ([], NO_ANSWER.split(), words(original))


# --------------------------------------------------------------------------- does it run?

# As for students: small embedded data, no window.
KERNEL_SETTINGS = {"LABS_DATA_SOURCE": "embedded", "LABS_HEADLESS": "1", "TQDM_DISABLE": "1"}
STATUS_LINE = re.compile(r"Exercise (?P<key>[\d.]+), .*: (?P<status>[a-z ]+?)(?: \(reference shown\))?$")


@dataclass(frozen=True)
class Run:
    """What came of a run from top to bottom."""

    seconds: float
    error: str  # a sentence, "" when every cell ran
    statuses: dict[str, str]  # exercise -> what its card said: "right", "not right yet", ...


def run(notebook: Mapping[str, Any], folder: Path, minutes: float) -> Run:
    """Run a copy of the notebook in a fresh kernel in `folder`, for at most `minutes` altogether."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from helpers.course.refresh import kernel_environment

    copy = nbformat.reads(json.dumps(notebook), as_version=4)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    started = 0
    start = time.monotonic()

    def count(cell: Any, cell_index: int) -> None:
        nonlocal started
        started = cell_index + 1

    client = NotebookClient(
        copy,
        timeout_func=lambda cell: max(1.0, start + 60 * minutes - time.monotonic()),
        kernel_name="python3",
        startup_timeout=120,
        on_cell_start=count,
        resources={"metadata": {"path": str(folder)}},
    )
    error = ""
    try:
        environment = kernel_environment(environment={**os.environ, **KERNEL_SETTINGS})
        client.execute(env=environment, stderr=subprocess.DEVNULL)
    except CellExecutionError as problem:
        reason = f"{problem.ename}: {problem.evalue}".partition("\n")[0][:200]
        error = f"Cell {started} ({_beginning(copy.cells[started - 1])}) raised {reason}"
    except CellTimeoutError:
        error = f"After {minutes:g} minutes cell {started} ({_beginning(copy.cells[started - 1])}) still ran"
    except DeadKernelError:
        error = f"Cell {started} ({_beginning(copy.cells[started - 1])}) ended the kernel"
    except Exception as problem:  # no kernel at all: what is written down can be handed in all the same
        reason = f"{type(problem).__name__}: {problem}".partition("\n")[0][:200]
        error = f"The kernel could not run it ({reason}); `python -m helpers.course doctor` may say why"
    return Run(time.monotonic() - start, error, _statuses(copy.cells))


def _beginning(cell: Mapping[str, Any]) -> str:
    """What a student finds a cell again by; JupyterLab does not number cells."""
    lines = [line.strip() for line in source_of(cell).splitlines() if line.strip()]
    first = lines[0] if lines else "empty"
    return first if len(first) <= 60 else first[:57] + "..."


def _statuses(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    statuses = {}
    for cell in cells:
        for output in cell.get("outputs", []) if key_of(cell) else []:
            first = str(output.get("data", {}).get("text/plain", "")).partition("\n")[0]
            if found := STATUS_LINE.match(first):
                statuses[found["key"]] = found["status"]
    return statuses


# --------------------------------------------------------------------------- the file to hand in


def without_outputs(notebook: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without what its cells have shown."""
    cells = [
        {**cell, "outputs": [], "execution_count": None} if cell["cell_type"] == "code" else cell
        for cell in notebook["cells"]
    ]
    metadata = {key: value for key, value in notebook["metadata"].items() if key != "widgets"}
    return {**notebook, "metadata": metadata, "cells": cells}


def content_of(notebook: Mapping[str, Any]) -> bytes:
    """The notebook as it stands in a file, in Jupyter's own layout."""
    text = json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate is no reason to lose the rest


def file_name(stem: str, name: str, when: datetime) -> str:
    """A name that sorts, that every learning platform takes, and that a grader can read the student from."""
    return f"{stem}-{slug(name)}-{when.astimezone():%Y%m%dT%H%M}.ipynb"


def slug(name: str) -> str:
    """A name as part of a file name: "Ada Lovelace" -> "ada_lovelace"; "" if nothing of it is left.

    Letters of every script stay. Graders call the student by this.
    """
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    name = "".join(c if c.isalnum() or c in "@.-" or unicodedata.combining(c) else "_" for c in name)
    return re.sub(r"_{2,}", "_", name)[:80].strip("_.-@")


def write_new(path: Path, content: bytes) -> Path:
    """Write a file that was not there; where one is, "-2", "-3", ... goes into the name. Returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    number, target = 1, path
    while True:
        try:
            file = target.open("xb")
            break
        except FileExistsError:
            number += 1
            target = path.with_name(f"{path.stem}-{number}{path.suffix}")
    try:
        with file:
            file.write(content)
    except BaseException:
        target.unlink(missing_ok=True)  # half a file must not be handed in
        raise
    return target


# --------------------------------------------------------------------------- the command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lab", metavar="LAB", help="the lab's number (01), its file name, or a path")
    parser.add_argument("--name", help="your name, as your instructor knows you")
    parser.add_argument("--out", type=Path, help=f"file or folder to write (default: {FOLDER}/ beside it)")
    parser.add_argument("--no-run", action="store_true", help="do not run the notebook")
    parser.add_argument("--anyway", action="store_true", help="hand in although cells are missing or doubled")
    parser.add_argument(
        "--minutes", type=float, default=RUN_MINUTES, help=f"how long it may run (default: {RUN_MINUTES:g})"
    )


def main(args: argparse.Namespace) -> int:
    """0 when a file was made, 1 (with the reason) otherwise."""
    try:
        submit(args)
    except SubmitError as error:
        print(error)
        return 1
    except OSError as error:
        print(f"The file could not be written ({error}); name another place with --out.")
        return 1
    except KeyboardInterrupt:
        print("Stopped; nothing was made.")
        return 1
    return 0


def submit(args: argparse.Namespace, root: Path = ROOT) -> Path:
    """Check, print what was found, and return the file that was made. Raises SubmitError or OSError."""
    labs = root / "labs"
    path = find_notebook(args.lab, root / "work", labs)
    notebook = read(path)
    lab_path = lab_of(notebook, path, labs)
    lab = json.loads(lab_path.read_text(encoding="utf-8"))
    if args.out and args.out.exists() and not args.out.is_dir():
        raise SubmitError(f"{args.out} is there already; give another name, nothing is overwritten.")
    if not slug(name := _name(args.name)):
        raise SubmitError(f"{name!r} has no letter in it; give your name: --name 'Ada Lovelace'.")
    print(f"{path.name}: {_release_sentence(notebook, lab, lab_path.stem)}")

    found = contents(notebook, lab, lab_path.name)
    for sentence in found.broken:
        print(f"  ! {sentence}")
    if found.broken and not args.anyway:
        raise SubmitError("Nothing was made. Mend this, or add --anyway to hand it in as it is.")
    if not found.broken:
        print(f"All is there: {_listed(found.exercises, found.answers)}.")
    if found.unattempted:
        blank = [[n for n in names if n in found.unattempted] for names in (found.exercises, found.answers)]
        print(f"Not attempted: {_listed(*blank)}.")
    if not args.no_run:
        print(f"Running it from top to bottom, {args.minutes:g} minutes at most ...", flush=True)
        for sentence in _run_sentences(run(notebook, path.resolve().parent, args.minutes)):
            print(sentence)

    now = datetime.now(UTC)
    copy = stamped(notebook, name, now)
    content, outputs = content_of(copy), "with its outputs"
    if len(content) > SIZE_LIMIT:
        content = content_of(without_outputs(copy))
        outputs = f"without outputs, because with them it has {len(content_of(copy)) / MEGABYTE:.0f} MB"
    if len(content) > GRADERS_LIMIT:
        raise SubmitError(
            f"Even without outputs it has {len(content) / MEGABYTE:.0f} MB, and graders take "
            f"{GRADERS_LIMIT // MEGABYTE}: take pictures that you pasted into it out again."
        )
    usual = file_name(lab_path.stem, name, now)
    if args.out is None:
        target = path.parent / FOLDER / usual
    else:
        target = args.out / usual if args.out.is_dir() else args.out
    target = write_new(target, content)
    print(f"\nMade {_shown(target)} ({_size(len(content))}, {outputs})")
    print(f"for {name}, lab {lab_path.stem}, {now:%Y-%m-%d %H:%M} UTC.")
    print("Upload this one file. Your own notebook is as it was; to hand in again, make another file.")
    return target


def _name(given: str | None) -> str:
    if given is None:
        if not sys.stdin.isatty():
            raise SubmitError("Say who you are: add --name 'Ada Lovelace'.")
        try:
            given = input("Your name, as your instructor knows you: ")
        except EOFError:
            given = ""
    name = unicodedata.normalize("NFC", given)
    name = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    if len(name) > 80:
        raise SubmitError("Your name has more than 80 letters; give a shorter form of it with --name.")
    return name


def _release_sentence(notebook: Mapping[str, Any], lab: Mapping[str, Any], stem: str) -> str:
    ours = notebook["metadata"].get("course", {}).get("release", "")
    current = lab["metadata"].get("course", {}).get("release", "")
    if ours and ours == current:
        return f"lab {stem}, release {ours}, the current one."
    if ours:
        return f"lab {stem}, release {ours}; the course is at {current} now. Yours is taken all the same."
    return f"lab {stem}, without a release id, so from an older course. It is taken all the same."


def _run_sentences(result: Run) -> Iterable[str]:
    if result.error:
        yield f"  ! {result.error}. It is made all the same: mend it if you can, and hand in again."
    else:
        yield f"It ran without an error, in {result.seconds:.0f} s."
    keys: dict[str, list[str]] = {}
    for key, status in result.statuses.items():
        keys.setdefault(status, []).append(key)
    for status in sorted(keys, key=lambda status: (status != "right", status)):
        yield f"  {status}: {', '.join(keys[status])}"


def _listed(exercises: Iterable[str], answers: Iterable[str]) -> str:
    found = {"exercises": ", ".join(exercises), "answers": ", ".join(answers)}
    return "; ".join(f"{what} {names}" for what, names in found.items() if names) or "nothing"


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _size(count: int) -> str:
    return f"{count / MEGABYTE:.1f} MB" if count >= MEGABYTE else f"{max(1, round(count / 1000))} kB"
