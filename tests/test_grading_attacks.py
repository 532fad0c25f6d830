"""Hostile and broken submissions, one test each.

For each of them: the machine survives, the other exercises keep their score, and nothing leaks. The lab is
lab 01 cut down to three exercises, answered rightly; the attack stands in the cell of exercise 1.2, or where
it says. What is attacked is the test's own: a file it has written, a server on the loopback address.
"""

import http.server
import json
import os
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import NotebookNode

from helpers.course import notebooks
from helpers.course.grading import box, judge
from helpers.course.grading.report import Report

LAB = "01_numpy_saliency"
KEYS = ("1.1", "1.2", "1.5")
ROOT = notebooks.ROOT
RIGHT = {
    "1.1": '@exercise("1.1")\ndef relu_backward(grad_out, x):\n    return grad_out * (x > 0)\n',
    "1.2": """
        @exercise("1.2")
        def seed(logits, classes):
            result = np.zeros_like(logits)
            result[np.arange(len(logits)), classes] = 1
            return result
        """,
    "1.5": """
        @exercise("1.5")
        def to_unit(maps):
            maps = np.maximum(maps, 0)
            largest = maps.max(axis=(1, 2), keepdims=True)
            return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
        """,
}
# A right answer to 1.2, after whatever an attack does first.
THEN_RIGHT = """
result = np.zeros_like(logits)
result[np.arange(len(logits)), classes] = 1
return result
"""


@pytest.fixture(autouse=True)
def small_lab(monkeypatch: pytest.MonkeyPatch) -> judge.Lab:
    """Lab 01 with three exercises, and shorter time limits."""
    if reason := box.why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    whole = judge.lab_of(LAB)
    notebook = notebooks.read(notebooks.LABS / f"{LAB}.ipynb")
    names = {name.format(key.replace(".", "-")) for key in KEYS for name in ("ex-{}", "verdict-{}")}
    names |= {"discuss-1", "transfer"}
    kept = [
        cell
        for cell in notebook.cells
        if "setup" in cell.metadata.get("tags", ())
        or cell.metadata.get("nbgrader", {}).get("grade_id") in names
    ]
    notebook.cells = kept
    lab = judge.Lab(LAB, notebook, tuple(ex for ex in whole.exercises if ex.key in KEYS))
    monkeypatch.setattr(judge, "lab_of", lambda name: lab)
    monkeypatch.setattr(judge, "CELL_LIMIT", 5.0)
    monkeypatch.setattr(judge, "ANSWER_LIMIT", 5.0)
    monkeypatch.setattr(judge, "GRACE", 4.0)
    monkeypatch.setattr(judge, "LIMITS", box.Limits(memory=1_000_000_000))
    return lab


def submission(lab: judge.Lab, **answers: str) -> NotebookNode:
    """The lab with right answers, but for those given: e1_2 for exercise 1.2, as source."""
    notebook = nbformat.from_dict(json.loads(json.dumps(lab.notebook)))
    for cell in notebook.cells:
        for key in judge.keys_in(cell):
            cell.source = textwrap.dedent(answers.get(f"e{key.replace('.', '_')}", RIGHT[key])).strip()
    return notebook


def answering(body: str, before: str = "") -> str:
    """The cell of exercise 1.2 with this body, and lines before it."""
    lines = textwrap.dedent(body).strip().split("\n")
    return "\n".join(
        [
            textwrap.dedent(before),
            '@exercise("1.2")',
            "def seed(logits, classes):",
            *(f"    {line}" for line in lines),
        ]
    )


def graded(notebook: NotebookNode | bytes) -> Report:
    content = notebook if isinstance(notebook, bytes) else nbformat.writes(notebook).encode()
    report = judge.judge_notebook(content, "ada", LAB, "ada.ipynb", seed="secret")
    assert len(report.to_json()) < 400_000  # whatever came, the report is small
    return report


