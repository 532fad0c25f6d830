"""A small course for the tests of `helpers.course`: two exercises, their notebook, a copy of this project."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from helpers.course import notebooks

ROOT = Path(__file__).parents[1]


def double(x):
    """Twice x, an array of any shape."""
    return 2 * x


def shift(x, by):
    """x plus by, in two steps."""
    # a comment that belongs to the solution
    moved = x + by

    return moved


# Stands for helpers.exercises, which knows the exercises of the real labs only.
OPENING = """
def exercise(key):
    def judge(function):
        try:
            function(*[1.0] * function.__code__.co_argcount)
            print(f"{key}: right")
        except NotImplementedError:
            print(f"{key}: not attempted")
        return function
    return judge

def verdict(key):
    print(f"verdict on {key}")
""".strip()

DOUBLE = '''
@exercise("0.1")
def double(x):
    """Twice x."""
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION
'''.strip()

SHIFT = '''
@exercise("0.2")
def shift(x, by):
    """x plus by."""
    ### BEGIN SOLUTION
    # a comment that belongs to the solution
    moved = x + by

    return moved
    ### END SOLUTION
'''.strip()


def _grading(grade_id: str, cell_type: str = "code", **flags: object) -> dict:
    plain = {"grade": False, "solution": False, "locked": False, "task": False, "schema_version": 3}
    return {"nbgrader": {**plain, "grade_id": grade_id, "cell_type": cell_type, **flags}}


@pytest.fixture
def registry() -> dict[str, SimpleNamespace]:
    """Of each `helpers.exercises.Exercise`, what the release looks at."""
    return {
        "0.1": SimpleNamespace(reference=double, mistakes=("a mistake",) * 4, points=1),
        "0.2": SimpleNamespace(reference=shift, mistakes=("a mistake",) * 4, points=2),
    }


@pytest.fixture
def sample() -> nbformat.NotebookNode:
    """A well-formed solution, not run yet: exercises in cells 3 and 5, a free-text answer in cell 8."""
    cells = [
        new_markdown_cell("# Sample\n\n**Time and memory:** not measured yet\n\nGoals follow."),
        new_code_cell(OPENING),
        new_code_cell(DOUBLE, metadata=_grading("ex-0-1", solution=True)),
        new_code_cell('verdict("0.1")', metadata=_grading("verdict-0-1", grade=True, locked=True, points=1)),
        new_code_cell(SHIFT, metadata=_grading("ex-0-2", solution=True)),
        new_code_cell('verdict("0.2")', metadata=_grading("verdict-0-2", grade=True, locked=True, points=2)),
        new_code_cell("print('a live number: ~0.5')"),
        new_markdown_cell(
            "### BEGIN MARK SCHEME\nOne point for a reason.\n### END MARK SCHEME\nBecause.",
            metadata=_grading("why", "markdown", grade=True, solution=True, points=1),
        ),
    ]
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    metadata = {
        "kernelspec": notebooks.KERNELSPEC,
        "language_info": {"name": "python"},
        "course": {"lab": "00"},
    }
    return new_notebook(cells=cells, metadata=metadata)


@pytest.fixture(scope="session")
def new_course_copy() -> Callable[[Path], Path]:
    """`new_course_copy(folder)`: copy helpers/ and pytest's settings there, without notebooks."""

    def copy(folder: Path) -> Path:
        tree = folder / "course"
        for name in ("helpers", "tests/offline"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        for name in ("solutions", "labs"):
            (tree / name).mkdir()
        return tree

    return copy


@pytest.fixture
def course_copy(new_course_copy, tmp_path) -> Path:
    return new_course_copy(tmp_path)


@pytest.fixture(scope="session")
def run_in() -> Callable[..., subprocess.CompletedProcess]:
    """`run_in(tree, *arguments, **variables)`: run `python -m ...` in a copy, with its own helpers."""

    def run(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "PYTHONPATH", "LABS_"))
        }
        environment = {**inherited, "NO_COLOR": "1", "PYTHONUTF8": "1", **variables}
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=600)

    return run
