"""The writer of scores: nbgrader's gradebook, the tables made from it, and what people add by hand."""

import csv
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook
from nbgrader.dbutil import ALEMBIC_DIR

from helpers.course import notebooks
from helpers.course.grading import gradebook
from helpers.course.grading.gradebook import Book, BookError
from helpers.course.grading.report import Answer, FreeText, Report

ROOT = Path(__file__).parents[1]
ONE, TWO = "01_numpy_saliency", "02_fashion_mnist_gradcam"
RIGHT = "def relu(x):\n    return x * (x > 0)"
HOSTILE = (
    "My answer: the background.\n\n<script>alert('planted')</script>\n<img src=x onerror=alert(1)>\n\n"
    "[click](javascript:alert(2)) <javascript:alert(3)> $\\href{javascript:alert(4)}{x}$\n\n</pre>"
    "<svg/onload=alert(5)>\n```\n</pre>\n<iframe srcdoc=x></iframe>\n"
)


@lru_cache
def marked_cells(lab: str) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(ROOT / "labs" / f"{lab}.ipynb", as_version=4).cells
    return [cell for cell in cells if cell.metadata.get("nbgrader", {}).get("grade")]


def report(student: str, lab: str, *, score: float = 1.0, texts: dict[str, str] | None = None) -> Report:
    """A report with the same score for every exercise, and the free answers of `texts`."""
    answers, free = [], []
    for cell in marked_cells(lab):
        mark = cell.metadata.nbgrader
        name, points = mark["grade_id"], mark["points"]
        if mark["solution"]:
            given = (texts or {}).get(name)
            source = cell.source if given is None else given
            free.append(FreeText(name, "Why?", points, cell.cell_type, source, given is not None))
        else:
            key = name.removeprefix("verdict-").replace("-", ".")
            verdict, notes = ("right", ("Well done.",)) if score == points else ("not right", ("Look at 0.",))
            answers.append(Answer(key, name, "A title", points, score, verdict, notes, source=RIGHT))
    return Report(student, lab, f"{student}/{lab}.ipynb", "0" * 64, "", tuple(answers), tuple(free))


def without(full: Report, *names: str) -> Report:
    """A report that says nothing about these cells."""
    return replace(
        full,
        answers=tuple(item for item in full.answers if item.grade_id not in names),
        free_texts=tuple(item for item in full.free_texts if item.grade_id not in names),
    )


@pytest.fixture
def where(tmp_path) -> Path:
    return tmp_path / "gradebook.db"


def stored(where: Path) -> dict[str, list]:
    """Everything in the database."""
    with sqlite3.connect(where) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        return {name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr) for name in names}


def by_hand(where: Path, student: str, lab: str, name: str, **values: object) -> None:
    """Do what the form grader does with a grade."""
    with Gradebook(f"sqlite:///{where}") as theirs:
        grade = theirs.find_grade(name, lab, lab, student)
        for key, value in values.items():
            setattr(grade, key, value)
        grade.needs_manual_grade = grade.manual_score is None and grade.auto_score is None
        theirs.db.commit()


def grade(where: Path, student: str, lab: str, name: str) -> dict:
    with Gradebook(f"sqlite:///{where}") as theirs:
        return theirs.find_grade(name, lab, lab, student).to_dict()


def standing(book: Book, student: str, lab: str) -> gradebook.Standing:
    return next(row for row in book.grades() if (row.student, row.lab) == (student, lab))


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")))


def fill_in(path: Path, values: dict[tuple[str, str], dict[str, str]]) -> None:
    """Fill in rows of a manual.csv: (student, grade_id) -> column -> value."""
    table = rows(path)
    for row in table:
        row.update(values.get((row["student"], row["grade_id"]), {}))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)


# --------------------------------------------------------------------------- from reports


