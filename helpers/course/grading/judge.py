"""From one submitted notebook to a report. A pure task: bytes in, Report out, nothing else changes.

The judge trusts nothing of a submission. It draws fresh inputs for each student, lets the sandbox apply the
student's own function to them, and compares the values that come back with the reference's itself. What the
notebook says of points, checks and results does not count.
"""

import ast
import base64
import functools
import hashlib
import importlib
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import numpy as np
from nbformat import NotebookNode

from helpers.course import notebooks
from helpers.course.grading import reduced
from helpers.course.grading.box import START, Box, BoxEnded, Limits, write_course
from helpers.course.grading.report import Answer, FreeText, Report
from helpers.exercises import Exercise, _check, judge

LARGEST = 20_000_000  # bytes of a notebook
LONGEST = 100_000  # characters that are kept of one cell
DRAWS = 3  # sets of inputs, so that luck is not enough
CELL_LIMIT = 20.0  # seconds for running a cell, which should only define a function
LIMITS = Limits()
ANSWER_LIMIT = 20.0  # seconds for applying the function to all inputs, where an exercise does not want less
WHOLE_LIMIT = 600.0  # seconds for a notebook; no sandbox is started after that
GRACE = 15.0  # more seconds until a process that has not answered is killed
# What a cell imports that may do something to the process beside defining a function.
POWERFUL = {"builtins", "ctypes", "gc", "importlib", "inspect", "os", "signal", "socket", "subprocess", "sys"}
POWERFUL |= {"multiprocessing", "threading"}
EXERCISE = re.compile(r"^[ \t]*@exercise\(\s*[\"'](\d+\.\d+)[\"']", re.MULTILINE)


class GraderError(Exception):
    """Grading itself failed, through no fault of the submission: what happened and what to do."""


# Labs ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lab:
    """What the judge knows of a lab."""

    name: str  # "01_numpy_saliency"
    notebook: NotebookNode  # as released
    exercises: tuple[Exercise, ...]  # in the notebook's order

    @property
    def setup(self) -> str:
        return next(cell.source for cell in self.notebook.cells if "setup" in cell.metadata.get("tags", ()))


@functools.cache
def lab_of(name: str) -> Lab:
    """A lab by the stem of its notebook's name. Raises GraderError if there is none."""
    path = notebooks.LABS / f"{name}.ipynb"
    if not path.is_file():
        raise GraderError(f'There is no lab "{name}" in {notebooks.LABS.name}/.')
    notebook = notebooks.read(path)
    if not any("setup" in cell.metadata.get("tags", ()) for cell in notebook.cells):
        raise GraderError(f'{path.name} has no cell with the tag "setup"; tag its first code cell.')
    module = importlib.import_module(f"helpers.exercises.lab{notebook.metadata.course.lab}")
    by_key = {ex.key: ex for ex in module.EXERCISES}
    order = [key for cell in notebook.cells for key in keys_in(cell)]
    return Lab(name, notebook, tuple(by_key[key] for key in order))


def keys_in(cell: NotebookNode) -> list[str]:
    """Keys of the exercises that a cell answers, in the order of its lines."""
    return EXERCISE.findall(cell.source) if cell.cell_type == "code" else []


# Reading a submission --------------------------------------------------------------------------------------


class Unreadable(Exception):
    """Why a file is no notebook, as a sentence for the student."""


def parse(content: bytes) -> NotebookNode:
    """The notebook in a file, of whatever format. Raises Unreadable."""
    if not content.strip():
        raise Unreadable("The file is empty.")
    if len(content) > LARGEST:
        raise Unreadable(
            f"The file has {len(content) / 1e6:.0f} MB; a notebook has {LARGEST / 1e6:.0f} at most."
        )
    marks = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
    try:
        text = content.decode(marks.get(content[:2], "utf-8-sig"))
    except UnicodeDecodeError:
        raise Unreadable("The file is not text in UTF-8: was it saved by another program?") from None
    try:
        notebook = json.loads(text)
        if notebook["nbformat"] < 4:
            notebook = nbformat.convert(nbformat.from_dict(notebook), 4)
        metadata = notebook.get("metadata")
        cells = [_plain(cell) for cell in notebook["cells"]]
    except Exception as error:  # almost anything, depending on what is wrong
        raise Unreadable(f"The file is no Jupyter notebook ({type(error).__name__}).") from None
    # Outputs are left behind: nothing that a notebook says of its own results counts.
    return nbformat.from_dict({"metadata": metadata if isinstance(metadata, dict) else {}, "cells": cells})