def verdicts(report: Report) -> dict[str, str]:
    return {answer.key: answer.verdict for answer in report.answers}


def expect(report: Report, *allowed: str, key: str = "1.2") -> None:
    """The attacked exercise has one of the verdicts, and no points but for "right"; the others are right."""
    found = verdicts(report)
    assert found.pop(key) in allowed, report
    assert set(found.values()) == {"right"}, report
    scores = {answer.key: answer.score for answer in report.answers}
    assert scores[key] == (1 if allowed == ("right",) else 0)
    assert sum(scores.values()) - scores[key] == 2


# Ordinary answers ------------------------------------------------------------------------------------------


def test_right_answers_score_full_marks(small_lab: judge.Lab) -> None:
    report = graded(submission(small_lab))
    expect(report, "right")
    assert report.tampering == () and report.remarks == ()


def test_wrong_but_plausible(small_lab: judge.Lab) -> None:
    report = graded(submission(small_lab, e1_1=RIGHT["1.1"].replace(">", ">=")))
    expect(report, "known mistake", key="1.1")
    answer = report.answers[0]
    assert answer.mistake == answer.notes[0] and "exactly 0" in answer.mistake


def test_wrong_in_no_known_way(small_lab: judge.Lab) -> None:
    report = graded(submission(small_lab, e1_2=answering("return logits * 0.37 + classes[:, None]")))
    expect(report, "not right")
    assert report.answers[1].notes


def test_right_numbers_with_changed_arguments_are_worth_half(small_lab: judge.Lab) -> None:
    body = THEN_RIGHT.replace("return", "logits[:] = 5\nreturn")
    report = graded(submission(small_lab, e1_2=answering(body)))
    answer = report.answers[1]
    assert (answer.verdict, answer.score) == ("not right", 0.5)
    assert answer.partial == "The numbers are right, but the arguments are changed."
    assert report.score == 2.5


ONE_HOT = """
    import time
    %matplotlib inline
    time.sleep(1000)
    def one_hot(k, like):
        return np.eye(like.shape[1], dtype=like.dtype)[k]
"""


def test_another_right_style(small_lab: judge.Lab) -> None:
    before = textwrap.dedent(ONE_HOT).replace("time.sleep(1000)", "print('hello')")
    expect(graded(submission(small_lab, e1_2=answering("return one_hot(classes, logits)", before))), "right")


def test_helper_function_in_a_cell_of_their_own(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab, e1_2=answering("return one_hot(classes, logits)"))
    notebook.cells.insert(1, nbformat.v4.new_code_cell(textwrap.dedent(ONE_HOT)))
    expect(graded(notebook), "right")


HELPERS = {
    "lambda": "one_hot = lambda k, like: np.eye(like.shape[1], dtype=like.dtype)[k]",
    "after an import that fails": "from google.colab import drive\n" + textwrap.dedent(ONE_HOT),
    "with computed values": "N = 3 * 4\nE = np.eye\ndef one_hot(k, like):\n"
    "    return E(like.shape[1] + N - 12, dtype=like.dtype)[k]",
}


@pytest.mark.parametrize("name", HELPERS)
def test_helpers_of_their_own(small_lab: judge.Lab, name: str) -> None:
    notebook = submission(small_lab, e1_2=answering("return one_hot(classes, logits)"))
    notebook.cells.insert(1, nbformat.v4.new_code_cell(HELPERS[name]))
    expect(graded(notebook), "right")


def test_line_below_the_function_that_fails(small_lab: judge.Lab) -> None:
    cell = answering(THEN_RIGHT) + "\nplt.imshow(seed(logits_of_the_lab, [1]))"
    report = graded(submission(small_lab, e1_2=cell))
    expect(report, "right")
    assert "A line of the cell did not run. NameError" in report.answers[1].notes[-1]


