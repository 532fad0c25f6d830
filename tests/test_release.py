"""`release`: what students get, the rules of an exercise, and that nothing else is touched."""

import os
import re
import subprocess
import sys
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from helpers.course import __main__ as command_line
from helpers.course import notebooks, release
from helpers.course.notebooks import CourseError

SOLUTION_TEXT = ("return 2 * x", "moved = x + by", "Because.", "One point for a reason.")


@pytest.fixture
def trees(tmp_path, sample) -> tuple[Path, Path]:
    """solutions/ with the sample in it, and an empty labs/."""
    solutions, labs = tmp_path / "solutions", tmp_path / "labs"
    solutions.mkdir()
    labs.mkdir()
    nbformat.write(sample, solutions / "00_sample.ipynb")
    return solutions, labs


def test_students_get_stubs_without_solutions_and_outputs(trees, sample, registry):
    solutions, labs = trees
    sample.cells[1].update(outputs=[nbformat.v4.new_output("stream", text="printed")], execution_count=1)
    nbformat.write(sample, solutions / "00_sample.ipynb")
    (path,) = release.release(solutions, labs, registry)
    lab = notebooks.read(path)
    text = path.read_text(encoding="utf-8")
    assert not [solution for solution in SOLUTION_TEXT if solution in text]
    assert lab.cells[2].source.endswith("    # YOUR CODE HERE\n    raise NotImplementedError()")
    assert [c.outputs or c.execution_count for c in lab.cells if c.cell_type == "code"] == [None] * 6
    assert lab.cells[3].metadata.editable is False
    assert lab.metadata.course == {"lab": "00", "release": notebooks.release_id(lab)}


def test_released_notebook_is_what_nbgrader_writes(trees, tmp_path, registry):
    solutions, labs = trees
    (ours,) = release.release(solutions, labs, registry)
    source = tmp_path / "course" / "source" / "lab" / "00_sample.ipynb"
    source.parent.mkdir(parents=True)
    source.write_bytes((solutions / "00_sample.ipynb").read_bytes())
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", "lab"]
    done = subprocess.run(
        command, cwd=tmp_path / "course", env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    theirs = tmp_path / "course" / "release" / "lab" / "00_sample.ipynb"
    lab = notebooks.read(ours)
    del lab.metadata["course"]["release"]
    assert notebooks.text_of(lab).encode() == theirs.read_bytes()


def test_traces_of_a_run_are_taken_out(trees, sample, registry):
    solutions, labs = trees
    expected = release.released(solutions / "00_sample.ipynb", registry)
    sample.metadata["language_info"]["version"] = "3.11.7"
    sample.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    for cell in sample.cells:
        cell.metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
        cell.metadata["scrolled"] = True
    nbformat.write(sample, solutions / "00_sample.ipynb")
    assert release.released(solutions / "00_sample.ipynb", registry) == expected


def test_the_release_id_names_the_content(trees, sample, registry):
    solutions, labs = trees
    (path,) = release.release(solutions, labs, registry)
    first = notebooks.read(path)
    name = first.metadata.course.release
    assert re.fullmatch("[0-9a-f]{10}", name)
    assert notebooks.release_id(first) == name  # the id does not depend on itself
    sample.metadata["course"]["release"] = "0123456789"  # one that was copied into a solution
    nbformat.write(sample, solutions / "00_sample.ipynb")
    release.release(solutions, labs, registry)
    assert notebooks.read(path).metadata.course.release == name
    assert release.differences(solutions, labs, registry) == []


def test_another_release_has_another_id(trees, sample, registry):
    solutions, labs = trees
    names = set()
    edits = [
        lambda: None,
        lambda: sample.cells[0].update(source=sample.cells[0].source + " More."),
        lambda: sample.cells[3].metadata["nbgrader"].update(grade_id="other"),
        lambda: sample.cells[6].metadata.update(tags=["setup"]),
        lambda: sample.metadata["course"].update(minutes_cpu=2.0),
    ]
    for edited in edits:
        edited()
        nbformat.write(sample, solutions / "00_sample.ipynb")
        (path,) = release.release(solutions, labs, registry)
        names.add(notebooks.read(path).metadata.course.release)
    assert len(names) == len(edits)


def test_check_wants_the_release_id(trees, registry):
    solutions, labs = trees
    (path,) = release.release(solutions, labs, registry)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(notebooks.read(path).metadata.course.release, "0" * 10), encoding="utf-8")
    (found,) = release.differences(solutions, labs, registry)
    assert found.startswith("labs/00_sample.ipynb is out of step") and "0000000000" in found