def test_nbgrader_reads_what_was_written(where):
    with Book.open(where) as book:
        book.write(
            report("ada", ONE, texts={"discuss-1": "Because."}),
            received=datetime(2026, 11, 20, 23, 30, tzinfo=UTC),
            late=0.8,
        )
        book.write(report("ada", TWO))
        book.write(report("bob", ONE, score=0.5))
    with Gradebook(f"sqlite:///{where}") as theirs:
        ada = theirs.find_submission(ONE, "ada")
        assert (ada.score, ada.max_score, ada.needs_manual_grade) == (10, 20, True)
        assert ada.late_submission_penalty == pytest.approx(2)
        assert ada.timestamp == datetime(2026, 11, 20, 23, 30)
        assert theirs.find_submission(TWO, "ada").needs_manual_grade is False
        assert theirs.find_submission(ONE, "bob").score == 5
        assert theirs.find_comment("ex-1-3", ONE, ONE, "bob").auto_comment == "Look at 0."
        assert theirs.find_comment("discuss-2", ONE, ONE, "ada").auto_comment == "No response."
        assert theirs.find_comment("discuss-1", ONE, ONE, "ada").auto_comment is None
        found = {item.name: item.cell_type for item in theirs.find_notebook(ONE, ONE).grade_cells}
        assert found["verdict-1-10"] == found["transfer"] == "code" and found["discuss-3"] == "markdown"
    asked = grade(where, "ada", ONE, "discuss-1")
    assert (asked["auto_score"], asked["needs_manual_grade"]) == (None, True)
    silent = grade(where, "ada", ONE, "discuss-2")
    assert (silent["auto_score"], silent["needs_manual_grade"]) == (0, False)


def test_a_second_time_changes_nothing(where):
    def write_all() -> None:
        with Book.open(where) as book:
            for student in ("ada", "bob"):
                for lab in (ONE, TWO):
                    received = datetime(2026, 11, 20, tzinfo=UTC)
                    book.write(report(student, lab, texts={"transfer": "x"}), received=received, late=0.9)

    write_all()
    by_hand(where, "ada", ONE, "transfer", manual_score=3.0)
    write_all()
    before = stored(where)
    write_all()
    assert stored(where) == before


def test_regrading_keeps_what_people_gave(where):
    with Book.open(where) as book:
        book.write(report("ada", ONE, score=0, texts={"discuss-1": "Because."}))
    by_hand(where, "ada", ONE, "discuss-1", manual_score=1.5, extra_credit=0.5)
    by_hand(where, "ada", ONE, "verdict-1-4", manual_score=0.75)
    with Gradebook(f"sqlite:///{where}") as theirs:
        theirs.find_comment("discuss-1", ONE, ONE, "ada").manual_comment = "Nice."
        theirs.db.commit()
    with Book.open(where) as book:
        book.write(report("ada", ONE, score=1, texts={"discuss-1": "Because."}), late=0.5)
        has = standing(book, "ada", ONE)
    assert (has.score, has.manual, has.total, has.waiting) == (9 + 0.75 + 2, 2.75, 5.875, ())
    corrected = grade(where, "ada", ONE, "verdict-1-4")
    assert (corrected["auto_score"], corrected["manual_score"]) == (1, 0.75)
    with Gradebook(f"sqlite:///{where}") as theirs:
        assert theirs.find_comment("discuss-1", ONE, ONE, "ada").comment == "Nice."
        assert theirs.find_submission(ONE, "ada").late_submission_penalty == pytest.approx(5.875)


def test_a_changed_answer_asks_for_another_look_until_somebody_had_one(where):
    def write(answer: str) -> tuple[float, tuple[str, ...]]:
        with Book.open(where) as book:
            book.write(report("ada", ONE, texts={"discuss-1": answer}))
            has = standing(book, "ada", ONE)
        return has.manual, has.waiting

    assert write("First.") == (0, ("discuss-1",))
    by_hand(where, "ada", ONE, "discuss-1", manual_score=2.0)
    assert write("First.") == (2, ())
    assert write("Second.") == (2, ("discuss-1",))
    assert write("Second.") == (2, ("discuss-1",))
    by_hand(where, "ada", ONE, "discuss-1")  # the button "Resolve"
    assert write("Second.") == (2, ())
    assert write("First.") == (2, ("discuss-1",))


def test_a_score_belongs_to_the_answer_that_the_form_grader_showed(where, tmp_path):
    """Somebody grades what was staged, while a later version was written without staging it."""
    with Book.open(where) as book:
        book.write(report("ada", ONE, texts={"discuss-1": "First."}))
        book.stage(tmp_path / "course")
        book.write(report("ada", ONE, texts={"discuss-1": "Second."}))
        by_hand(where, "ada", ONE, "discuss-1", manual_score=2.0)
        assert standing(book, "ada", ONE).waiting == ("discuss-1",)
        by_hand(where, "ada", ONE, "discuss-1")
        assert standing(book, "ada", ONE).waiting == ("discuss-1",)  # the page was still the old one
        book.stage(tmp_path / "course")
        by_hand(where, "ada", ONE, "discuss-1")
        assert standing(book, "ada", ONE).waiting == ()


