"""`submit`: the file to hand in, what is said about it, and that the student's notebook stays as it is."""

import copy
import json
import re
import sys
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nbformat
import pytest

from helpers.course import __main__ as command_line
from helpers.course import notebooks, release, submit
from helpers.course.submit import SubmitError, stamp_of, stamped

NAME = "00_sample.ipynb"
NOW = datetime(2026, 11, 21, 23, 10, 5, tzinfo=UTC)


@pytest.fixture
def root(tmp_path, sample, registry) -> Path:
    """A course with one lab, its notebook in work/ answered."""
    solutions = tmp_path / "solutions"
    solutions.mkdir()
    nbformat.write(sample, solutions / NAME)
    release.release(solutions, tmp_path / "labs", registry)
    work = tmp_path / "work"
    work.mkdir()
    lab = json.loads((tmp_path / "labs" / NAME).read_text(encoding="utf-8"))
    for number in (2, 4):
        lab["cells"][number]["source"] = sample.cells[number].source.splitlines(keepends=True)
    lab["cells"][7]["source"] = "Because."
    (work / NAME).write_text(json.dumps(lab), encoding="utf-8")
    return tmp_path


@pytest.fixture
def hand_in(root, capsys):
    """`hand_in(lab, name=..., ...)`: submit, and return the file and what was printed."""

    def call(lab: str = "00", **options: object) -> tuple[Path, str]:
        plain = {"name": "Ada Lovelace", "out": None, "no_run": True, "anyway": False, "minutes": 5.0}
        capsys.readouterr()
        path = submit.submit(Namespace(lab=lab, **{**plain, **options}), root)
        return path, capsys.readouterr().out

    return call


@pytest.fixture
def edit(root):
    """`edit(change)`: change the student's notebook, as JSON."""

    def call(change) -> None:
        path = root / "work" / NAME
        notebook = json.loads(path.read_text(encoding="utf-8"))
        change(notebook)
        path.write_text(json.dumps(notebook), encoding="utf-8")

    return call


def test_the_file_to_hand_in(root, hand_in):
    before = (root / "work" / NAME).read_bytes()
    path, said = hand_in()
    assert path.parent == root / "work" / "hand_in"
    assert re.fullmatch(r"00_sample-ada_lovelace-\d{8}T\d{4}\.ipynb", path.name)
    assert (root / "work" / NAME).read_bytes() == before
    made, mine = json.loads(path.read_bytes()), json.loads(before)
    stamp = stamp_of(made)
    assert (stamp.name, stamp.intact, stamp.release) == (
        "Ada Lovelace",
        True,
        made["metadata"]["course"]["release"],
    )
    assert timedelta() <= datetime.now(UTC) - stamp.time < timedelta(minutes=1)
    del made["metadata"]["course"]["submission"]
    assert made == mine
    nbformat.validate(nbformat.reads(path.read_text(encoding="utf-8"), as_version=4))
    assert f"{NAME}: lab 00_sample, release {stamp.release}, the current one." in said
    assert "All is there: exercises 0.1, 0.2; answers why." in said
    assert "Not attempted" not in said
    assert "Upload this one file. Your own notebook is as it was" in said


def test_again_makes_another_file(root, hand_in, monkeypatch):
    monkeypatch.setattr(submit, "file_name", lambda stem, name, when: f"{stem}.ipynb")
    paths = [hand_in()[0] for _ in range(3)]
    assert [path.name for path in paths] == ["00_sample.ipynb", "00_sample-2.ipynb", "00_sample-3.ipynb"]
    first = paths[0].read_bytes()
    with pytest.raises(SubmitError, match="is there already; give another name, nothing is overwritten"):
        hand_in(out=paths[0])
    assert paths[0].read_bytes() == first
    assert hand_in(out=root / "new" / "mine.ipynb")[0] == root / "new" / "mine.ipynb"
    assert hand_in(out=root)[0] == root / "00_sample.ipynb"


def test_half_a_file_is_not_left(tmp_path):
    with pytest.raises(TypeError):
        submit.write_new(tmp_path / "a.ipynb", "text")  # fails while writing
    assert list(tmp_path.iterdir()) == []


PLACES = {
    "number": "00",
    "short number": "0",
    "stem": "00_sample",
    "file": NAME,
    "path": "{root}/work/" + NAME,
    "the lab itself": "{root}/labs/" + NAME,
}


@pytest.mark.parametrize("lab", PLACES.values(), ids=PLACES)
def test_which_notebook_is_meant(lab, root, hand_in):
    assert "Not attempted" not in hand_in(lab.format(root=root))[1]  # so it is the one in work/


