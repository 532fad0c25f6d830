"""Which answers of a class are called alike, and which are not."""

import json
import random
import time

import pytest

from helpers.course.grading.alike import NOTABLE, alike, fingerprint
from helpers.course.grading.report import Answer, FreeText, Report

LAB = "01_numpy_saliency"

STUB = '''@exercise("1.3")
def class_saliency(net, images, classes):
    """The largest gradient over channels."""
    # YOUR CODE HERE
    raise NotImplementedError()
'''
REFERENCE = '''@exercise("1.3")
def class_saliency(net, images, classes):
    """The largest gradient over channels."""
    ### BEGIN SOLUTION
    logits = net.forward(images)
    gradient = net.gradient(seed(logits, classes), "input")
    largest = np.abs(gradient).max(axis=1)
    for layer in net.layers.values():
        layer.forget(gradient, keep=largest.shape[0] - 1)
    return largest
    ### END SOLUTION
'''
LONG = """
@exercise("1.3")
def class_saliency(net, images, classes):
    logits = net.forward(images)
    start = np.zeros_like(logits)
    for row, label in enumerate(classes):
        start[row, label] = 1.0
    gradient = net.gradient(start, "input")
    out = np.empty(images.shape[::2])
    for i in range(len(images)):
        out[i] = np.maximum(gradient[i].max(axis=0), -gradient[i].min(axis=0))
    return out
"""
LONG_RENAMED = '''
@exercise("1.3")
def my_saliency(model, x, y: "labels") -> "maps":
    """I did this myself."""
    z = model.forward(x)  # scores

    s = np.zeros_like(z)
    for (n, c) in enumerate(y):
        s[n, c] = 1.0
    g: np.ndarray = model.gradient(s,
                                   "input")
    result = np.empty(x.shape[::2])
    for k in range(len(x)):
        pass
        result[k] = np.maximum(g[k].max(axis=0), -g[k].min(axis=0))
    return result
'''
SHORT = """
@exercise("1.3")
def class_saliency(net, images, classes):
    gradient = net.gradient(images, "input")
    return abs(gradient).max(axis=1)
"""
ESSAY = (
    "The deletion curve of the saliency map fell below a half after thirty pixels, while Grad-CAM needed "
    "more than ninety, so in my run the finer map was also the one that named the pixels the network needs. "
    "On the untrained copy both curves were flat, which I had not expected from an edge detector at all."
)
QUESTION = (
    "Say what sharper could possibly mean here, and what you have measured in this lab about better, and "
    "refer to at least one number."
)
MODEL_ANSWER = (
    "Sharp can mean fine detail or concentrated mass, and neither is better than the other until somebody "
    "has tested it against the model itself."
)


@pytest.fixture
def course(tmp_path):
    """labs/ and solutions/ with one exercise and one question."""
    folders = []
    for name, code, prose in (
        ("labs", STUB, "YOUR ANSWER HERE"),
        ("solutions", REFERENCE, f"**A good answer.** {MODEL_ANSWER}"),
    ):
        cells = [
            _cell("code", code, "ex-1-3"),
            {"cell_type": "markdown", "metadata": {}, "source": QUESTION},
            _cell("markdown", prose, "discuss-1"),
        ]
        folder = tmp_path / name
        folder.mkdir()
        text = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4})
        (folder / f"{LAB}.ipynb").write_text(text, encoding="utf-8")
        folders.append(folder)
    return folders


def _cell(kind, source, grade_id):
    code = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"cell_type": kind, "metadata": {"nbgrader": {"grade_id": grade_id}}, "source": source, **code}


def code(student, source, verdict="right"):
    answer = Answer("1.3", "verdict-1-3", "Class saliency", 1, 0, verdict, source=source)
    return Report(student, LAB, "f", "0", "", answers=(answer,))


def prose(student, source, kind="markdown"):
    text = FreeText("discuss-1", "Why?", 2, kind, source, attempted=True)
    return Report(student, LAB, "f", "0", "", free_texts=(text,))


def others(number, verdict="right"):
    """Students with an answer of their own each."""
    head = '@exercise("1.3")\ndef class_saliency(net, images, classes):\n'
    return [code(f"other {i}", f"{head}    return {i}\n", verdict) for i in range(number)]


# Code ------------------------------------------------------------------------------------------------------


def test_names_comments_docstrings_annotations_and_layout_do_not_count():
    assert fingerprint(LONG) == fingerprint(LONG_RENAMED)