def _plain(cell: dict) -> dict:
    """A cell with the fields that the judge reads, each of the right type."""
    source = cell.get("source", "")
    source = "".join(map(str, source)) if isinstance(source, list) else str(source)
    metadata = cell.get("metadata", {})
    grading = metadata.get("nbgrader", {}) if isinstance(metadata, dict) else {}
    grading = grading if isinstance(grading, dict) else {}
    kind = cell.get("cell_type")
    kind = kind if kind in ("code", "markdown") else "raw"
    return {"cell_type": kind, "source": clean(source, LARGEST), "metadata": {"nbgrader": grading}}


def clean(text: str, longest: int) -> str:
    """Text that can be written: without NUL and half surrogate pairs, and not too long."""
    return text[:longest].replace("\x00", "").encode("utf-8", "replace").decode()


def _grade_id(cell: NotebookNode) -> str:
    return str(cell.metadata.get("nbgrader", {}).get("grade_id") or "")


def tampering(lab: Lab, submitted: list[NotebookNode], release: str) -> tuple[str, ...]:
    """What should have stayed as it was released: one sentence each, none of them costs points."""
    if release not in ("", lab.notebook.metadata.course.get("release", "")):
        return (f"It was made from another release of the lab ({release}), so edits cannot be told.",)
    found = []
    counts = Counter(filter(None, map(_grade_id, submitted)))
    by_id = {_grade_id(cell): cell for cell in reversed(submitted)}
    fields = ("grade", "solution", "locked", "points", "task")
    for cell in lab.notebook.cells:
        name = _grade_id(cell)
        if not name:
            continue
        if name not in counts:
            found.append(f"The cell {name} is missing.")
            continue
        if counts[name] > 1:
            found.append(f"The cell {name} is there {counts[name]} times.")
        now = by_id[name]
        if now.cell_type != cell.cell_type:
            found.append(f"The cell {name} is of type {now.cell_type}, not {cell.cell_type}.")
        if cell.metadata.nbgrader.locked and now.source.strip() != cell.source.strip():
            found.append(f"The locked cell {name} is edited.")
        edited = [f for f in fields if now.metadata.nbgrader.get(f) != cell.metadata.nbgrader.get(f)]
        if edited:
            found.append(f"The grading data of cell {name} is edited: {', '.join(edited)}.")
    keys = Counter(key for cell in submitted for key in keys_in(cell))
    found += [f"Exercise {key} is answered in {count} places." for key, count in keys.items() if count > 1]
    order = [name for name in map(_grade_id, submitted) if counts[name] == 1]
    released = [name for name in map(_grade_id, lab.notebook.cells) if name and counts[name] == 1]
    if [name for name in order if name in released] != released:
        found.append("Cells are in another order.")
    return tuple(found)


def free_texts(lab: Lab, submitted: list[NotebookNode]) -> tuple[FreeText, ...]:
    """The answers that a person grades; of a cell that is there more than once, all of them."""
    texts, question = [], ""
    for cell in lab.notebook.cells:
        grading = cell.metadata.get("nbgrader", {})
        if grading.get("grade") and grading.get("solution"):
            sources = [other.source for other in submitted if _grade_id(other) == grading.grade_id]
            sources = [source for source in sources if source.strip() != cell.source.strip()]
            source = "\n\n".join(sources)[:LONGEST]
            attempted = bool(source.strip())
            texts.append(
                FreeText(grading.grade_id, question, grading.points, cell.cell_type, source, attempted)
            )
        elif cell.cell_type == "markdown":
            question = cell.source
    return tuple(texts)