def test_a_notebook_of_another_name_elsewhere(root, hand_in):
    (root / "work" / NAME).rename(root / "mine.ipynb")
    path, _ = hand_in(str(root / "mine.ipynb"))
    assert path.parent == root / "hand_in" and path.name.startswith("00_sample-ada_lovelace-")
    with pytest.raises(SubmitError, match="work/00_sample.ipynb is not there; if yours has another name"):
        hand_in()


@pytest.mark.parametrize("lab", ["07", "nowhere.ipynb", "elsewhere/00_sample.ipynb"])
def test_no_such_lab(lab, hand_in):
    with pytest.raises(SubmitError, match=f"There is no notebook {lab}; .* one of the labs: 00_sample"):
        hand_in(lab)


UNREADABLE = {
    "empty": (b" \n", "is empty; look for an older state in .ipynb_checkpoints"),
    "torn": (b'{"cells": [', "is damaged .line 1 is not JSON."),
    "deep": (b"[" * 100_000, "is damaged .too deep is not JSON."),
    "encoding": ('{"a": "ä"}'.encode("utf-16"), "is not UTF-8 text"),
    "list": (b"[]", "is JSON but not a notebook"),
    "old": (b'{"nbformat": 3, "worksheets": []}', "is not in notebook format 4"),
    "no cells": (b'{"nbformat": 4, "metadata": {}}', "is JSON but not a notebook"),
    "odd cell": (b'{"nbformat": 4, "metadata": {}, "cells": [3]}', "is JSON but not a notebook"),
    "odd source": (
        b'{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {}, "source": [1]}]}',
        "is JSON but not a notebook",
    ),
    "another course": (
        b'{"nbformat": 4, "metadata": {"course": {"lab": "77"}}, "cells": []}',
        "no lab of this",
    ),
}