@pytest.mark.parametrize("case", ["unreadable", "vanished"])
def test_no_automatic_score_outlives_its_exercise(where, case):
    full = report("ada", ONE)
    gone = {item.grade_id for item in (*full.answers, *full.free_texts)}
    if case == "vanished":
        gone = {"verdict-1-2", "discuss-1"}
    with Book.open(where) as book:
        book.write(full)
        assert standing(book, "ada", ONE).score == 10
        book.write(without(full, *gone))
        has = standing(book, "ada", ONE)
    assert has.score == (9 if case == "vanished" else 0)
    assert set(has.waiting) == gone
    assert grade(where, "ada", ONE, "verdict-1-2")["auto_score"] is None
    with Gradebook(f"sqlite:///{where}") as theirs:
        assert theirs.find_comment("ex-1-2", ONE, ONE, "ada").comment == gradebook.MISSING


def changed_labs(folder: Path, change) -> Path:
    """A folder with lab 01 after `change(cells by grade_id, notebook)`."""
    notebook = nbformat.read(ROOT / "labs" / f"{ONE}.ipynb", as_version=4)
    marked = {c.metadata.nbgrader.grade_id: c for c in notebook.cells if "nbgrader" in c.metadata}
    change(marked, notebook)
    notebooks.write(folder / f"{ONE}.ipynb", notebooks.text_of(notebook))
    return folder


def test_no_automatic_score_outlives_its_points(where, tmp_path):
    def double(marked, notebook):
        marked["verdict-1-2"].metadata.nbgrader.points = 2

    labs = changed_labs(tmp_path / "labs", double)
    new = report("ada", ONE)
    new = replace(new, answers=tuple(replace(a, points=2) if a.key == "1.2" else a for a in new.answers))
    with Book.open(where) as book:
        for student in ("ada", "bob", "eve"):
            book.write(report(student, ONE), late=0.5)
    by_hand(where, "bob", ONE, "verdict-1-2", manual_score=0.5)
    with Book.open(where, labs=labs) as book:
        book.write(new)
        assert [standing(book, name, ONE).score for name in ("ada", "bob", "eve")] == [10, 9.5, 9]
        assert standing(book, "ada", ONE).waiting == ()
        assert standing(book, "bob", ONE).waiting == ("verdict-1-2",)  # given out of 1 point, kept
        assert standing(book, "eve", ONE).waiting == ("verdict-1-2",)
        assert standing(book, "eve", ONE).maximum == 21
        book.write(replace(new, student="bob"), late=0.5)
        assert standing(book, "bob", ONE).waiting == ("verdict-1-2",)
        by_hand(where, "bob", ONE, "verdict-1-2")  # the button "Resolve"
        book.write(replace(new, student="bob"), late=0.5)
        assert standing(book, "bob", ONE).waiting == ()
        with pytest.raises(BookError, match="does not fit the lab's cells and points as they are now; grade"):
            book.write(report("eve", ONE))
    with Gradebook(f"sqlite:///{where}") as theirs:
        assert theirs.find_submission(ONE, "eve").late_submission_penalty == 4.5


def test_cells_may_leave_and_join_a_lab(where, tmp_path):
    def without_two(marked, notebook):
        notebook.cells = [c for c in notebook.cells if c not in (marked["ex-1-2"], marked["verdict-1-2"])]

    with Book.open(where) as book:
        book.write(report("ada", ONE))
    by_hand(where, "ada", ONE, "verdict-1-2", manual_score=0.5)
    with Book.open(where, labs=changed_labs(tmp_path / "labs", without_two)) as book:
        book.write(without(report("ada", ONE), "verdict-1-2"))
        has = standing(book, "ada", ONE)
        assert (has.score, has.maximum) == (9, 19)
        lost = [change for change in book.log("ada") if change.by == "cell gone from the lab"]
        assert [(c.grade_id, c.what, c.old, c.new) for c in lost] == [
            ("verdict-1-2", "automatic score", 1, None),
            ("verdict-1-2", "manual score", 0.5, None),
        ]
        book.write(without(report("bob", ONE), "verdict-1-2"))
    with Book.open(where) as book:
        book.write(report("ada", ONE))
        assert standing(book, "ada", ONE).score == 10
        assert standing(book, "bob", ONE).waiting == ("verdict-1-2",)