@pytest.mark.parametrize(
    "one, other",
    [
        pytest.param("a = 1\nb = a", "a = 1\nb = b", id="another-variable"),
        pytest.param("a = 1", "a = 2", id="another-number"),
        pytest.param("a = 1", "a = 1.0", id="another-type"),
        pytest.param("a = np.sum(x)", "a = np.mean(x)", id="another-function"),
        pytest.param("a = f(x, axis=1)", "a = f(x, dim=1)", id="another-keyword"),
        pytest.param("a = x + y", "a = x - y", id="another-operator"),
        pytest.param("f(g(x), y)", "f(g(x, y))", id="other-brackets"),
        pytest.param("if x:\n    y()\nz()", "if x:\n    y()\n    z()", id="other-indentation"),
    ],
)
def test_different_programs_differ(one, other):
    assert fingerprint(one) != fingerprint(other)


@pytest.mark.parametrize(
    "one, other",
    [
        pytest.param("g = lambda a: a + 1", "h = lambda b: b + 1", id="lambda"),
        pytest.param("[i for i in x if i]", "[j for j in x if j]", id="comprehension"),
        pytest.param("def f(a=1):\n  return a\nf(a=2)", "def g(b=1):\n  return b\ng(b=2)", id="own-keyword"),
        pytest.param("import numpy as n\nn.sum(x)", "import numpy as np\nnp.sum(x)", id="import-as"),
        pytest.param("try:\n  f()\nexcept E as e:\n  e", "try:\n  f()\nexcept E as err:\n  err", id="except"),
        pytest.param("with f() as a:\n  a", "with f() as b:\n  b", id="with"),
        pytest.param("x = 1 # one\n%time f(x)", "x  =  1\n%time f( x )", id="no-python"),
    ],
)
def test_equal_programs_are_equal(one, other):
    assert fingerprint(one) == fingerprint(other)


def test_an_equal_long_answer_is_found(course):
    found = alike([code("Ada", LONG), code("Ben", LONG_RENAMED), *others(58)], *course)
    assert [(like.students, like.lab, like.key) for like in found] == [(("Ada", "Ben"), LAB, "1.3")]
    assert NOTABLE < found[0].score <= 1
    assert found[0].sentence == (
        "Equal up to names, comments and layout; shared by 2 of the 60 who answered; "
        "not the published solution."
    )


def test_the_published_solution_says_nothing(course):
    renamed = REFERENCE.replace("gradient =", "g =").replace("abs(gradient)", "abs(g)")
    renamed = renamed.replace("forget(gradient,", "forget(g,")
    assert fingerprint(renamed) == fingerprint(REFERENCE)
    class_ = [code("Ada", REFERENCE), code("Ben", renamed), *others(58)]
    assert alike(class_, *course) == []
    without_solutions = alike(class_, course[0], course[0])
    assert [like.students for like in without_solutions] == [("Ada", "Ben")]


def test_a_short_right_answer_says_nothing_and_a_short_wrong_one_much(course):
    assert alike([code("Ada", SHORT), code("Ben", SHORT), *others(58)], *course) == []
    known = [code(name, SHORT, "known mistake") for name in ("Ada", "Ben")]
    assert alike([*known, *others(58)], *course) == []
    wrong = [code(name, SHORT, "not right") for name in ("Ada", "Ben")]
    [like] = alike([*wrong, *others(58)], *course)
    assert like.students == ("Ada", "Ben")
    assert "wrong, and no mistake that the course knows" in like.sentence


def test_the_more_share_an_answer_the_less_it_says(course):
    def score(sharing):
        found = alike([*(code(f"S{i:02}", LONG) for i in range(sharing)), *others(60 - sharing)], *course)
        return found[0].score if found else 0

    assert score(2) > score(4) > score(6) >= NOTABLE
    assert score(40) == score(60) == 0


def test_an_empty_answer_and_the_students_own_second_attempt_are_not_alike(course):
    stubs = [code("Ada", STUB, "not attempted"), code("Ben", STUB, "not attempted")]
    retyped = [code("Cleo", STUB, "error"), code("Dan", STUB, "error")]
    assert alike([*stubs, *retyped, code("Ada", LONG), code("Ada", LONG)], *course) == []


