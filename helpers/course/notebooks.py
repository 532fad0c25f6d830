"""The course's notebooks: how they are read and written, and what makes an exercise in one well formed.

An exercise is two neighbouring cells of a notebook in `solutions/`:

    @exercise("1.3")
    def relu_backward(grad_out, x):
        '''Gradient of ReLU. grad_out, x: (B, C, H, W) -> (B, C, H, W).'''
        ### BEGIN SOLUTION
        return grad_out * (x > 0)
        ### END SOLUTION

    verdict("1.3")

What stands between the markers is a copy, made by `refresh`, of the exercise's reference in `helpers`.
"""

import ast
import hashlib
import inspect
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = ROOT / "solutions"
LABS = ROOT / "labs"

MIN_MISTAKES = 4
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
RELEASE_DIGITS = 10
CELL_METADATA = {"nbgrader", "tags", "deletable", "editable"}


class CourseError(Exception):
    """What went wrong and what to do next, as sentences for a maintainer."""


def read(path: Path) -> NotebookNode:
    """Read a notebook (format 4). Raises CourseError when the file is not a valid notebook."""
    try:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
    except (ValueError, nbformat.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise CourseError(f"{path.name} is not a valid notebook ({reason}); repair or restore it.") from error
    return notebook


def write(path: Path, text: str) -> None:
    """Write `text` whole or not at all, so that nobody ever reads half a notebook."""
    if path.exists() and path.read_bytes() == text.encode():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(text.encode())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def text_of(notebook: NotebookNode) -> str:
    """The notebook as it stands in a file."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def release_id(notebook: Mapping[str, Any]) -> str:
    """Ten hex digits that name a students' notebook by its content: everything but the id that it carries.

    `release` writes them into its metadata, `course.release`; any change of a lab changes them.
    """
    metadata = dict(notebook["metadata"])
    if "course" in metadata:
        metadata["course"] = {key: value for key, value in metadata["course"].items() if key != "release"}
    content = json.dumps({**notebook, "metadata": metadata}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).hexdigest()[:RELEASE_DIGITS]


def tidy(notebook: NotebookNode) -> None:
    """Drop, in place, the metadata that depends on who ran the notebook, where and when."""
    course = {"course": notebook.metadata["course"]} if "course" in notebook.metadata else {}
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}, **course}
    )
    for cell in notebook.cells:
        for key in set(cell.metadata) - CELL_METADATA:
            del cell.metadata[key]


@dataclass(frozen=True)
class ExerciseCell:
    """A parsed exercise cell. `begin` and `end` are the line numbers (from 1) of the solution's markers."""

    key: str
    function: ast.FunctionDef
    lines: list[str]
    begin: int
    end: int

    @property
    def parameters(self) -> list[str]:
        """Names of the function's parameters, in order."""
        arguments = self.function.args
        plain = [*arguments.posonlyargs, *arguments.args]
        return [a.arg for a in [*plain, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg] if a]

    @property
    def solution(self) -> str:
        """The text between the markers, without its indentation."""
        return textwrap.dedent("\n".join(self.lines[self.begin : self.end - 1]))

    def with_solution(self, solution: str) -> str:
        """The cell's source with another solution between the markers."""
        marker = self.lines[self.begin - 1]
        indent = marker[: len(marker) - len(marker.lstrip())]
        new = textwrap.indent(solution, indent).split("\n")
        return "\n".join([*self.lines[: self.begin], *new, *self.lines[self.end - 1 :]])


def is_exercise(cell: NotebookNode) -> bool:
    """Whether a cell uses the exercise decorator."""
    return cell.cell_type == "code" and re.search(r"^@exercise\b", cell.source, re.MULTILINE) is not None


def parse_exercise(source: str) -> ExerciseCell:
    """Parse an exercise cell's source. Raises CourseError (a sentence without its notebook and cell)."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        raise CourseError(f"line {error.lineno} is not Python ({error.msg}); correct it.") from error
    match statements:
        case [
            ast.FunctionDef(
                decorator_list=[ast.Call(ast.Name("exercise"), [ast.Constant(str(key))], []), *inner]
            ) as function
        ] if [ast.unparse(decorator) for decorator in inner] in ([], ["contextmanager"]):
            pass
        case _:
            raise CourseError(
                'an exercise cell holds one function under @exercise("key") and nothing else; only '
                "@contextmanager may stand between them."
            )
    lines = source.split("\n")
    begins = [number for number, line in enumerate(lines, 1) if line.strip() == BEGIN]
    ends = [number for number, line in enumerate(lines, 1) if line.strip() == END]
    if len(begins) != 1 or len(ends) != 1 or begins > ends:
        raise CourseError(f"exercise {key} needs one line {BEGIN!r} and, after it, one line {END!r}.")
    return ExerciseCell(key, function, lines, begins[0], ends[0])


def solution_of(reference: Callable) -> str:
    """The body of a reference function, without its docstring and indentation: what a solution cell shows.

    Raises CourseError when the function has no docstring or shares a line with it.
    """
    source = textwrap.dedent(inspect.getsource(reference))
    function = next(node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef))
    if ast.get_docstring(function) is None or len(function.body) < 2:
        raise CourseError(f"the reference {reference.__name__} needs a docstring and a body below it.")
    docstring = function.body[0]
    return textwrap.dedent("\n".join(source.split("\n")[docstring.end_lineno :])).strip("\n")


def fill_solutions(notebook: NotebookNode, registry: Mapping[str, Any]) -> None:
    """Copy each exercise's reference between its markers, in place. Malformed cells stay as they are."""
    for cell in filter(is_exercise, notebook.cells):
        try:
            exercise = parse_exercise(cell.source)
            if exercise.key in registry:
                cell.source = exercise.with_solution(solution_of(registry[exercise.key].reference))
        except CourseError:
            continue


def problems(notebook: NotebookNode, name: str, registry: Mapping[str, Any]) -> list[str]:
    """Everything that is malformed in the notebook's exercises, one sentence each; empty when all is well.

    registry: key -> helpers.exercises.Exercise. The sentences count cells from 1, Markdown cells included.
    """
    found = []
    seen: dict[str, int] = {}
    follower = None
    for number, cell in enumerate(notebook.cells, 1):
        following = notebook.cells[number] if number < len(notebook.cells) else None
        complaints = []
        if is_exercise(cell):
            complaints += _exercise_problems(cell, following, registry)
            follower = following
        else:
            complaints += _other_problems(cell, follows_exercise=cell is follower)
        for label in _labels(cell):
            if label in seen:
                complaints.append(f"{label} stands in cell {seen[label]} already; give it one of its own.")
            seen.setdefault(label, number)
        found += [f"{name}, cell {number}: {complaint}" for complaint in complaints]
    return found


def _labels(cell: NotebookNode) -> Iterator[str]:
    """What must not occur twice in a notebook."""
    if "nbgrader" in cell.metadata:
        yield f"grade_id {cell.metadata.nbgrader.get('grade_id')!r}"
    if is_exercise(cell):
        key = re.search(r"^@exercise\((.*)\)", cell.source, re.MULTILINE)
        yield f"exercise {key[1] if key else '?'}"


def _exercise_problems(
    cell: NotebookNode, following: NotebookNode | None, registry: Mapping[str, Any]
) -> Iterator[str]:
    try:
        exercise = parse_exercise(cell.source)
    except CourseError as error:
        yield str(error)
        return
    key = exercise.key
    if not cell.source.startswith("@exercise("):
        yield f"exercise {key} has lines above its decorator; move them into a cell of their own."
    body = exercise.function.body
    if ast.get_docstring(exercise.function) is None:
        yield f"exercise {key} needs a docstring that tells students what goes in and what comes out."
    else:
        body = body[1:]
    for statement in body:
        if not (exercise.begin < statement.lineno and statement.end_lineno < exercise.end):
            yield f"line {statement.lineno} of exercise {key} is code outside the markers; move it inside."
    yield from _metadata_problems(cell, f"exercise {key}", grade=False, solution=True, locked=False)
    if key not in registry:
        yield f"exercise {key} is not in helpers.exercises.registry; add it to its lab's file there."
    else:
        yield from _reference_problems(exercise, registry[key])
    yield from _verdict_problems(key, following, registry)


def _reference_problems(exercise: ExerciseCell, entry: Any) -> Iterator[str]:
    key = exercise.key
    if len(entry.mistakes) < MIN_MISTAKES:
        yield f"exercise {key} lists {len(entry.mistakes)} known mistakes; list at least {MIN_MISTAKES}."
    parameters = list(inspect.signature(entry.reference).parameters)
    if exercise.parameters != parameters:
        yield (
            f"exercise {key} takes ({', '.join(exercise.parameters)}), its reference takes "
            f"({', '.join(parameters)}); use the same names."
        )
    try:
        stale = exercise.solution != solution_of(entry.reference)
    except CourseError as error:
        yield f"exercise {key}: {error}"
    else:
        if stale:
            yield f"the solution of exercise {key} is not the reference of helpers; run `make solutions`."


def _verdict_problems(key: str, cell: NotebookNode | None, registry: Mapping[str, Any]) -> Iterator[str]:
    wanted = f'verdict("{key}")'
    if cell is None or cell.cell_type != "code" or cell.source.strip() != wanted:
        yield f"exercise {key} needs a cell {wanted} right after it, with nothing else in it."
        return
    yield from _metadata_problems(cell, wanted, grade=True, solution=False, locked=True)
    points = cell.metadata.get("nbgrader", {}).get("points")
    if points is None:
        yield f"{wanted} has no points; set them in its nbgrader metadata."
    elif key in registry and points != registry[key].points:
        yield f"{wanted} gives {points} points, helpers.exercises {registry[key].points}; make them equal."


def _other_problems(cell: NotebookNode, follows_exercise: bool) -> Iterator[str]:
    """Problems of a cell that is not an exercise: a verdict, free text, or anything else."""
    grading = cell.metadata.get("nbgrader", {})
    if cell.cell_type == "code":
        if re.match(r"verdict\(", cell.source) and not follows_exercise:
            yield "a verdict stands right after its exercise; move or delete this one."
        if grading.get("solution") and not grading.get("grade"):
            yield (
                'the cell is marked as a solution but has no @exercise("key"); add it, remove the mark, or '
                "set grade to true for an answer that a person grades."
            )
            return
    if grading.get("solution"):
        yield from _metadata_problems(cell, "the answer", grade=True, solution=True, locked=False)
        if grading.get("points") is None:
            yield "the answer has no points; set them in its nbgrader metadata."
    if not grading.get("solution") and (BEGIN in cell.source or END in cell.source):
        yield "solution markers stand in a cell that is not marked as a solution, so students would see it."


def _metadata_problems(cell: NotebookNode, what: str, **wanted: bool) -> Iterator[str]:
    grading = cell.metadata.get("nbgrader")
    if grading is None:
        yield f"{what} has no nbgrader metadata; copy it from another exercise."
        return
    wrong = {flag: value for flag, value in wanted.items() if grading.get(flag) != value}
    if wrong:
        yield (
            f"{what}: set "
            + ", ".join(f'"{k}": {str(v).lower()}' for k, v in wrong.items())
            + " in its nbgrader metadata."
        )
    if not grading.get("grade_id"):
        yield f"{what} has no grade_id; give it one in its nbgrader metadata."