def test_a_crash_leaves_no_half(where, monkeypatch):
    with Book.open(where) as book:
        book.write(report("ada", ONE, score=0))
        before = stored(where)

        def broken(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(gradebook, "_deduct", broken)
        with pytest.raises(KeyboardInterrupt):
            book.write(report("ada", ONE, score=1))
        assert stored(where) == before
        monkeypatch.undo()
        book.write(report("ada", ONE, score=1))
        assert standing(book, "ada", ONE).score == 10


def test_every_change_is_logged(where, tmp_path):
    with Book.open(where) as book:
        book.write(report("ada", ONE, score=0, texts={"discuss-1": "x"}))
        book.write(report("bob", ONE, score=0))
        start = len(book.log())
        by_hand(where, "ada", ONE, "discuss-1", manual_score=1.0)
        book.write(report("ada", ONE, score=1, texts={"discuss-1": "x"}), late=0.5, by="appeal")
        changes = book.log()[start:]
        assert [(c.student, c.grade_id, c.what, c.old, c.new, c.by) for c in changes] == [
            ("ada", "discuss-1", "manual score", None, 1, "form grader"),
            ("ada", "", "late factor", 1, 0.5, "appeal"),
            *(("ada", f"verdict-1-{n}", "automatic score", 0, 1, "appeal") for n in range(1, 11)),
        ]
        assert {change.student for change in book.log("bob")} == {"bob"}
        book.write_log(tmp_path / "log.csv")
        assert rows(tmp_path / "log.csv")[start]["new"] == "1"
        assert len(rows(tmp_path / "log.csv")) == len(book.log())


def test_a_name_that_is_no_name_is_refused(where):
    names = [
        "",
        " ada",
        "../ada",
        "a/b",
        "a\\b",
        "..",
        "<img src=x onerror=alert(1)>",
        'a"b',
        "a\nb",
        "x" * 129,
    ]
    with Book.open(where) as book:
        for name in names:
            with pytest.raises(BookError, match="give the student another one in the mapping file"):
                book.write(report(name, ONE))
        book.write(report("Zoë O'Hara, 李 (zoe+1@uni.example)", ONE))
    assert len(stored(where)["student"]) == 1


def test_a_report_that_makes_no_sense_is_refused(where):
    good = report("ada", ONE)
    first, *others = good.answers
    bad = {
        "grade this submission again": replace(good, answers=(replace(first, score=1.5), *others)),
        "gives nan of 1 points": replace(good, answers=(replace(first, score=float("nan")), *others)),
        "does not fit": replace(good, answers=(first, first, *others)),
        "There is no lab": replace(good, lab="../labs/" + ONE),
    }
    with Book.open(where) as book:
        for sentence, wrong in bad.items():
            with pytest.raises(BookError, match=sentence):
                book.write(wrong)
        with pytest.raises(BookError, match="factor for being late is 1.2 for ada; give 0 to 1"):
            book.write(good, late=1.2)
        assert book.grades() == []


def test_a_report_of_another_version_is_asked_for_again(where, tmp_path):
    with Book.open(where) as book:
        book.write(report("ada", ONE, texts={"discuss-1": "x"}))
        with closing(sqlite3.connect(where)) as other:
            other.execute("UPDATE course_submission SET report = '{}'")
            other.commit()
        with pytest.raises(BookError, match=f"The report on {ONE} by ada was stored by another version"):
            book.write_manual(tmp_path / "manual.csv")
        assert not (tmp_path / "manual.csv").exists()


def test_text_that_no_database_takes_is_written_all_the_same(where, tmp_path):
    odd = "half a pair \ud83d, a zero \x00, a bell \x07."
    full = report("ada", ONE, texts={"discuss-1": odd})
    first, *others = full.answers
    notes = (f"It says: {odd} <script>x</script> [a](javascript:x)",)
    with Book.open(where) as book:
        book.write(replace(full, answers=(replace(first, notes=notes, source=odd), *others)))
        assert book.write_manual(tmp_path / "manual.csv") == 1
        book.stage(tmp_path / "course")
        assert book.read_manual(tmp_path / "manual.csv") == 0
    with Gradebook(f"sqlite:///{where}") as theirs:
        comment = theirs.find_comment("ex-1-1", ONE, ONE, "ada").comment
    assert comment.startswith("It says: half a pair ?, a zero , a bell .")
    assert "<script" not in comment and "](" not in comment


# --------------------------------------------------------------------------- databases


def test_one_writer_at_a_time(where):
    with Book.open(where) as book:
        with pytest.raises(BookError, match=r"Another program is writing to .*gradebook.db; wait"):
            Book.open(where, wait=0)
        book.write(report("ada", ONE))
    with Book.open(f"sqlite:///{where}", wait=0.2) as book:
        other = sqlite3.connect(where, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(
            BookError, match=r"Another program is writing to .*; close it \(a form grader\?\)"
        ):
            book.write(report("ada", ONE, score=0))
        other.execute("ROLLBACK")
        other.close()
        assert standing(book, "ada", ONE).score == 10
        book.write(report("ada", ONE, score=0))
        assert standing(book, "ada", ONE).score == 0
        with book._transaction() as session:  # has it to itself from its beginning: what it read stays true
            session.connection()
            with closing(sqlite3.connect(where, timeout=0, isolation_level=None)) as other:
                with pytest.raises(sqlite3.OperationalError, match="database is locked"):
                    other.execute("BEGIN IMMEDIATE")


def test_what_is_no_gradebook_is_left_alone(where, tmp_path):
    where.write_text("not a database at all, but a text that is long enough to look like something\n" * 30)
    with pytest.raises(BookError, match="file is not a database"):
        Book.open(where)
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE grade (id INTEGER)")
    with pytest.raises(BookError, match="is a database, but no gradebook of nbgrader's; give another one"):
        Book.open(foreign)
    assert stored(foreign) == {"grade": []}
    old = tmp_path / "old.db"
    Book.open(old).close()
    with sqlite3.connect(old) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '50a4d84c131a'")
    with pytest.raises(BookError, match="another version of nbgrader; make a copy of it"):
        Book.open(old)
    for address, sentence in {
        "sqlite://": "A gradebook in memory would be lost",
        "nosuch://server/grades": "cannot be used .*nosuch",
        "postgresql+psycopg2://u:secret@127.0.0.1/x": r"u:\*\*\*@.* (needs a driver|cannot be used)",
        str(tmp_path): "is a folder; give the file",
    }.items():
        with pytest.raises(BookError, match=sentence):
            Book.open(address)


# --------------------------------------------------------------------------- tables


def test_grades_csv(where, tmp_path):
    with Book.open(where) as book:
        book.write(report("=HYPERLINK(1)", ONE, texts={"discuss-1": "x", "transfer": "y"}), late=0.8)
        book.write(report("=HYPERLINK(1)", TWO))
        book.write(report("Zoë Ünal", TWO, score=1 / 3))
        by_hand(where, "=HYPERLINK(1)", ONE, "transfer", manual_score=4.0)
        book.write_csv(tmp_path / "grades.csv")
        book.write_lms(tmp_path / "lms.csv")
    with Gradebook(f"sqlite:///{where}") as theirs:  # the deduction follows what a person gave
        assert theirs.find_submission(ONE, "=HYPERLINK(1)").late_submission_penalty == pytest.approx(2.8)
    assert (tmp_path / "grades.csv").read_bytes().startswith(b"\xef\xbb\xbfstudent,")
    first, second = rows(tmp_path / "grades.csv")
    assert first == {
        "student": "'=HYPERLINK(1)",
        **{f"{ONE} score": "14", f"{ONE} maximum": "20", f"{ONE} manual part": "4"},
        **{f"{ONE} late factor": "0.8", f"{ONE} total": "11.2"},
        **{f"{TWO} score": "7", f"{TWO} maximum": "17", f"{TWO} manual part": "0"},
        **{f"{TWO} late factor": "1", f"{TWO} total": "7"},
        **{"total": "18.2", "maximum": "37", "waits for a person": f"{ONE}: discuss-1"},
    }
    assert (second["student"], second[f"{ONE} score"], second["total"]) == ("Zoë Ünal", "", "2.3333")
    lms = (tmp_path / "lms.csv").read_bytes().decode()
    assert lms.split("\r\n") == [f"student,{ONE},{TWO}", "'=HYPERLINK(1),11.2,7", "Zoë Ünal,,2.3333", ""]


@pytest.mark.parametrize(
    "value",
    ["=1+1", "+49 30", "-1", "@ada", "\t=1", " =1", "'=1", "''=1", "＝1", "O'Hara", "'t Hooft", "x=1"],
)
def test_a_guard_is_taken_off_again(value):
    guarded = gradebook._guarded(value)
    assert guarded[0] not in "=+-@\t ＝" and gradebook._unguarded(guarded) == value


def test_manual_csv_there_and_back(where, tmp_path):
    table = tmp_path / "manual.csv"
    with Book.open(where) as book:
        book.write(
            report("ada", ONE, texts={"discuss-1": "=1+1\nand\n\nmore", "discuss-2": "Two."}), late=0.5
        )
        book.write(report("bob", ONE, texts={"discuss-1": "Bob's."}))
        assert book.write_manual(table) == 3
        assert [(row["student"], row["grade_id"]) for row in rows(table)] == [
            ("ada", "discuss-1"),
            ("bob", "discuss-1"),
            ("ada", "discuss-2"),
        ]
        assert rows(table)[0]["answer"] == "'=1+1\nand\n\nmore"
        assert (rows(table)[0]["question"], rows(table)[0]["points"]) == ("Why?", "2")
        fill_in(
            table,
            {
                ("ada", "discuss-1"): {"score": "1,5", "comment": "Good, but =1."},
                ("bob", "discuss-1"): {"comment": "Come and see me."},
            },
        )
        assert book.read_manual(table) == 2
        ada, bob = standing(book, "ada", ONE), standing(book, "bob", ONE)
        assert (ada.manual, ada.total, ada.waiting) == (1.5, 5.75, ("discuss-2",))
        assert (bob.manual, bob.waiting) == (0, ("discuss-1",))
        before = stored(where)
        assert book.read_manual(table) == 2
        assert stored(where) == before
        book.write(
            report("ada", ONE, texts={"discuss-1": "=1+1\nand\n\nmore", "discuss-2": "Two."}), late=0.5
        )
        assert standing(book, "ada", ONE) == ada
        book.write(report("ada", ONE, texts={"discuss-1": "New.", "discuss-2": "Two."}), late=0.5)
        book.write_manual(table)
        assert (rows(table)[0]["answer"], rows(table)[0]["standing"]) == ("New.", "1.5")
    with Gradebook(f"sqlite:///{where}") as theirs:
        assert theirs.find_comment("discuss-1", ONE, ONE, "ada").manual_comment == "Good, but =1."
        assert theirs.find_submission(ONE, "ada").late_submission_penalty == 5.75


def test_an_exercise_is_corrected_by_a_row_of_ones_own(where, tmp_path):
    table = tmp_path / "manual.csv"
    head = "student;lab;grade_id;version;score;comment\r\n"
    with Book.open(where) as book:
        book.write(report("007", ONE, score=0))
        table.write_bytes(f"{head}7;{ONE};verdict-1-3;;0,5;Idea right\r\n".encode())
        assert book.read_manual(table) == 1
        assert standing(book, "007", ONE).score == 0.5
    with Gradebook(f"sqlite:///{where}") as theirs:
        assert theirs.find_comment("ex-1-3", ONE, ONE, "007").comment == "Idea right"


def test_a_table_may_be_newer_than_the_form_grader(where, tmp_path):
    table = tmp_path / "manual.csv"
    with Book.open(where) as book:
        book.write(report("ada", ONE, texts={"discuss-1": "First."}))
        book.stage(tmp_path / "course")
        book.write(report("ada", ONE, texts={"discuss-1": "Second."}))
        book.write_manual(table)
        fill_in(table, {("ada", "discuss-1"): {"score": "1"}})
        book.read_manual(table)
        assert standing(book, "ada", ONE).waiting == ()
        assert [(c.new, c.by) for c in book.log() if c.what == "manual score"] == [(1, "manual.csv")]


def test_a_faulty_row_stops_all_of_them(where, tmp_path):
    table = tmp_path / "manual.csv"
    with Book.open(where) as book:
        for student in ("ada", "bob", "eve", "kim"):
            book.write(report(student, ONE, texts={"discuss-1": "Old.", "discuss-2": "Fine."}))
        book.write_manual(table)
        book.write(report("eve", ONE, texts={"discuss-1": "New.", "discuss-2": "Fine."}))
        good = {(name, "discuss-2"): {"score": "2"} for name in ("ada", "bob", "eve", "kim")}
        fill_in(
            table,
            {
                **good,
                ("ada", "discuss-1"): {"score": "2.5"},
                ("bob", "discuss-1"): {"score": "1", "student": "rob"},
                ("eve", "discuss-1"): {"score": "1"},
                ("kim", "discuss-1"): {
                    "score": "1",
                    "student": "ada",
                    "grade_id": "discuss-2",
                    "version": "",
                },
            },
        )
        before = stored(where)
        with pytest.raises(BookError) as raised:
            book.read_manual(table)
        assert stored(where) == before
        assert str(raised.value).split("\n") == [
            "manual.csv, row 2: the score '2.5' is not a number from 0 to 2; correct it.",
            "manual.csv, row 3: there is no student 'rob' in the gradebook; write the name as it was.",
            "manual.csv, row 4: eve's answer discuss-1 has changed since the table was written; write a new "
            "table and look at it again.",
            "manual.csv, row 6: this answer stands in an earlier row too; delete one of them.",
        ]


def test_a_score_is_a_plain_number(where, tmp_path):
    table = tmp_path / "manual.csv"
    with Book.open(where) as book:
        book.write(report("ada", ONE, texts={"discuss-1": "x"}))
        book.write_manual(table)
        for score in ("-1", "nan", "inf", "1e0", "1_0", "two", "2,01", "٢"):
            fill_in(table, {("ada", "discuss-1"): {"score": score}})
            with pytest.raises(BookError, match=f"the score '{score}' is not a number from 0 to 2"):
                book.read_manual(table)


def test_a_file_that_is_no_manual_csv(where, tmp_path):
    table = tmp_path / "manual.csv"
    with Book.open(where) as book:
        with pytest.raises(BookError, match="cannot be read"):
            book.read_manual(table)
        for content, sentence in {
            b"student,score\r\n": "has no column 'lab'; keep the first row",
            b"": "has no column 'student'",
            "student,lab,Zoë".encode("latin-1"): 'not in UTF-8; save it from the spreadsheet as "CSV UTF-8"',
        }.items():
            table.write_bytes(content)
            with pytest.raises(BookError, match=sentence):
                book.read_manual(table)


# --------------------------------------------------------------------------- the form grader


def test_staged_notebooks_hold_answers_and_nothing_else(where, tmp_path):
    full = report("ada", ONE, texts={"discuss-1": HOSTILE, "transfer": "print('</pre><script>x</script>')"})
    with Book.open(where) as book:
        book.write(without(full, "verdict-1-2"))
        folder = book.stage(tmp_path / "course")
    staged = notebooks.read(folder / "autograded" / "ada" / ONE / f"{ONE}.ipynb")
    lab = notebooks.read(ROOT / "labs" / f"{ONE}.ipynb")
    cells = {cell.metadata.nbgrader.grade_id: cell for cell in staged.cells if "nbgrader" in cell.metadata}
    assert [cell.id for cell in staged.cells] == [cell.id for cell in lab.cells]
    assert not any(cell.get("outputs") for cell in staged.cells)
    assert cells["ex-1-1"].source == RIGHT
    assert cells["ex-1-2"].source == f"# {gradebook.MISSING}"
    assert cells["verdict-1-1"].source == 'verdict("1.1")'
    assert cells["discuss-1"].source.count("<") == 2 and cells["discuss-1"].source.startswith("<pre ")
    for step in ("source", "release"):  # the released notebook: nobody needs solutions to grade by hand
        text = (folder / step / ONE / f"{ONE}.ipynb").read_bytes()
        assert text == (ROOT / "labs" / f"{ONE}.ipynb").read_bytes()
    assert list((folder / "submitted").rglob("*.ipynb")) == []
    config = (folder / "nbgrader_config.py").read_text(encoding="utf-8")
    if os.name == "posix":
        assert (folder / "nbgrader_config.py").stat().st_mode & 0o077 == 0
    assert str(tmp_path) not in config  # the folder may be moved, together with the gradebook


class Live(HTMLParser):
    """Everything in a page that could run, and the text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.depth: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        if tag in ("script", "style"):
            self.depth.append(tag)
        for name, value in attributes:
            value = value or ""
            if name.startswith("on") or name == "srcdoc" or "javascript:" in value.lower():
                self.found.append((tag, name, value))

    def handle_endtag(self, tag):
        if self.depth and self.depth[-1] == tag:
            self.depth.pop()

    def handle_data(self, data):
        if self.depth:
            self.scripts.append(data)
        else:
            self.text += data


SERVER = """
import shutil, sys
from pathlib import Path
from helpers.course.grading.gradebook import Book
from helpers.course.grading.report import Report
assert shutil.which("alembic") is None
folder = Path(sys.argv[1])
with Book.open(folder / "gradebook.db") as book:
    book.write(Report.from_json((folder / "report.json").read_text(encoding="utf-8")), late=0.5)
    book.stage(folder / "course")
from jupyter_server.serverapp import main
main([f"--config={folder / 'settings.json'}"])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Jupyter server with the form grader, on the loopback address: a function that asks it, and where.

    The book is written by the same process, whose PATH has no `alembic`.
    """
    tmp_path = tmp_path_factory.mktemp("server")
    where = tmp_path / "gradebook.db"
    full = report("ada", ONE, texts={"discuss-1": HOSTILE, "transfer": "print('</pre><script>x</script>')"})
    first, *others = full.answers
    notes = ("Your function raised: <script>alert('planted')</script>",)
    full = replace(full, answers=(replace(first, notes=notes), *others))
    (tmp_path / "report.json").write_text(full.to_json(), encoding="utf-8")
    folder = tmp_path / "course"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "ServerApp": {
            "jpserver_extensions": {"nbgrader.server_extensions.formgrader": True},
            **{"ip": "127.0.0.1", "port": port, "port_retries": 0, "open_browser": False},
            **{"allow_root": True, "root_dir": str(folder), "disable_check_xsrf": True},
        },
        "IdentityProvider": {"token": "for-the-test"},
    }
    (tmp_path / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    variables = {
        **{"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        **{"JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"), "JUPYTER_NO_CONFIG": "1"},
    }
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, tmp_path], cwd=folder, env=variables, stdout=log, stderr=log
        )

    def ask(path: str, body: dict | None = None, method: str = "PUT") -> str:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/formgrader/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": "token for-the-test"},
            method="GET" if body is None else method,
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            return answer.read().decode()

    try:
        for _ in range(300):
            try:
                ask("api/status")
                break
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.1)
        else:
            pytest.fail((tmp_path / "server.log").read_text(encoding="utf-8"))
        assert process.poll() is None, (tmp_path / "server.log").read_text(encoding="utf-8")
        yield ask, where
    finally:
        process.kill()  # it has no kernels, and would wait for them
        process.wait(20)


def test_it_needs_no_program_from_path(server):
    """nbgrader calls `alembic`, which is not in PATH where the environment is not activated."""
    _, where = server
    ((version,),) = stored(where)["alembic_version"]
    assert len(list((Path(ALEMBIC_DIR) / "versions").glob(f"{version}_*.py"))) == 1


def test_a_person_grades_in_the_form_grader(server):
    ask, where = server
    assert "manage_assignments" in ask("manage_assignments")
    [assignment] = json.loads(ask("api/assignments"))
    assert (assignment["name"], assignment["num_submissions"]) == (ONE, 1)
    [submission] = json.loads(ask(f"api/submitted_notebooks/{ONE}/{ONE}"))
    assert (submission["student"], submission["needs_manual_grade"]) == ("ada", True)

    page = Live(ask(f"submissions/{submission['id']}/"))
    assert "My answer: the background." in page.text
    assert HOSTILE in page.text  # every sign of it, as it was typed
    assert "print('</pre><script>x</script>')" in page.text
    assert not any("alert" in script for script in page.scripts)
    theirs = {value for _, _, value in page.found}
    assert theirs == {"toggle_name(true);", "toggle_name(false);"}  # nbgrader's own

    grades = {item["name"]: item for item in json.loads(ask(f"api/grades?submission_id={submission['id']}"))}
    assert grades["discuss-1"]["needs_manual_grade"] and not grades["discuss-2"]["needs_manual_grade"]
    ask(f"api/grade/{grades['discuss-1']['id']}", {"manual_score": "1.5", "extra_credit": 0.25})
    comments = {c["name"]: c for c in json.loads(ask(f"api/comments?submission_id={submission['id']}"))}
    assert comments["ex-1-1"]["auto_comment"].endswith("< script>alert('planted')< /script>")
    ask(f"api/comment/{comments['discuss-1']['id']}", {"manual_comment": "See me."})

    with Book.open(where) as book:  # the form grader is open beside it
        book.write(report("ada", ONE, score=0, texts={"discuss-1": HOSTILE}), late=0.5)
        has = standing(book, "ada", ONE)
    assert (has.score, has.manual, has.total, has.waiting) == (1.75, 1.75, 0.875, ())
    again = json.loads(ask(f"api/grade/{grades['discuss-1']['id']}"))
    assert (again["manual_score"], again["extra_credit"]) == (1.5, 0.25)
    with Gradebook(f"sqlite:///{where}") as theirs:
        assert theirs.find_comment("discuss-1", ONE, ONE, "ada").manual_comment == "See me."


def test_nbgrader_runs_nothing_of_a_student(server, tmp_path):
    """The form grader has a button for nbgrader's own grading, which would use no sandbox."""
    ask, where = server
    course = where.with_name("course")
    staged = course / "autograded" / "ada" / ONE / f"{ONE}.ipynb"
    before = staged.read_bytes(), stored(where)["grade"]
    done = json.loads(ask(f"api/submission/{ONE}/ada/autograde", {}, "POST"))
    assert not done["success"] and "No notebooks were matched" in done["log"]
    assert (staged.read_bytes(), stored(where)["grade"]) == before

    notebook = nbformat.read(ROOT / "labs" / f"{ONE}.ipynb", as_version=4)
    notebook.cells[1] = nbformat.v4.new_code_cell(f"open({str(tmp_path / 'planted')!r}, 'w')")
    nbformat.write(notebook, course / "submitted" / "ada" / ONE / f"{ONE}.ipynb")
    done = json.loads(ask(f"api/submission/{ONE}/ada/autograde", {}, "POST"))
    assert done["success"] and staged.read_bytes() != before[0], done  # it did its work
    assert not (tmp_path / "planted").exists()
    assert stored(where)["grade"] == before[1]