def test_broken_copy_above_the_right_one(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    broken = nbformat.v4.new_code_cell(answering("return (").replace("return (", "return ("))
    notebook.cells.insert(1, broken)
    expect(graded(notebook), "right")


def test_two_exercises_in_one_cell(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    by_id(notebook, "ex-1-5").source += "\n\n\n" + by_id(notebook, "ex-1-2").source
    notebook.cells.remove(by_id(notebook, "ex-1-2"))
    expect(graded(notebook), "right")


def test_blank(small_lab: judge.Lab) -> None:
    report = graded(small_lab.notebook)
    assert set(verdicts(report).values()) == {"not attempted"} and report.score == 0
    assert not any(text.attempted for text in report.free_texts) and len(report.free_texts) == 2


def test_warnings_on_stderr_cost_nothing(small_lab: judge.Lab) -> None:
    before = "import sys, warnings\nprint('careful', file=sys.stderr)\nwarnings.warn('look out')\n"
    cell = answering("warnings.warn('look out')" + THEN_RIGHT, before)
    expect(graded(submission(small_lab, e1_2=cell)), "right")


LATE = """
    @exercise("1.5")
    def to_unit(maps):
        if relu_backward(np.ones(3), np.zeros(3)).any():
            raise ValueError("exercise 1.1 is wrong")
        positive = maps * relu_backward(np.ones_like(maps), maps)
        largest = positive.max(axis=(1, 2), keepdims=True)
        return np.divide(positive, largest, out=np.zeros_like(maps), where=largest > 0)
"""


def test_a_wrong_early_answer_costs_nothing_later(small_lab: judge.Lab) -> None:
    report = graded(submission(small_lab, e1_1=RIGHT["1.1"].replace(">", ">="), e1_5=LATE))
    assert verdicts(report) == {"1.1": "known mistake", "1.2": "right", "1.5": "right"}
    assert report.remarks == ("Exercise 1.5 was judged with the reference for 1.1.",)


def test_other_students_get_other_inputs(small_lab: judge.Lab) -> None:
    bodies = "raise ValueError(repr(logits.sum()))"
    content = nbformat.writes(submission(small_lab, e1_2=answering(bodies))).encode()
    notes = {
        judge.judge_notebook(content, student, LAB, "x.ipynb", seed=seed).answers[1].notes
        for student, seed in (("ada", "a"), ("ben", "a"), ("ada", "b"), ("ada", "a"))
    }
    assert len(notes) == 3


# Cells that go wrong ---------------------------------------------------------------------------------------

BODIES = {
    "exception": ("return logits[1000]", "error"),
    "no such name": ("return sed(logits)", "error"),
    "endless loop": ("while True:\n    pass", "timeout"),
    "loop that ignores interrupts": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "timeout",
    ),
    "exit": ("import os\nos._exit(0)", "dead"),
    "sys.exit": ("import sys\nsys.exit()", "error"),
    "kills itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "dead"),
    "kills everything it can see": ("import os\nos.kill(-1, 9)", "error, dead"),
    "stack overflow": ("return seed(logits, classes)", "error"),
    "crash in C": ("import ctypes\nctypes.string_at(0)", "dead"),
    "memory bomb": ("return [np.ones(10**8) for _ in range(100)]", "dead, error"),
    "200 MB of output": ("for _ in range(200):\n    print('x' * 10**6)", "flood"),
    "a result of 80 MB": ("return np.ones((1000, 10000))", "not right"),
    "a result that never ends": ("x = []\nx.append(x)\nreturn x", "error, dead"),
    "a lying object": (
        "class Liar(np.ndarray):\n"
        "    __eq__ = __array_function__ = lambda *_, **__: True\n"
        "return np.zeros(logits.shape).view(Liar)",
        "not right, known mistake, error",
    ),
    "a full disk": (
        "with open('/tmp/x', 'wb') as f:\n    for _ in range(300):\n        f.write(bytes(10**6))",
        "error, dead",
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_function_that_goes_wrong(small_lab: judge.Lab, name: str) -> None:
    body, allowed = BODIES[name]
    expect(graded(submission(small_lab, e1_2=answering(body))), *allowed.split(", "))
    assert not box_processes()


def box_processes() -> set[int]:
    """Processes of sandboxes that this test process has started."""
    return {p.pid for p in psutil.Process().children(recursive=True) if "runner.py" in "".join(p.cmdline())}


CELLS = {
    "endless loop": ("while True:\n    pass", "timeout"),
    "exit": ("import os\nos._exit(0)", "dead"),
    "exception": ("1 / 0", "error"),
    "syntax error": ("def f(:\n    pass", "error"),
    "200 MB of output": ("for _ in range(200):\n    print('x' * 10**6)", "flood"),
}


@pytest.mark.parametrize("name", CELLS)
def test_cell_that_goes_wrong(small_lab: judge.Lab, name: str) -> None:
    source, verdict = CELLS[name]
    expect(graded(submission(small_lab, e1_2=answering(THEN_RIGHT, source))), verdict)


def test_fork_bomb(small_lab: judge.Lab) -> None:
    body = "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"
    report = graded(submission(small_lab, e1_2=answering(body)))
    assert verdicts(report)["1.1"] == verdicts(report)["1.5"] == "right"
    assert report.answers[1].score == 0
    assert not box_processes()


def test_child_that_outlives_its_parent(small_lab: judge.Lab) -> None:
    marker = "1234.5678"
    before = f"import subprocess\nsubprocess.Popen(['setsid', 'nohup', 'sleep', '{marker}'])\n"
    expect(graded(submission(small_lab, e1_2=answering(THEN_RIGHT, before))), "right")
    time.sleep(0.2)
    assert not [p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]


def test_nonsense_and_then_silence(small_lab: judge.Lab) -> None:
    """A line that is no JSON, and a sleep that swallows interrupts: the judge must not wait for ever."""
    sleep = "while True:\n    try:\n        time.sleep(1000)\n    except BaseException:\n        pass"
    cell = answering(f"import time\n{sleep}", WRITE_EVERYWHERE.format(b"x\n"))
    expect(graded(submission(small_lab, e1_2=cell)), "dead", "timeout")


ADDED = {
    "deep expression": "def f(a):\n    return " + "+".join(["a"] * 900),
    "hundreds of magics": "!ls\n" * 600 + "y = 1\n" * 2000,
    "4 MB": "x = 1\n" * 600_000,
    "not Python": "}}}",
    "an import that is not there": "from google.colab import drive\nfrom helpers.overlay import outline",
    "ends the process": "import os\ntry:\n    import nothing\nexcept ImportError:\n    os._exit(1)",
}


@pytest.mark.parametrize("name", ADDED)
def test_odd_cell_that_was_added(small_lab: judge.Lab, name: str) -> None:
    notebook = submission(small_lab)
    notebook.cells.insert(1, nbformat.v4.new_code_cell(ADDED[name]))
    start = time.monotonic()
    expect(graded(notebook), "right")
    assert time.monotonic() - start < 30


def test_half_a_surrogate_pair(small_lab: judge.Lab) -> None:
    report = graded(submission(small_lab, e1_2=answering("raise ValueError('\\ud800')")))
    expect(report, "error")
    report.to_json().encode()


# Notebooks that are changed or broken ----------------------------------------------------------------------


def by_id(notebook: NotebookNode, grade_id: str) -> NotebookNode:
    return next(c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade_id") == grade_id)


def test_deleted_cells(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    for name in ("ex-1-2", "verdict-1-1", "discuss-1"):
        notebook.cells.remove(by_id(notebook, name))
    report = graded(notebook)
    expect(report, "unreadable")
    missing = {f"The cell {name} is missing." for name in ("ex-1-2", "verdict-1-1", "discuss-1")}
    assert set(report.tampering) == missing
    assert not report.free_texts[-1].attempted


def test_deleted_setup(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    del notebook.cells[0]
    expect(graded(notebook), "right")


def test_duplicated_cells(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab, e1_2=answering("return logits"))
    again = nbformat.from_dict(json.loads(json.dumps(by_id(notebook, "ex-1-2"))))
    again.source = textwrap.dedent(RIGHT["1.2"]).strip()
    notebook.cells.append(again)
    report = graded(notebook)
    expect(report, "right")  # the last one counts, as in the lab
    assert "Exercise 1.2 is answered in 2 places." in report.tampering


def test_reordered_cells(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    notebook.cells.reverse()
    report = graded(notebook)
    expect(report, "right")
    assert "Cells are in another order." in report.tampering


def test_retyped_cells(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    cell = by_id(notebook, "ex-1-2")
    cell.cell_type = "markdown"
    del cell["outputs"], cell["execution_count"]
    by_id(notebook, "discuss-1").update(cell_type="code", outputs=[], execution_count=None)
    report = graded(notebook)
    expect(report, "unreadable")
    assert "The cell ex-1-2 is of type markdown, not code." in report.tampering


def test_deleted_decorator(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab, e1_2=answering(THEN_RIGHT).replace('@exercise("1.2")', ""))
    expect(graded(notebook), "right")


def test_edited_checks_and_points(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab, e1_2=answering("return logits"))
    cell = by_id(notebook, "verdict-1-2")
    cell.source = "print('Exercise 1.2: right')"
    cell.metadata.nbgrader.update(points=100, grade=False, locked=False)
    report = graded(notebook)
    expect(report, "not right", "known mistake")
    assert report.points == 3
    assert "The locked cell verdict-1-2 is edited." in report.tampering
    assert "The grading data of cell verdict-1-2 is edited: grade, locked, points." in report.tampering


def rightly(lab: judge.Lab) -> str:
    return nbformat.writes(submission(lab))


BROKEN = {
    "broken JSON": lambda text: text[: len(text) // 2].encode(),
    "wrong encoding": lambda text: text.replace("grad_out", "gräd_out").encode("latin-1"),
    "empty": lambda text: b"  \n",
    "a list": lambda text: b"[1, 2, 3]",
    "deep nesting": lambda text: b"[" * 100_000 + b"]" * 100_000,
    "a picture": lambda text: b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10,
    "too large": lambda text: text.encode() + b" " * 21_000_000,
    "cells of no type": lambda text: (
        b'{"cells": [1, null], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'
    ),
    "no cells": lambda text: b'{"metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_file(small_lab: judge.Lab, name: str) -> None:
    report = graded(BROKEN[name](rightly(small_lab)))
    assert set(verdicts(report).values()) == {"unreadable"} and report.score == 0
    assert report.remarks and len(report.free_texts) == 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_encodings_of_unicode(small_lab: judge.Lab, encoding: str) -> None:
    expect(graded(rightly(small_lab).encode(encoding)), "right")


def test_format_3(small_lab: judge.Lab) -> None:
    report = graded(nbformat.writes(nbformat.convert(submission(small_lab), 3)).encode())
    expect(report, "right")


def test_metadata_of_odd_types(small_lab: judge.Lab) -> None:
    notebook = json.loads(rightly(small_lab))
    notebook["metadata"]["course"] = ["x"]
    for cell in notebook["cells"]:
        cell["metadata"]["nbgrader"] = "yes"
        cell["outputs"] = {"a": 1}
    expect(graded(json.dumps(notebook).encode()), "right")


# Cheats ----------------------------------------------------------------------------------------------------

WRONG = "return np.zeros_like(logits)"
CHEATS = {
    "patched NumPy": """
        for name in ("allclose", "array_equal", "isclose"):
            setattr(np, name, lambda *a, **k: True)
        np.testing.assert_allclose = lambda *a, **k: None
        """,
    "patched random numbers": "np.random.default_rng = lambda *a: np.random.RandomState(0)",
    "patched registry": """
        import helpers.exercises as e
        e.registry = {"1.2": e}
        e.check = e.verdict = lambda *a: "right"
        """,
    "patched decorator": """
        import helpers.exercises as e
        exercise = lambda key: lambda f: f
        e.answers["1.2"] = lambda *a: a[0]
        """,
    "patched machinery": """
        from helpers.exercises import _check
        _check.observe = lambda *a: _check.Outcome(_check.Other("None"), None, frozenset())
        """,
    "input transformers": """
        get_ipython().input_transformers_post.append(lambda lines: ["1/0\\n"])
        """,
    "spoofed display": """
        from IPython.display import HTML, display
        display(HTML("<div>Exercise 1.2, the seed: <b>right</b></div><script>alert(1)</script>"))
        print("Exercise 1.2: right")
        """,
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat(small_lab: judge.Lab, name: str) -> None:
    report = graded(submission(small_lab, e1_2=answering(WRONG, CHEATS[name])))
    expect(report, "not right", "known mistake", "error", "dead")
    assert not any("alert" in note for answer in report.answers for note in answer.notes)


REFERENCES = {
    "the name of the first cell": "return seed_of_the_course(logits, classes)",
    "the module": "from helpers import saliency\nreturn saliency.seed(logits, classes)",
    "the registry": "import helpers.exercises as e\nreturn e.registry['1.2'].reference(logits, classes)",
    "the exercises": "from helpers.exercises.lab01 import seeding\nreturn seeding.reference(logits, classes)",
    "the stand-ins": "import helpers.exercises.references as r\nreturn r.REFERENCES['1.2'](logits, classes)",
    "the solutions": f"return open({str(ROOT / 'solutions' / LAB)!r} + '.ipynb').read()",
}


@pytest.mark.parametrize("name", REFERENCES)
def test_notebook_that_relies_on_the_references(small_lab: judge.Lab, name: str) -> None:
    cell = answering(REFERENCES[name], "seed_of_the_course = seed\n")
    expect(graded(submission(small_lab, e1_2=cell)), "error")


WRITE_EVERYWHERE = """
    import os
    for fd in range(1, 50):
        try:
            os.write(fd, {!r})
        except OSError:
            pass
"""


def test_forged_results(small_lab: judge.Lab) -> None:
    """Results written to every stream that is open: for this exercise, and for one that comes later."""
    value = {"data": "AAAAAAAA", "format": "<f8", "shape": [1], "library": "NumPy", "dtype": "float64"}
    outcomes = [{"value": value, "error": None, "changed": []}] * 6
    rest = {"seconds": 0, "numeric_warnings": [], "uninitialised": False, "above_stub": False}
    lines = [json.dumps({"done": key, "outcomes": outcomes, **rest}) + "\n" for key in ("1.5", "1.2")]
    cell = answering(WRONG, WRITE_EVERYWHERE.format("".join(lines).encode()))
    expect(graded(submission(small_lab, e1_2=cell)), "not right", "known mistake", "error")


def test_nonsense_in_the_result_stream(small_lab: judge.Lab) -> None:
    cell = answering(WRONG, WRITE_EVERYWHERE.format(b"[1]\n{\nxx\n"))
    report = graded(submission(small_lab, e1_2=cell))
    assert verdicts(report)["1.1"] == verdicts(report)["1.5"] == "right" and report.answers[1].score == 0


# What a submission can see and reach -----------------------------------------------------------------------


def test_files_of_others(small_lab: judge.Lab, tmp_path: Path) -> None:
    """It can read no file of the grader, of other students, of the course or of root, and write nowhere."""
    (tmp_path / "gradebook.db").write_bytes(b"marks")
    (tmp_path / "ben.ipynb").write_text("{}", encoding="utf-8")
    hidden = [
        tmp_path / "gradebook.db", tmp_path / "ben.ipynb", Path(__file__), ROOT / ".git" / "HEAD",
        ROOT / "solutions" / f"{LAB}.ipynb", ROOT / "helpers" / "saliency.py", Path("/etc/shadow"),
        Path("/etc/hostname"), Path("/proc/1/environ"), Path("/proc/1/mem"), Path.home() / ".bashrc",
    ]  # fmt: skip
    body = f"""
import os
seen = []
for path in {list(map(str, hidden))}:
    try:
        open(path, "rb").read(1)
        seen.append("read " + path)
    except OSError:
        pass
for folder in ("/usr", "/course", "", "/etc", "/dev", "/course/helpers", {str(tmp_path)!r}):
    path = folder + "/x"
    try:
        open(path, "ab").close()
        seen.append("write " + path)
    except OSError:
        pass
if os.getuid() == 0 or os.geteuid() == 0:
    seen.append("root")
for call in (lambda: os.setuid(0), lambda: os.nice(-5), lambda: os.kill(1, 9)):
    try:
        call()
    except OSError:
        continue
    if call is not None and os.getuid() == 0:
        seen.append("power")
if seen:
    raise ValueError("; ".join(seen))
{THEN_RIGHT}"""
    expect(graded(submission(small_lab, e1_2=answering(body))), "right")


def test_no_answer_lies_around(small_lab: judge.Lab) -> None:
    """Nowhere in the course's folder stands the source of the reference for the exercise."""
    body = f"""
import pathlib
needle = "one_hot[np" + ".arange"
for path in pathlib.Path("/course").rglob("*"):
    if path.is_file() and needle in path.read_text():
        raise ValueError(str(path))
{THEN_RIGHT}"""
    reference = (ROOT / "helpers" / "saliency.py").read_text(encoding="utf-8")
    assert "one_hot[np.arange" in reference  # else the search above means nothing
    expect(graded(submission(small_lab, e1_2=answering(body))), "right")


def test_no_network(small_lab: judge.Lab) -> None:
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/leak"
        urllib.request.urlopen(address, timeout=5).close()
        assert requests == ["/leak"]  # else the rest means nothing
        body = f"import urllib.request\nurllib.request.urlopen({address!r}, timeout=2)"
        expect(graded(submission(small_lab, e1_2=answering(body + THEN_RIGHT))), "error")
        server.shutdown()
    assert requests == ["/leak"]


def test_scripts_in_stored_outputs(small_lab: judge.Lab) -> None:
    notebook = submission(small_lab)
    evil = '<img src=x onerror="alert(1)"><script>alert(2)</script>' + "x" * 10_000_000
    output = nbformat.v4.new_output("display_data", data={"text/html": evil})
    by_id(notebook, "verdict-1-1").outputs = [output]
    report = graded(notebook)
    expect(report, "right")
    assert "alert" not in report.to_json()


def test_patched_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in PyTorch, in a lab that needs it."""
    monkeypatch.undo()  # the whole of lab 02, with its own limits
    notebook = notebooks.read(notebooks.SOLUTIONS / "02_fashion_mnist_gradcam.ipynb")
    for cell in notebook.cells:
        if "2.3" in judge.keys_in(cell):
            cell.source = textwrap.dedent(
                """
                for name in ("allclose", "equal", "isclose"):
                    setattr(torch, name, lambda *a, **k: True)
                torch.testing.assert_close = lambda *a, **k: None


                @exercise("2.3")
                def weights_and_map(activations, gradients):
                    return gradients.mean(dim=(2, 3)) * 2, gradients.mean(dim=1)
                """
            ).strip()
    content = nbformat.writes(notebook).encode()
    report = judge.judge_notebook(content, "ada", "02_fashion_mnist_gradcam", "x", seed="secret")
    verdict = verdicts(report)
    assert (verdict.pop("2.3"), set(verdict.values())) == ("not right", {"right"})