def test_other_files_in_labs_stay(trees, registry):
    solutions, labs = trees
    strays = {
        labs / "00_sample-my-try.ipynb": b"{}",
        labs / "notes.txt": b"mine",
        labs / "deep" / "a.ipynb": b"{}",
    }
    for path, content in strays.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    release.release(solutions, labs, registry)
    assert {path: path.read_bytes() for path in strays} == strays
    assert {path for path in labs.rglob("*") if path.is_file()} == {*strays, labs / "00_sample.ipynb"}


def test_a_second_release_leaves_the_file_untouched(trees, registry):
    solutions, labs = trees
    (path,) = release.release(solutions, labs, registry)
    os.utime(path, (1, 1))
    release.release(solutions, labs, registry)
    assert path.stat().st_mtime == 1


def test_a_failed_write_leaves_the_old_file(trees, registry, monkeypatch):
    solutions, labs = trees
    (labs / "00_sample.ipynb").write_bytes(b"old")

    def full_disk(self, content):
        with self.open("wb") as file:
            file.write(content[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="no space"):
        release.release(solutions, labs, registry)
    assert [(path.name, path.read_bytes()) for path in labs.iterdir()] == [("00_sample.ipynb", b"old")]


def test_check_names_what_differs_and_writes_nothing(trees, registry):
    solutions, labs = trees
    assert release.differences(solutions, labs, registry) == [
        "labs/00_sample.ipynb is missing; run `make release`."
    ]
    assert list(labs.iterdir()) == []
    (path,) = release.release(solutions, labs, registry)
    assert release.differences(solutions, labs, registry) == []
    edited = path.read_text(encoding="utf-8").replace("Goals follow", "Goals came")
    path.write_text(edited, encoding="utf-8")
    (labs / "99_gone.ipynb").write_text("{}", encoding="utf-8")
    changed, gone = release.differences(solutions, labs, registry)
    assert changed.startswith("labs/00_sample.ipynb is out of step")
    assert "Goals came" in changed and "Goals follow" in changed
    assert gone == "labs/99_gone.ipynb has no source in solutions/; delete it or move it to work/."
    assert path.read_text(encoding="utf-8") == edited


def test_command_line(trees, registry, monkeypatch, capsys):
    solutions, labs = trees
    monkeypatch.setattr(notebooks, "SOLUTIONS", solutions)
    monkeypatch.setattr(notebooks, "LABS", labs)
    monkeypatch.setattr("helpers.exercises.registry", registry)
    assert command_line.main(["release", "--check"]) == 1
    assert "is missing" in capsys.readouterr().out
    assert release.main(Namespace(check=False)) == 0
    assert command_line.main(["release", "--check"]) == 0
    registry["0.1"].mistakes = ()
    assert command_line.main(["release"]) == 1
    assert "lists 0 known mistakes" in capsys.readouterr().err


def test_help_imports_no_command(capsys):
    before = set(sys.modules)
    with pytest.raises(SystemExit, match="0"):
        command_line.main(["--help"])
    assert "refresh" in capsys.readouterr().out
    assert not [name for name in set(sys.modules) - before if name.startswith("helpers.")]


def test_solution_is_filled_from_the_reference(sample, registry):
    wanted = [cell.source for cell in sample.cells]
    sample.cells[2].source = wanted[2].replace("2 * x", "x + x")
    sample.cells[4].source = wanted[4].replace("    moved = x + by\n\n    return moved\n", "")
    assert [cell.source for cell in sample.cells] != wanted
    notebooks.fill_solutions(sample, registry)
    assert [cell.source for cell in sample.cells] == wanted


@contextmanager
def doubled(x):
    """Twice x, in a block."""
    y = 2 * x
    yield y


def test_an_exercise_may_be_a_context_manager(trees, sample, registry):
    solutions, labs = trees
    edit(3, "def double", "@contextmanager\ndef doubled")(sample, registry)
    registry["0.1"].reference = doubled
    notebooks.fill_solutions(sample, registry)
    wanted = '@exercise("0.1")\n@contextmanager\ndef doubled(x):\n    """Twice x."""\n    '
    assert sample.cells[2].source == wanted + (
        "### BEGIN SOLUTION\n    y = 2 * x\n    yield y\n    ### END SOLUTION"
    )
    nbformat.write(sample, solutions / "00_sample.ipynb")
    (path,) = release.release(solutions, labs, registry)
    stub = notebooks.read(path).cells[2].source
    assert stub == wanted + "# YOUR CODE HERE\n    raise NotImplementedError()"


def one_liner(x):
    return x  # noqa: E704


def test_a_reference_needs_a_docstring():
    with pytest.raises(CourseError, match="the reference one_liner needs a docstring and a body below it"):
        notebooks.solution_of(one_liner)


def edit(cell: int, old: str, new: str):
    """A change to the source of one cell of the sample (cells counted from 1, as in the messages)."""

    def change(notebook, registry):
        assert notebook.cells[cell - 1].source.count(old) == 1
        notebook.cells[cell - 1].source = notebook.cells[cell - 1].source.replace(old, new)

    return change


def grading(cell: int, **values):
    """A change to the nbgrader metadata of one cell; None removes the entry."""

    def change(notebook, registry):
        metadata = notebook.cells[cell - 1].metadata.nbgrader
        metadata.update(values)
        for key in [key for key, value in values.items() if value is None]:
            del metadata[key]

    return change


def delete(cell: int):
    return lambda notebook, registry: notebook.cells.pop(cell - 1)


def entry(key: str, **values):
    """A change to the registry."""
    return lambda notebook, registry: vars(registry[key]).update(values)


def in_place_of(cell: int, source: str):
    def change(notebook, registry):
        notebook.cells[cell - 1].source = source

    return change


def copy_of(cell: int):
    """The cell and the one after it, once more at the end."""

    def change(notebook, registry):
        notebook.cells += [
            nbformat.from_dict({**notebook.cells[i], "id": f"copy-{i}"}) for i in (cell - 1, cell)
        ]

    return change


MALFORMED = {
    "no end marker": (
        edit(3, "    ### END SOLUTION", ""),
        3,
        "exercise 0.1 needs one line '### BEGIN SOLUTION'",
    ),
    "no markers": (in_place_of(3, '@exercise("0.1")\ndef double(x):\n    return 2 * x'), 3, "needs one line"),
    "markers swapped": (
        in_place_of(
            3, '@exercise("0.1")\ndef double(x):\n    ### END SOLUTION\n    return x\n    ### BEGIN SOLUTION'
        ),
        3,
        "needs one line",
    ),
    "not Python": (edit(3, "def double(x):", "def double(x)"), 3, r"line 2 is not Python \(expected ':'\)"),
    "two functions": (
        edit(3, "    ### END SOLUTION", "    ### END SOLUTION\nother = 3"),
        3,
        "holds one function",
    ),
    "another decorator": (edit(3, "def double", "@cache\ndef double"), 3, "only @contextmanager may stand"),
    "context manager above": (
        edit(3, '@exercise("0.1")', '@contextmanager\n@exercise("0.1")'),
        3,
        "only @contextmanager may stand between",
    ),
    "line above": (edit(3, "@exercise", "# mine\n@exercise"), 3, "has lines above its decorator"),
    "key not a text": (edit(3, '"0.1"', "0.1"), 3, "holds one function under @exercise"),
    "no docstring": (edit(3, '"""Twice x."""', "pass"), 3, "needs a docstring"),
    "solution outside": (
        edit(3, "    ### BEGIN", "    y = 2 * x\n    ### BEGIN"),
        3,
        "line 4 of exercise 0.1 is code outside",
    ),
    "solution after": (
        edit(3, "    ### END SOLUTION", "    ### END SOLUTION\n    return 3"),
        3,
        "line 7 .* outside",
    ),
    "stale solution": (edit(3, "2 * x", "x + x"), 3, "is not the reference of helpers; run `make solutions`"),
    "parameter": (edit(3, "double(x)", "double(y)"), 3, r"takes \(y\), its reference takes \(x\)"),
    "unknown key": (edit(3, '"0.1"', '"0.7"'), 3, "exercise 0.7 is not in helpers.exercises.registry"),
    "three mistakes": (entry("0.1", mistakes=("m",) * 3), 3, "lists 3 known mistakes; list at least 4"),
    "no verdict": (delete(4), 3, r'exercise 0.1 needs a cell verdict\("0.1"\) right after it'),
    "verdict of another": (edit(4, "0.1", "0.2"), 3, r'needs a cell verdict\("0.1"\)'),
    "more in the verdict": (edit(4, 'verdict("0.1")', 'verdict("0.1")\nx = 1'), 3, "with nothing else in it"),
    "verdict alone": (in_place_of(7, 'verdict("0.1")'), 7, "move or delete this one"),
    "no points": (grading(4, points=None), 3, r'verdict\("0.1"\) has no points'),
    "other points": (grading(4, points=5), 3, r"gives 5 points, helpers.exercises 1; make them equal"),
    "verdict unlocked": (grading(4, locked=False), 3, r'verdict\("0.1"\): set "locked": true'),
    "exercise graded": (grading(3, grade=True), 3, 'exercise 0.1: set "grade": false'),
    "no grade_id": (grading(3, grade_id=None), 3, "exercise 0.1 has no grade_id"),
    "no metadata": (
        lambda nb, registry: nb.cells[2].metadata.clear(),
        3,
        "exercise 0.1 has no nbgrader metadata",
    ),
    "grade_id twice": (grading(5, grade_id="ex-0-1"), 5, "grade_id 'ex-0-1' stands in cell 3 already"),
    "key twice": (copy_of(3), 9, 'exercise "0.1" stands in cell 3 already'),
    "text without points": (grading(8, points=None), 8, "the answer has no points"),
    "text not graded": (grading(8, grade=False), 8, 'the answer: set "grade": true'),
    "solution without exercise": (
        lambda nb, registry: nb.cells[6].metadata.update(nb.cells[2].metadata),
        7,
        "has no @exercise",
    ),
    "markers elsewhere": (edit(7, "print", "### BEGIN SOLUTION\nprint"), 7, "so students would see it"),
}


@pytest.mark.parametrize("change, cell, sentence", MALFORMED.values(), ids=MALFORMED)
def test_malformed_exercises_are_rejected(change, cell, sentence, trees, sample, registry):
    solutions, labs = trees
    assert notebooks.problems(sample, "00_sample.ipynb", registry) == []
    change(sample, registry)
    (solutions / "00_sample.ipynb").write_text(nbformat.v4.writes(sample), encoding="utf-8")
    with pytest.raises(CourseError, match=rf"00_sample.ipynb, cell {cell}: .*{sentence}"):
        release.release(solutions, labs, registry)
    assert list(labs.iterdir()) == []


def test_an_answer_in_code_that_a_person_grades_needs_no_exercise(trees, sample, registry):
    """The transfer task: no check, but points and a rubric inside the markers."""
    solutions, labs = trees
    task = sample.cells[6]
    task.source = "def why():\n    ### BEGIN SOLUTION\n    print(7)\n    ### END SOLUTION"
    task.metadata.update({"nbgrader": {**sample.cells[2].metadata.nbgrader, "grade_id": "task"}})
    assert "set grade to true" in " ".join(notebooks.problems(sample, "00_sample.ipynb", registry))
    grading(7, grade=True)(sample, registry)
    assert "has no points" in " ".join(notebooks.problems(sample, "00_sample.ipynb", registry))
    grading(7, points=4)(sample, registry)
    nbformat.write(sample, solutions / "00_sample.ipynb")
    (path,) = release.release(solutions, labs, registry)
    assert "print(7)" not in path.read_text(encoding="utf-8")


def test_every_malformed_exercise_is_named_at_once(trees, sample, registry):
    solutions, labs = trees
    edit(3, "2 * x", "x + x")(sample, registry)
    grading(6, points=None)(sample, registry)
    nbformat.write(sample, solutions / "00_sample.ipynb")
    (solutions / "01_torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    with pytest.raises(CourseError) as raised:
        release.release(solutions, labs, registry)
    assert len(str(raised.value).splitlines()) == 3
    assert "01_torn.ipynb is not a valid notebook" in str(raised.value)