@pytest.mark.parametrize("content, sentence", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_handed_in(content, sentence, root, hand_in):
    (root / "work" / NAME).write_bytes(content)
    with pytest.raises(SubmitError, match=f"00_sample.ipynb .*{sentence}"):
        hand_in()
    assert not (root / "work" / "hand_in").exists()


def test_a_notebook_without_metadata_is_known_by_its_name(root, hand_in, edit):
    edit(lambda notebook: notebook["metadata"].clear())
    assert "without a release id, so from an older course. It is taken all the same." in hand_in()[1]


def test_an_older_release_is_taken(root, hand_in, edit):
    edit(lambda notebook: notebook["metadata"]["course"].update(release="0123456789"))
    path, said = hand_in()
    current = json.loads((root / "labs" / NAME).read_text(encoding="utf-8"))["metadata"]["course"]["release"]
    assert f"release 0123456789; the course is at {current} now. Yours is taken all the same." in said
    assert stamp_of(json.loads(path.read_bytes())).release == "0123456789"


def drop(index):
    return lambda notebook: notebook["cells"].pop(index)


def double(index):
    return lambda notebook: notebook["cells"].append(copy.deepcopy(notebook["cells"][index]))


def put(index, **fields):
    return lambda notebook: notebook["cells"][index].update(fields)


BROKEN = {
    "exercise gone": (drop(2), "! Exercise 0.1 is missing; copy it from labs/00_sample.ipynb"),
    "exercise doubled": (double(2), "! Exercise 0.1 is there 2 times, in cells 3 and 9; keep one of them."),
    "decorator gone": (
        put(2, source="def double(x):\n    return 2 * x"),
        '! Exercise 0.1: cell 3 does not begin with @exercise("0.1") any more; write that line back',
    ),
    "retyped": (
        put(2, cell_type="markdown"),
        "! Exercise 0.1: cell 3 is not a code cell any more; select it, press Esc and then Y.",
    ),
    "answer gone": (drop(7), "! Answer why is missing; copy it from labs/00_sample.ipynb"),
    "answer doubled": (double(7), "! Answer why is there 2 times, in cells 8 and 9; keep one of them."),
    "answer retyped": (
        put(7, cell_type="code"),
        "! Answer why: cell 8 is not a Markdown cell any more; select it, press Esc and then M.",
    ),
    "settings gone": (lambda notebook: notebook["cells"][7]["metadata"].clear(), "! Answer why is missing"),
}


@pytest.mark.parametrize("change, sentence", BROKEN.values(), ids=BROKEN)
def test_missing_and_doubled_cells(change, sentence, root, hand_in, edit, capsys):
    edit(change)
    with pytest.raises(SubmitError, match="Nothing was made. Mend this, or add --anyway"):
        hand_in()
    assert sentence in capsys.readouterr().out
    path, said = hand_in(anyway=True)
    assert sentence in said and path.exists()


def test_an_exercise_without_its_settings_is_still_there(hand_in, edit):
    edit(lambda notebook: [cell["metadata"].clear() for cell in notebook["cells"][2:6]])
    assert "All is there: exercises 0.1, 0.2; answers why." in hand_in()[1]


@pytest.mark.parametrize("text", ["", " \n", "YOUR ANSWER HERE\n"], ids=["empty", "white", "as it was"])
def test_what_is_not_attempted_is_listed(text, root, hand_in, edit):
    lab = json.loads((root / "labs" / NAME).read_text(encoding="utf-8"))
    stub = "".join(lab["cells"][4]["source"])
    edit(put(4, source=stub.replace("    # YOUR CODE HERE", "\n    # later").splitlines(keepends=True)))
    edit(put(7, source=text))
    assert "Not attempted: exercises 0.2; answers why." in hand_in()[1]


def test_outputs_are_left_out_above_the_limit(hand_in, edit, monkeypatch):
    output = {"output_type": "stream", "name": "stdout", "text": "x" * 50_000}
    edit(put(6, outputs=[output], execution_count=3))
    edit(lambda notebook: notebook["metadata"].update(widgets={"a": "b"}))
    path, said = hand_in()
    assert json.loads(path.read_bytes())["cells"][6]["outputs"] == [output]
    assert "with its outputs" in said
    monkeypatch.setattr(submit, "SIZE_LIMIT", 40_000)
    path, said = hand_in()
    made = json.loads(path.read_bytes())
    assert made["cells"][6]["outputs"] == [] and "widgets" not in made["metadata"]
    assert stamp_of(made).intact
    assert path.stat().st_size < 40_000 and "without outputs, because with them it has" in said
    monkeypatch.setattr(submit, "GRADERS_LIMIT", 1000)
    with pytest.raises(SubmitError, match="Even without outputs it has"):
        hand_in()


def test_the_name(root, hand_in, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(SubmitError, match="Say who you are: add --name 'Ada Lovelace'"):
        hand_in(name=None)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "  Zoe\u0308\t Mu\u0308ller ")
    path, _ = hand_in(name=None)
    assert stamp_of(json.loads(path.read_bytes())).name == "Zo\u00eb M\u00fcller"
    assert path.name.startswith("00_sample-zo\u00eb_m\u00fcller-")
    for name, sentence in {"../..": "has no letter", "": "has no letter", "a" * 81: "more than 80"}.items():
        with pytest.raises(SubmitError, match=sentence):
            hand_in(name=name)


SLUGS = {"Ada Lovelace": "ada_lovelace", "../../etc": "etc", "O'Brien, Anne-Marie": "o_brien_anne-marie",
         "s123@uni.edu": "s123@uni.edu", "\u674e \u96f7": "\u674e_\u96f7", "con/..\\x": "con_.._x", "_.-": "",
         "ADA": "ada", "x" * 300: "x" * 80}  # fmt: skip


@pytest.mark.parametrize("name", SLUGS, ids=lambda name: name[:20])
def test_slugs(name):
    assert submit.slug(name) == SLUGS[name]
    assert submit.slug(SLUGS[name]) == SLUGS[name]


def test_the_stamp_notices_edits(root):
    notebook = json.loads((root / "work" / NAME).read_text(encoding="utf-8"))
    made = stamped(notebook, "Ada", NOW)
    assert stamp_of(notebook) is None
    assert stamp_of(made) == submit.Stamp("Ada", NOW, notebook["metadata"]["course"]["release"], True)
    for key, value in {"name": "Bob", "time": "2026-11-20T00:00:00Z", "release": "x", "sha256": ""}.items():
        edited = copy.deepcopy(made)
        edited["metadata"]["course"]["submission"][key] = value
        assert not stamp_of(edited).intact, key
    edited = copy.deepcopy(made)
    edited["cells"][2]["source"] = "x"
    assert not stamp_of(edited).intact
    shown = copy.deepcopy(made)
    shown["cells"][6]["outputs"] = [{"output_type": "stream"}]
    shown["cells"][2]["source"] = "".join(shown["cells"][2]["source"])
    assert stamp_of(shown).intact


@pytest.mark.parametrize(
    "odd", [None, [], 3, {"name": 1}, {"name": "a", "release": "", "time": "noon"}], ids=str
)
def test_odd_stamps(odd):
    assert stamp_of({"metadata": {"course": {"submission": odd}}, "cells": []}) is None
    assert stamp_of({"metadata": odd}) is None


# --------------------------------------------------------------------------- running it

STUDENTS = '''
from helpers.exercises import exercise
@exercise("1.1")
def relu_backward(grad_out, x):
    """Mine."""
    return grad_out * (x > 0)
'''.strip()
HALF = STUDENTS.replace("1.1", "1.5").replace("relu_backward(grad_out, x)", "to_unit(maps)").replace(
    "return grad_out * (x > 0)", "raise NotImplementedError()"
)  # fmt: skip


def code(*sources: str) -> dict:
    cells = [
        {"cell_type": "code", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
        for source in sources
    ]
    metadata = {"kernelspec": notebooks.KERNELSPEC}
    return {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}


def test_a_run_from_top_to_bottom(tmp_path):
    (tmp_path / "data.txt").write_text("mine", encoding="utf-8")
    setting = "import os; assert os.environ['LABS_DATA_SOURCE'] == 'embedded'; assert open('data.txt').read()"
    notebook = code(setting, STUDENTS, HALF, "raise\\\n KeyError('gone')", "never()")
    before = copy.deepcopy(notebook)
    result = submit.run(notebook, tmp_path, 5)
    assert result.error == "Cell 4 (raise\\) raised KeyError: 'gone'"
    assert result.statuses == {"1.1": "right", "1.5": "not attempted"}
    assert notebook == before
    assert list(submit._run_sentences(result)) == [
        f"  ! {result.error}. It is made all the same: mend it if you can, and hand in again.",
        "  right: 1.1",
        "  not attempted: 1.5",
    ]


def test_a_run_that_ends_badly(tmp_path, monkeypatch):
    assert submit.run(code("", "import os; os._exit(3)"), tmp_path, 5).error == (
        "Cell 2 (import os; os._exit(3)) ended the kernel"
    )
    result = submit.run(code("while True: pass"), tmp_path, 0.02)
    assert result.error == "After 0.02 minutes cell 1 (while True: pass) still ran"
    assert result.seconds < 30
    broken = code("1")
    monkeypatch.setattr(
        "nbclient.NotebookClient.execute", lambda *_, **__: (_ for _ in ()).throw(OSError("no"))
    )
    assert (
        "The kernel could not run it (OSError: no); `python -m helpers.course doctor`"
        in submit.run(broken, tmp_path, 5).error
    )


def test_what_is_said_of_a_run(root, hand_in, monkeypatch):
    seen = []

    def run(notebook, folder, minutes):
        seen.append((folder, minutes))
        return submit.Run(12.4, "", {"0.1": "right", "0.2": "not right yet"})

    monkeypatch.setattr(submit, "run", run)
    _, said = hand_in(no_run=False)
    assert seen == [(root / "work", 5.0)]
    assert "Running it from top to bottom, 5 minutes at most ..." in said
    assert "It ran without an error, in 12 s.\n  right: 0.1\n  not right yet: 0.2\n" in said


# --------------------------------------------------------------------------- the command


def test_command_line(root, monkeypatch, capsys):
    monkeypatch.setattr(submit.submit, "__defaults__", (root,))
    monkeypatch.chdir(root)
    assert command_line.main(["submit", "00", "--name", "Ada", "--no-run", "--out", "mine.ipynb"]) == 0
    assert "Made mine.ipynb (" in capsys.readouterr().out
    assert command_line.main(["submit", "99", "--name", "Ada"]) == 1
    assert capsys.readouterr().out == "There is no notebook 99; give a path, or one of the labs: 00_sample.\n"

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(submit, "run", interrupted)
    assert command_line.main(["submit", "00", "--name", "Ada"]) == 1
    assert "Stopped; nothing was made." in capsys.readouterr().out
    (root / "file").touch()
    arguments = ["submit", "00", "--name", "Ada", "--no-run", "--out", "file/mine.ipynb"]
    assert command_line.main(arguments) == 1
    assert "could not be written" in capsys.readouterr().out


def test_a_notebook_that_may_not_be_read(root, hand_in, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(SubmitError, match=r"00_sample.ipynb cannot be read \(Permission denied\)"):
        hand_in()


def test_a_real_lab_has_all_its_exercises():
    path = sorted(notebooks.LABS.glob("*.ipynb"))[0]
    lab = submit.read(path)
    found = submit.contents(lab, lab, path.name)
    assert found.broken == ()
    assert len(found.unattempted) == len(found.exercises) + len(found.answers)
    assert set(found.exercises) >= {"1.1", "1.10"} and set(found.answers) >= {"transfer", "discuss-1"}