def test_a_transfer_task_is_compared_as_code(course):
    found = alike([prose("Ada", LONG, "code"), prose("Ben", LONG_RENAMED, "code")], *course)
    assert [(like.students, like.key) for like in found] == [(("Ada", "Ben"), "discuss-1")]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("def f(:\n" + "word " * 100, id="no-python"),
        pytest.param("x = " + "(" * 5000 + ")" * 5000, id="brackets"),
        pytest.param("x = " + "-" * 40_000 + "1", id="signs"),
        pytest.param("x = a" + ".a" * 20_000, id="attributes"),
        pytest.param("x = " + "1+" * 20_000 + "1", id="sums"),
        pytest.param("x = " + "9" * 10_000, id="digits"),
        pytest.param("x = '\x00\ud800'", id="nul-and-surrogate"),
        pytest.param("x = 1\n" * 1_000_000, id="megabytes"),
    ],
)
def test_no_source_is_too_odd_to_be_compared(source, course):
    source += "\ny = 1" * 20  # not too short to count
    class_ = [code("Ada", source, "error"), code("Ben", source, "error"), *others(20)]
    assert [like.students for like in alike(class_, *course)] == [("Ada", "Ben")]
    assert fingerprint(source + "\n(x ** 2)") != fingerprint(source)


# Prose -----------------------------------------------------------------------------------------------------


def test_a_copied_text_is_found(course):
    copy = prose("Ben", ESSAY.upper().replace(",", " -"))
    [like] = alike([prose("Ada", ESSAY), copy, prose("Cleo", "I see nothing.")], *course)
    assert like.students == ("Ada", "Ben") and like.key == "discuss-1"
    assert like.sentence.startswith("The same words; shared by 2 of the 3 who answered")


def test_a_text_with_some_words_changed_is_found(course):
    changed = ESSAY.replace("thirty", "forty").replace("had not expected", "did not foresee") + " So there."
    few = [prose(f"S{i}", f"{i} " * 20) for i in range(9)]
    [like] = alike([prose("Ada", ESSAY), prose("Ben", changed), *few], *course)
    assert like.students == ("Ada", "Ben")
    assert NOTABLE < like.score < 1
    assert " % of the shorter text's phrases" in like.sentence


def test_a_text_of_ones_own_is_not_alike(course):
    own = (
        "Grad-CAM needed more than ninety pixels in my run and the saliency map about thirty, so sharper was "
        "better by that measure, but the control of the untrained copy is what I would look at first."
    )
    assert alike([prose("Ada", ESSAY), prose("Ben", own)], *course) == []


def test_quoting_the_question_or_the_published_answer_says_nothing(course):
    assert alike([prose("Ada", QUESTION), prose("Ben", QUESTION)], *course) == []
    assert alike([prose("Ada", MODEL_ANSWER), prose("Ben", MODEL_ANSWER)], *course) == []


def test_a_text_that_half_of_the_class_shares_says_nothing(course):
    few = [prose(f"other {i}", f"{i} " * 20) for i in range(30)]
    assert alike([*(prose(f"S{i}", ESSAY) for i in range(30)), *few], *course) == []


def test_short_texts_are_not_compared(course):
    assert alike([prose("Ada", "I do not know."), prose("Ben", "I do not know.")], *course) == []


# Scale -----------------------------------------------------------------------------------------------------


def test_a_big_class_takes_seconds(tmp_path):
    """500 students, 5 exercises with a dozen common answers each, 5 free texts; one pair copies."""
    rng = random.Random(0)
    vocabulary = [f"word{i}" for i in range(400)]
    reports = []
    for number in range(500):
        answers = tuple(
            Answer(
                f"1.{i}", f"verdict-1-{i}", "t", 1, 1, "right",
                source=f"# by {number}\n" + LONG.replace("1.0", f"{min(rng.expovariate(0.5), 12):.0f}"),
            )
            for i in range(5)
        )  # fmt: skip
        texts = tuple(
            FreeText(f"discuss-{i}", "?", 2, "markdown", " ".join(rng.choices(vocabulary, k=120)), True)
            for i in range(5)
        )
        if number == 499:
            texts = (reports[0].free_texts[0], *texts[1:])
        reports.append(Report(f"S{number}", LAB, "f", "0", "", answers, texts))
    start = time.process_time()
    found = alike(reports, tmp_path, tmp_path)
    assert time.process_time() - start < 15
    assert [like.students for like in found if like.key == "discuss-0"] == [("S0", "S499")]
    assert not any(like.key.startswith("discuss") for like in found if like.key != "discuss-0")