@functools.cache
def _parsed(source: str) -> ast.Module | None:
    """A cell as Python; None if it is none. Magics are left out: IPython would take minutes for many."""
    if len(source) > LONGEST:
        return None
    try:
        return ast.parse(re.sub(r"^([ \t]*)[%!?].*$", r"\1pass", source, flags=re.MULTILINE))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def definitions(source: str) -> list[str]:
    """The imports, functions, classes and plain values of a cell, one by one; [] if it is no Python.

    A student may have written a helper function in a cell of their own. Nothing else of it is run: demos and
    training take time, and may need data.
    """
    tree = _parsed(source)
    if tree is None:
        return []
    segments = (ast.get_source_segment(source, _with_decorators(s)) for s in tree.body if _defines(s))
    return [segment for segment in segments if segment]


def _with_decorators(statement: ast.stmt) -> ast.stmt:
    """The statement as it begins in the text."""
    if decorators := getattr(statement, "decorator_list", []):
        statement.lineno, statement.col_offset = decorators[0].lineno, statement.col_offset
    return statement


def _defines(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return statement.value is not None and not _calls(statement.value)
    if isinstance(statement, ast.Try):
        return all(isinstance(inner, ast.Import | ast.ImportFrom) for inner in statement.body)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def _calls(value: ast.expr) -> bool:
    """Whether evaluating an expression calls anything."""
    if isinstance(value, ast.Lambda):
        return False
    return isinstance(value, ast.Call | ast.Await) or any(
        _calls(inner)
        for inner in ast.iter_child_nodes(value)
        if isinstance(inner, ast.expr | ast.comprehension)
    )


@functools.cache
def meddles(source: str) -> bool:
    """Whether a cell might change how other cells work. It is asked often enough, and answers often yes."""
    tree = _parsed(source)
    if tree is None:
        return True
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            return True
        if isinstance(node, ast.Name) and node.id in {"setattr", "delattr", "exec", "eval", "get_ipython"}:
            return True
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            if any(name.partition(".")[0] in POWERFUL for name in names):
                return True
    return False


# Values that come back -------------------------------------------------------------------------------------


def _decoded(item: object) -> _check.Value:
    """A value as the runner sends it. Raises ValueError, TypeError or KeyError for anything else."""
    if isinstance(item, list):
        return tuple(_decoded(part) for part in item)
    if "data" in item:
        dtype = np.dtype(str(item["format"]))
        if dtype.kind not in "biufc" or dtype.itemsize > 32:
            raise ValueError("not an array of numbers")
        shape = tuple(int(n) for n in item["shape"])
        values = np.frombuffer(base64.b64decode(item["data"]), dtype).reshape(shape)
        return _check.Array(values, str(item["library"])[:20], str(item["dtype"])[:20])
    return _check.Other(str(item["kind"])[:200], str(item["complaint"])[:1000])


def _raised(item: dict | None) -> _check.Raised | None:
    if item is None:
        return None
    texts = (str(item[name])[:2000] for name in ("kind", "message", "line"))
    return _check.Raised(*texts, by_stub=item["by_stub"] is True)


def _outcomes(items: list, count: int) -> list[_check.Outcome]:
    if len(items) != count:
        raise ValueError("not one outcome for each input")
    return [
        _check.Outcome(
            _decoded(item["value"]), _raised(item["error"]), frozenset(str(path) for path in item["changed"])
        )
        for item in items
    ]


# Judging ---------------------------------------------------------------------------------------------------


@dataclass
class _Submission:
    """One submitted notebook while it is judged."""

    lab: Lab
    student: str
    seed: str
    trusted: bool
    cells: dict[str, list[str]]  # key -> sources of its cells
    added: list[str]  # what the student defined elsewhere
    found: dict[str, Answer] = field(default_factory=dict)
    unusable: set[str] = field(default_factory=set)  # keys whose cells end or block the process
    remarks: list[str] = field(default_factory=list)
    starting: float = 0.0  # seconds
    began: float = field(default_factory=time.monotonic)

    def seeds(self, key: str) -> list[int]:
        """What this student's inputs for an exercise are drawn from."""
        words = (json.dumps([self.seed, self.student, key, i]).encode() for i in range(DRAWS))
        return [int.from_bytes(hashlib.sha256(word).digest()[:8]) for word in words]

    def note(self, remark: str) -> None:
        """Add a remark for the instructor, once."""
        if (remark := clean(remark, 1000)) not in self.remarks:
            self.remarks.append(remark)

    def exercise(self, key: str) -> Exercise:
        return next(ex for ex in self.lab.exercises if ex.key == key)

    def answer(self, key: str, verdict: str, *notes: str, score: float = 0.0, **more: str) -> Answer:
        ex = self.exercise(key)
        return Answer(
            key=key,
            grade_id=f"verdict-{key.replace('.', '-')}",
            title=ex.title,
            points=ex.points,
            score=score,
            verdict=verdict,
            notes=tuple(clean(note, 1000) for note in notes[:5]),
            source="\n\n".join(self.cells.get(key, ()))[:LONGEST],
            **more,
        )


def judge_notebook(
    content: bytes, student: str, lab_name: str, file: str, *, seed: str, trusted: bool = False
) -> Report:
    """Grade one submitted notebook.

    content: the file's bytes, whatever they are. seed: the grader's secret, from which the student's inputs
    are drawn. trusted: without the sandbox. Raises NoSandbox, and GraderError if the course itself fails.
    """
    start = time.monotonic()
    lab = lab_of(lab_name)
    digest = hashlib.sha256(content).hexdigest()
    try:
        notebook = parse(content)
    except Unreadable as error:
        blank = _Submission(lab, student, seed, trusted, {}, [])
        answers = tuple(blank.answer(ex.key, "unreadable", str(error)) for ex in lab.exercises)
        return Report(student, lab_name, file, digest, "", answers, free_texts(lab, []), (), (str(error),))
    cells: dict[str, list[str]] = {}
    for cell in notebook.cells:
        answered = keys_in(cell) or _key_by_id(lab, cell)
        # A cell that answers several exercises is run with the first of them.
        for i, key in enumerate(ex.key for ex in lab.exercises if ex.key in answered):
            cells.setdefault(key, []).extend([cell.source] if i == 0 else [])
    submission = _Submission(lab, student, seed, trusted, cells, _added(lab, notebook.cells))
    _judge_all(submission)
    course = notebook.metadata.get("course")
    release = str(course.get("release", ""))[:40] if isinstance(course, dict) else ""
    return Report(
        student=student,
        lab=lab_name,
        file=file,
        sha256=digest,
        release=release,
        answers=tuple(submission.found[ex.key] for ex in lab.exercises),
        free_texts=free_texts(lab, notebook.cells),
        tampering=tampering(lab, notebook.cells, release),
        remarks=tuple(submission.remarks),
        seconds=round(time.monotonic() - start, 2),
        starting=round(submission.starting, 2),
    )


def _key_by_id(lab: Lab, cell: NotebookNode) -> list[str]:
    """The exercise whose cell this was, where the decorator has been deleted."""
    keys = (ex.key for ex in lab.exercises if _grade_id(cell) == f"ex-{ex.key.replace('.', '-')}")
    return list(keys) if cell.cell_type == "code" else []


def _added(lab: Lab, cells: Iterable[NotebookNode]) -> list[str]:
    released = {cell.source.strip() for cell in lab.notebook.cells}
    own = (c for c in cells if c.cell_type == "code" and not keys_in(c) and not _key_by_id(lab, c))
    return [part for cell in own if cell.source.strip() not in released for part in definitions(cell.source)]


def _judge_all(submission: _Submission) -> None:
    """Fill in `submission.found`."""
    exercises = submission.lab.exercises
    groups: dict[tuple[frozenset[str], tuple[str, ...]], list[str]] = {}
    for ex in exercises:
        if ex.key in submission.cells:
            group = reduced.own_course(exercises, ex.key), ex.gives_away
            groups.setdefault(group, []).append(ex.key)
        else:
            note = "There is no code cell that answers this exercise: was it deleted, or made into text?"
            submission.found[ex.key] = submission.answer(ex.key, "unreadable", note)
    for (answers_inside, _), keys in groups.items():
        _judge_keys(submission, keys, answers_inside)
    for key in [ex.key for ex in exercises]:
        if submission.found[key].verdict not in ("right", "not attempted", "unreadable"):
            _judge_alone(submission, key)


def _judge_alone(submission: _Submission, key: str) -> None:
    """Judge an answer that is not right again, if that may be the fault of another one.

    Earlier exercises that are not right are replaced by their references, as in the lab.
    """
    exercises = submission.lab.exercises
    words = set(re.findall(r"\w+", "\n".join([*submission.cells[key], *submission.added])))
    used, wrong = [], set()
    for ex in reversed(exercises[: [ex.key for ex in exercises].index(key)]):
        if ex.reference.__name__ not in words:
            continue
        if submission.found[ex.key].verdict == "right":
            used.append(ex.key)
            words |= set(re.findall(r"\w+", "\n".join(submission.cells[ex.key])))
        else:
            wrong.add(ex.key)
    others = [s for k, sources in submission.cells.items() if k != key for s in sources]
    if not wrong and not submission.unusable - {key} and not any(map(meddles, [*others, *submission.added])):
        return
    first = submission.found[key]
    inside = reduced.with_what_they_need(exercises, reduced.own_course(exercises, key) | wrong) - {key}
    _judge_keys(submission, [key], inside, run=[*used, key])
    if submission.found[key].score > first.score:
        reason = f"with the reference for {', '.join(sorted(wrong))}" if wrong else "on its own"
        submission.note(f"Exercise {key} was judged {reason}.")
    else:
        submission.found[key] = first


def _judge_keys(
    submission: _Submission, keys: list[str], answers_inside: frozenset[str], run: Iterable[str] | None = None
) -> None:
    """Judge exercises in one sandbox, or in several where a cell ends it.

    run: the keys whose cells are run; by default those of all exercises up to the last of `keys`.
    """
    lab = submission.lab
    files = reduced.reduced_course(lab.exercises, keys, lab.setup, answers_inside)
    last = max(i for i, ex in enumerate(lab.exercises) if ex.key in keys)
    run = [ex.key for ex in lab.exercises[: last + 1] if run is None or ex.key in run]
    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        write_course(course, files)
        pending = list(keys)
        while pending:
            usable = [k for k in run if k in submission.cells]
            usable = [k for k in usable if k in pending or k not in submission.unusable]
            results = _run_box(submission, course, usable, pending)
            submission.found |= results
            pending = [key for key in pending if key not in results]


def _run_box(submission: _Submission, course: Path, run: list[str], keys: list[str]) -> dict[str, Answer]:
    """Run cells in one sandbox and judge the exercises `keys` until the end, or until a cell ends it.

    The key whose cell did so becomes unusable, and if it is one of `keys`, gets its answer.
    """
    if time.monotonic() > submission.began + WHOLE_LIMIT:
        note = "Not judged any more: the notebook as a whole took too long."
        return {key: submission.answer(key, "timeout", note) for key in keys}
    job = {
        "setup": submission.lab.setup,
        "order": ["", *run],
        "cells": {"": submission.added, **{key: submission.cells[key] for key in run}},
        "limit": CELL_LIMIT,
        "names": {key: submission.exercise(key).reference.__name__ for key in keys},
        "judge": {
            ex.key: {
                "arguments": ex.names,
                "seeds": submission.seeds(ex.key),
                "limit": min(ex.limit, ANSWER_LIMIT),
            }
            for ex in map(submission.exercise, keys)
        },
    }
    results: dict[str, Answer] = {}
    key = ""
    with Box(course, job, limits=LIMITS, trusted=submission.trusted) as box:
        start = time.monotonic()
        _wait_until_ready(box)
        submission.starting += time.monotonic() - start
        try:
            for key in job["order"]:
                message = _done(box, key)
                if not key and message.get("failed"):
                    submission.note("Of what the student added in other cells, something does not run.")
                if key in keys:
                    results[key] = _judged(submission, key, message)
        except BoxEnded as ended:
            if not key and not submission.added:
                raise GraderError(f"The sandbox ends before anything ran. {ended}") from None
            if not key:
                submission.added = []
                submission.note(f"Cells that the student added were left out. {ended}")
                return results
            submission.unusable.add(key)
            last_line = box.last_output.strip().rpartition("\n")[2][:300]
            submission.note(f"The cell of {key} ended the process: {ended.verdict}. {last_line}".strip())
            if key in keys:
                results[key] = submission.answer(key, ended.verdict, str(ended))
    return results


def _wait_until_ready(box: Box) -> None:
    """Raises GraderError when the course does not start: nothing of the submission has run yet."""
    try:
        message = box.message(START)
    except BoxEnded as ended:
        raise GraderError(f"The course does not start in the sandbox. {ended} {box.last_output}") from None
    if "ready" not in message:
        raise GraderError(f"The lab's first cell fails in the sandbox: {message.get('broken')}.")


def _done(box: Box, key: str) -> dict:
    """What the runner says of one key. Lines about something else are skipped: they may be forged."""
    deadline = time.monotonic() + CELL_LIMIT + ANSWER_LIMIT + GRACE
    while True:
        message = box.message(max(0.0, deadline - time.monotonic()))
        if message.get("done") == key:
            return message


def _judged(submission: _Submission, key: str, message: dict) -> Answer:
    """The answer to one exercise, from what the runner says."""
    ex = submission.exercise(key)
    if message.get("timeout"):
        return submission.answer(key, "timeout", "Stopped: it had not finished after its time limit.")
    with _check.undisturbed():
        cases = ex.draw(np.random.default_rng(seed) for seed in submission.seeds(key))
    try:
        stopped = _stopped_by(_raised(message.get("cell_error")))
        if "outcomes" not in message:
            missing = f"The cell defines no function `{ex.reference.__name__}`."
            return submission.answer(key, "error", stopped or missing)
        outcomes = _outcomes(message["outcomes"], len(cases))
        warnings = tuple(str(warning)[:500] for warning in message["numeric_warnings"][:1])
        session = _check.Session(float(message["seconds"]), warnings, message["uninitialised"] is True)
        above_stub = message["above_stub"] is True
    except Exception:  # whatever may be wrong with what a submission has forged
        return submission.answer(key, "error", "What came back is no result of this exercise.")
    with _check.undisturbed():
        found = judge(ex, cases, outcomes, session, above_stub)
    notes = (*found.notes, f"A line of the cell did not run. {stopped}") if stopped else found.notes
    if found.correct:
        return submission.answer(key, "right", *notes, score=ex.points)
    if found.mistake:
        return submission.answer(key, "known mistake", *notes, mistake=found.mistake)
    if found.partly:
        score = ex.points / 2
        return submission.answer(key, "not right", *notes, score=score, partial=found.partly)
    if found.status == "not attempted" and stopped:
        return submission.answer(key, "error", stopped)
    verdict = {"not right yet": "not right"}.get(found.status, found.status)
    return submission.answer(key, verdict, *notes)


def _stopped_by(error: _check.Raised | None) -> str:
    if error is None:
        return ""
    name = error.kind.rpartition(".")[2]
    place = f" ({error.line})" if error.line else ""
    return f"{name}: {error.message[:300]}{place}."
