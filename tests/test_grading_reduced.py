"""The course as a submission sees it: enough for every right answer, and no answer in it."""

import ast
import importlib
import inspect
import os
import textwrap
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from helpers.course import notebooks
from helpers.course.grading import box, judge, reduced
from helpers.exercises import Exercise, _check, _diagnosis, registry

LABS = sorted(path.stem for path in notebooks.LABS.glob("*.ipynb"))


def groups(lab: judge.Lab) -> Iterator[tuple[Exercise, dict[str, str]]]:
    """Each exercise with the files among which it is judged."""
    for ex in lab.exercises:
        inside = reduced.own_course(lab.exercises, ex.key)
        alike = [e.key for e in lab.exercises if reduced.own_course(lab.exercises, e.key) == inside]
        yield ex, reduced.reduced_course(lab.exercises, alike, lab.setup, inside)


def bodies(text: str) -> set[str]:
    """What the functions in a file do, without names of parameters' types, docstrings and layout."""
    return {body(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)}


def body(function: ast.FunctionDef) -> str:
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    return ast.dump(ast.Module(statements, []))


@pytest.mark.parametrize("name", LABS)
def test_no_answer_is_inside(name: str) -> None:
    for ex, files in groups(judge.lab_of(name)):
        source = textwrap.dedent(inspect.getsource(ex.reference))
        answer = body(next(n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)))
        holding = [file for file, text in files.items() if answer in bodies(text)]
        assert not holding, f"the reference for {ex.key} stands in {holding}"
        assert not any(file.startswith("helpers/exercises/lab") for file in files)
        for mistake in (*ex.mistakes, *ex.alternatives):  # those say what is wrong, or are answers
            function = getattr(mistake, "wrong", mistake)
            if inspect.isfunction(function) and function.__name__ != "<lambda>":
                needle = f"def {function.__name__}("
                assert (
                    needle not in files["helpers/exercises/inputs.py"] or "<locals>" in function.__qualname__
                )


@pytest.mark.parametrize("name", LABS)
def test_withheld_functions_say_so(name: str) -> None:
    lab = judge.lab_of(name)
    withheld = 0
    for ex, files in groups(lab):
        path = ex.reference.__module__.replace(".", "/") + ".py"
        if f"def {ex.reference.__name__}(*arguments, **named)" in files.get(path, ""):
            withheld += 1
    assert withheld == len(lab.exercises)  # each is imported by the lab's first cell


def test_what_gives_an_answer_away_is_withheld() -> None:
    lab = judge.lab_of("04_resnet_gradcam")
    files = next(files for ex, files in groups(lab) if ex.key == "4.2")
    assert "def grad_cam(*arguments" in files["helpers/cam.py"]
    assert "def evaluating(model" in files["helpers/cam.py"]


@pytest.mark.parametrize("key", list(registry))
def test_gives_away_names_something(key: str) -> None:
    for name in registry[key].gives_away:
        module, function = name.rsplit(".", 1)
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("name", LABS)
def test_inputs_are_not_made_of_their_own_answer(name: str) -> None:
    lab = judge.lab_of(name)
    for ex in lab.exercises:
        _, files = next(pair for pair in groups(lab) if pair[0] is ex)
        inputs = ast.parse(files["helpers/exercises/inputs.py"])
        imported = {a.name for n in ast.walk(inputs) if isinstance(n, ast.ImportFrom) for a in n.names}
        assert ex.reference.__name__ not in imported


@pytest.mark.parametrize("name", LABS)
def test_solutions_score_full_marks_and_blanks_nothing(name: str) -> None:
    if reason := box.why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    for folder, share in ((notebooks.SOLUTIONS, 1), (notebooks.LABS, 0)):
        content = (folder / f"{name}.ipynb").read_bytes()
        report = judge.judge_notebook(content, "ada", name, f"{name}.ipynb", seed="secret")
        assert report.score == share * report.points, report.answers
        assert {answer.verdict for answer in report.answers} == ({"right"} if share else {"not attempted"})
        assert report.remarks == ()
        if not share:
            assert report.tampering == ()


@pytest.mark.parametrize("key", list(registry))
def test_any_inputs_tell_right_from_wrong(key: str) -> None:
    """Students are graded on other inputs than the lab's: right answers pass there, known mistakes don't."""
    ex = registry[key]
    for seed in (12345, 678910):
        cases = ex.draw(np.random.default_rng([seed, i]) for i in range(judge.DRAWS))

        def right(answer: Callable, cases: list[tuple] = cases) -> bool:
            trials = (
                _diagnosis.Trial(a, ex.observe(answer, a), ex.observe(ex.reference, a), ex.rtol32, ex.rtol64)
                for a in cases
            )
            return all(trial.right for trial in trials)

        with _check.undisturbed():
            assert all(map(right, ex.alternatives))
            assert not [mistake.sentence for mistake in ex.mistakes if right(mistake.wrong)]
