"""The one writer of scores: nbgrader's gradebook, the tables made from it, and what people add by hand.

A cell's score in nbgrader's gradebook is automatic, or manual, which goes before it. Here the automatic one
is set, or cleared, each time a report is written; the manual one, extra credit and comments by hand are
never touched. Tables of our own, in the same database, hold the reports, which version of an answer a person
graded, so that a score asks for another look once the answer has changed, and which scores changed when.

A report is written in one transaction. One program at a time may write, which a lock sees to; nbgrader's form
grader may be open beside it.
"""

import copy
import csv
import hashlib
import html
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic.script import ScriptDirectory
from filelock import FileLock, Timeout
from nbformat import NotebookNode
from nbgrader import api
from nbgrader.dbutil import ALEMBIC_DIR
from sqlalchemy import (
    URL,
    Engine,
    String,
    Text,
    and_,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from helpers.course import notebooks
from helpers.course.grading.report import Answer, FreeText, Report
from helpers.course.notebooks import CourseError

COURSE = "default_course"  # nbgrader's own name for a course without one
WAIT = 10.0  # seconds for a database in use
NAME = 128  # characters that nbgrader has room for
CELL = 30_000  # characters of an answer in a CSV file: a cell of Excel takes 32,767
STAGED = 100_000  # characters of an answer in the form grader
GRADED, BY_HAND, BY_FILE = "graded", "form grader", "manual.csv"
MISSING = "This cell is missing from the notebook that was handed in."
NO_RESPONSE = "No response."
MANUAL = (
    *("student", "lab", "grade_id", "version", "question", "answer", "points"),
    *("standing", "score", "comment"),
)


class BookError(CourseError):
    """What is wrong and what to do next, one sentence a line. Nothing was written."""


@dataclass(frozen=True)
class Standing:
    """What a student has of a lab."""

    student: str
    lab: str
    score: float  #: before a deduction for being late
    maximum: float
    manual: float  #: the part of the score that a person gave, extra credit included
    late: float  #: factor from 0 to 1
    waiting: tuple[str, ...]  #: the cells that a person has to look at

    @property
    def total(self) -> float:
        return self.score * self.late


@dataclass(frozen=True)
class Change:
    """A score that changed."""

    time: str  #: in UTC
    student: str
    lab: str
    grade_id: str  #: "" where the whole lab is meant
    what: str  #: "automatic score", "manual score", "extra credit" or "late factor"
    old: float | None
    new: float | None
    by: str  #: "graded", "form grader", "manual.csv", or what the caller said


# --------------------------------------------------------------------------- our tables


class _Side(DeclarativeBase):
    """Tables of our own beside nbgrader's."""


class _Submission(_Side):
    __tablename__ = "course_submission"
    student: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    lab: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    late: Mapped[float]
    report: Mapped[str] = mapped_column(Text)


class _Cell(_Side):
    """A student's cell: which version of the answer is current, was shown to a person, was graded by one."""

    __tablename__ = "course_cell"
    student: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    lab: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    grade_id: Mapped[str] = mapped_column(String(NAME), primary_key=True)
    current: Mapped[str] = mapped_column(String(64))
    shown: Mapped[str | None] = mapped_column(String(64))  # by the form grader; None: it was not staged
    graded: Mapped[str | None] = mapped_column(String(64))  # None: by nobody, or nobody knows
    manual: Mapped[float | None]  # as we saw it last: the form grader tells nobody
    extra: Mapped[float | None]


class _Change(_Side):
    __tablename__ = "course_change"
    id: Mapped[int] = mapped_column(primary_key=True)
    time: Mapped[str] = mapped_column(String(40))
    student: Mapped[str] = mapped_column(String(NAME))
    lab: Mapped[str] = mapped_column(String(NAME))
    grade_id: Mapped[str] = mapped_column(String(NAME))
    what: Mapped[str] = mapped_column(String(40))
    old: Mapped[float | None]
    new: Mapped[float | None]
    by: Mapped[str] = mapped_column(String(NAME))


# --------------------------------------------------------------------------- labs


@dataclass(frozen=True)
class _GradedCell:
    """A cell with points, and the solution cell that its comments stand at."""

    points: float
    cell_type: str
    comments: str


class _Lab:
    """A released notebook."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        self.notebook = notebooks.read(path)
        self.graded: dict[str, _GradedCell] = {}
        self.solutions: list[str] = []
        self.marked: dict[str, NotebookNode] = {}  # every cell that nbgrader knows
        last = ""
        for cell in self.notebook.cells:
            mark = cell.metadata.get("nbgrader")
            if not mark or not (mark.get("grade") or mark.get("solution") or mark.get("locked")):
                continue
            name = mark["grade_id"]
            self.marked[name] = cell
            if mark.get("solution"):
                self.solutions.append(name)
                last = name
            if mark.get("grade"):
                self.graded[name] = _GradedCell(float(mark["points"]), cell.cell_type, last)

    def check(self, report: Report) -> None:
        """Raise BookError unless the report judges this version of the lab."""
        judged = [*report.answers, *report.free_texts]
        names = [item.grade_id for item in judged]
        same = all(
            item.grade_id in self.graded and item.points == self.graded[item.grade_id].points
            for item in judged
        )
        if not same or len(set(names)) < len(names):
            raise BookError(
                f"The report on {report.lab} by {report.student} does not fit the lab's cells and points as "
                "they are now; grade this submission again."
            )
        for answer in report.answers:
            if not (math.isfinite(answer.score) and 0 <= answer.score <= answer.points):
                raise BookError(
                    f"The report on {report.lab} by {report.student} gives {answer.score} of "
                    f"{_number(answer.points)} points for {answer.grade_id}; grade this submission again."
                )


# --------------------------------------------------------------------------- the book


class Book:
    """A gradebook that is open for writing. Use it in a `with` statement, or close it."""

    def __init__(self, gradebook: api.Gradebook, url: URL, lock: FileLock, labs: Path) -> None:
        self.url = url
        self._gradebook, self._lock, self._folder = gradebook, lock, labs
        self._labs: dict[str, _Lab] = {}

    @classmethod
    def open(cls, where: str | Path, *, labs: Path = notebooks.LABS, wait: float = WAIT) -> "Book":
        """Open a gradebook, a file or any URL of SQLAlchemy's, and create it if there is none.

        labs: the folder of the released notebooks, from which cells and points are taken
        wait: seconds to wait for somebody else who writes
        """
        url = _url(where)
        lock = FileLock(_lock_file(url), timeout=wait)
        try:
            lock.acquire()
        except Timeout as error:
            raise BookError(
                f"Another program is writing to {_named(url)}; wait until it has ended and try again."
            ) from error
        except OSError as error:
            raise BookError(
                f"Nothing can be written beside {_named(url)} ({error.strerror}); choose another place."
            ) from error
        try:
            _create(url, wait)
            # It finds tables already, so it does not look for a program called alembic in PATH.
            gradebook = api.Gradebook(url.render_as_string(hide_password=False), COURSE)
            _be_patient(gradebook.engine, wait)
        except (SQLAlchemyError, ImportError, ValueError) as error:
            lock.release()
            raise _translated(error, url) from error
        except BaseException:
            lock.release()
            raise
        return cls(gradebook, url, lock, labs)

    def close(self) -> None:
        self._gradebook.close()
        self._lock.release()

    def __enter__(self) -> "Book":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Session]:
        """All or nothing."""
        session = self._gradebook.db()
        try:
            yield session
            session.commit()
        except DBAPIError as error:
            session.rollback()
            raise _translated(error, self.url) from error
        except BaseException:
            session.rollback()
            raise

    # ----------------------------------------------------------------------- from reports

    def write(
        self, report: Report, *, received: datetime | None = None, late: float = 1.0, by: str = GRADED
    ) -> None:
        """Write one report, in one transaction. A second time it changes nothing.

        received: when the notebook was handed in; a time without a zone is local. None leaves what stands.
        late: factor on the score of the whole lab, 1 for none
        by: stands in the log, for instance "appeal"
        """
        _check_name(report.student)
        if not 0 <= late <= 1:
            raise BookError(f"The factor for being late is {late} for {report.student}; give 0 to 1.")
        lab = self._lab(report.lab)
        lab.check(report)
        judged = {item.grade_id: item for item in (*report.answers, *report.free_texts)}
        with self._transaction() as session:
            submitted = self._submitted(session, report, received)
            _notice(session, report.student, report.lab)
            submission = session.get(_Submission, (report.student, report.lab))
            if submission is None:
                submission = _Submission(student=report.student, lab=report.lab, late=1.0, report="")
                session.add(submission)
            key = (report.student, report.lab)
            _record(session, (*key, ""), "late factor", submission.late, late, by)
            submission.late = late
            # ASCII, because a notebook may hold half a surrogate pair, which no database stores.
            submission.report = json.dumps(asdict(report))
            # All cells in one query: else every grade and comment would ask for its own.
            cells = session.scalars(select(api.BaseCell).filter_by(notebook_id=submitted.notebook_id)).all()
            grades = {grade.cell.name: grade for grade in submitted.grades}
            comments = {comment.cell.name: comment for comment in submitted.comments}
            for cell in cells:
                kind, known = (api.Grade, grades) if cell.type == "GradeCell" else (api.Comment, comments)
                if cell.name not in known:
                    known[cell.name] = kind(cell=cell, notebook=submitted)
                    session.add(known[cell.name])
            mine = select(_Cell).filter_by(student=report.student, lab=report.lab)
            sides = {side.grade_id: side for side in session.scalars(mine)}
            for name, cell in lab.graded.items():
                side = sides.get(name)
                if side is None:
                    grade = grades[name]
                    side = _Cell(student=key[0], lab=key[1], grade_id=name, current="")
                    side.manual, side.extra = grade.manual_score, grade.extra_credit
                    session.add(side)
                note = _judge(session, grades[name], side, judged.get(name), by)
                if cell.comments in comments:
                    comments[cell.comments].auto_comment = note
            _deduct(session, submitted, late)

    def _lab(self, name: str) -> _Lab:
        """A lab, after the gradebook was brought into step with it."""
        if name not in self._labs:
            path = self._folder / f"{name}.ipynb"
            if not name or Path(name).name != name or not path.is_file():
                raise BookError(
                    f"There is no lab {name!r} in {self._folder}; check where the report comes from."
                )
            lab = _Lab(path)
            with self._transaction() as session:
                _enter_lab(session, lab)
            self._labs[name] = lab
        return self._labs[name]

    def _submitted(
        self, session: Session, report: Report, received: datetime | None
    ) -> api.SubmittedNotebook:
        student = session.get(api.Student, report.student)
        if student is None:
            student = api.Student(id=report.student)
            session.add(student)
        assignment = session.scalars(select(api.Assignment).filter_by(name=report.lab)).one()
        notebook = session.scalars(
            select(api.Notebook).filter_by(name=report.lab, assignment_id=assignment.id)
        ).one()
        wanted = select(api.SubmittedAssignment).filter_by(assignment_id=assignment.id, student_id=student.id)
        submission = session.scalars(wanted).one_or_none()
        if submission is None:
            submission = api.SubmittedAssignment(assignment=assignment, student=student)
            session.add(submission)
        if received is not None:
            submission.timestamp = received.astimezone(UTC).replace(tzinfo=None)
        submitted = next((item for item in submission.notebooks if item.notebook is notebook), None)
        if submitted is None:
            submitted = api.SubmittedNotebook(assignment=submission, notebook=notebook)
            session.add(submitted)
        session.flush()
        return submitted

    # ----------------------------------------------------------------------- to tables

    def grades(self) -> list[Standing]:
        """Every student's every lab, sorted by student and lab, with what people gave in the form grader."""
        with self._transaction() as session:
            _notice(session)
            late = {
                (student, lab): factor
                for student, lab, factor in session.execute(
                    select(_Submission.student, _Submission.lab, _Submission.late)
                )
            }
            maximum = dict(
                session.execute(
                    select(api.Assignment.name, func.sum(api.GradeCell.max_score))
                    .select_from(api.GradeCell)
                    .join(api.Notebook, api.Notebook.id == api.GradeCell.notebook_id)
                    .join(api.Assignment, api.Assignment.id == api.Notebook.assignment_id)
                    .group_by(api.Assignment.name)
                ).all()
            )
            columns = select(
                api.Student.id,
                api.Assignment.name,
                api.GradeCell.name,
                api.Grade.auto_score,
                api.Grade.manual_score,
                api.Grade.extra_credit,
                api.Grade.needs_manual_grade,
            )
            rows = session.execute(
                _joined(columns.select_from(api.Grade), api.GradeCell).order_by(
                    api.Student.id, api.Assignment.name, api.GradeCell.name
                )
            ).all()
        found: dict[tuple[str, str], list[Any]] = {}
        for student, lab, *cell in rows:
            found.setdefault((student, lab), []).append(cell)
        return [
            Standing(
                *key,
                score=sum(_score(auto, manual, extra) for _, auto, manual, extra, _ in cells),
                maximum=maximum[key[1]],
                manual=sum(
                    _score(auto, manual, extra) - (auto or 0.0 if manual is None else 0.0)
                    for _, auto, manual, extra, _ in cells
                ),
                late=late.get(key, 1.0),
                waiting=tuple(name for name, *_, waits in cells if waits),
            )
            for key, cells in found.items()
        ]

    def by_hand(self, student: str) -> dict[tuple[str, str], tuple[float | None, str]]:
        """What people gave: (lab, grade_id) -> score or None, extra credit included, and comment."""
        found = {}
        with self._transaction() as session:
            _notice(session)
            grades = _joined(select(api.Grade, api.Assignment.name).select_from(api.Grade), api.GradeCell)
            for grade, lab in session.execute(grades.where(api.Student.id == student)):
                comment = _comment_on(grade).manual_comment or ""
                given = None
                if grade.manual_score is not None or grade.extra_credit:
                    given = _score(grade.auto_score, grade.manual_score, grade.extra_credit)
                if given is not None or comment:
                    found[lab, grade.cell.name] = given, comment
        return found

    def write_csv(self, path: Path) -> None:
        """Write `grades.csv`, one row per student, for people: UTF-8 with the mark that Excel wants."""
        table = _table(self.grades())
        labs = sorted({lab for row in table.values() for lab in row})
        kinds = ("score", "maximum", "manual part", "late factor", "total")
        header = ["student", *(f"{lab} {kind}" for lab in labs for kind in kinds), "total", "maximum"]
        lines = [[*header, "waits for a person"]]
        for student, row in table.items():
            line = [_guarded(student)]
            for lab in labs:
                has = row.get(lab)
                values = (has.score, has.maximum, has.manual, has.late, has.total) if has else ()
                line += [_number(value) for value in values] or [""] * len(kinds)
            line.append(_number(sum(has.total for has in row.values())))
            line.append(_number(sum(has.maximum for has in row.values())))
            line.append(
                "; ".join(f"{lab}: {', '.join(has.waiting)}" for lab, has in row.items() if has.waiting)
            )
            lines.append(line)
        _write_csv(path, lines)

    def write_lms(self, path: Path) -> None:
        """Write a row per student and a column per lab with nothing but the total, for a learning platform.

        Made for Moodle (Grades, Import, CSV file): map `student` to the ID number, user name or e-mail
        address, and each lab to its grade item. Canvas wants its own first columns: export its gradebook
        and copy the labs' columns into that. An empty field is a lab that was not handed in.
        """
        table = _table(self.grades())
        labs = sorted({lab for row in table.values() for lab in row})
        lines = [["student", *labs]]
        for student, row in table.items():
            totals = (_number(row[lab].total) if lab in row else "" for lab in labs)
            lines.append([_guarded(student), *totals])
        _write_csv(path, lines, mark=False)

    def write_log(self, path: Path) -> None:
        """Write every change of a score, oldest first."""
        lines = [["time", "student", "lab", "grade_id", "what", "old", "new", "by"]]
        for change in self.log():
            old, new = ("" if value is None else _number(value) for value in (change.old, change.new))
            names = (_guarded(change.student), change.lab, change.grade_id, change.what)
            lines.append([change.time, *names, old, new, _guarded(change.by)])
        _write_csv(path, lines)

    def log(self, student: str | None = None) -> list[Change]:
        """Every change of a score, oldest first."""
        with self._transaction() as session:
            _notice(session)
            wanted = select(_Change).order_by(_Change.id)
            if student is not None:
                wanted = wanted.filter_by(student=student)
            names = Change.__dataclass_fields__
            return [Change(**{name: getattr(row, name) for name in names}) for row in session.scalars(wanted)]

    # ----------------------------------------------------------------------- by hand, in a table

    def write_manual(self, path: Path) -> int:
        """Write `manual.csv`, a row per answer that waits for a person, and return how many there are.

        Whoever grades fills in `score` and `comment`; `standing` is a score that was given to an earlier
        version of the answer, and stays until there is a new one.
        """
        lines = [list(MANUAL)]
        with self._transaction() as session:
            _notice(session)
            for side, grade, points in _waiting(session):
                report = _stored_report(session, side.student, side.lab)
                item = _item(report, side.grade_id)
                question = item.question if isinstance(item, FreeText) else item.title if item else ""
                answer = item.source if item else MISSING
                if len(answer) > CELL:
                    answer = f"{answer[:CELL]}\n[cut here: {len(answer):,} characters; open the notebook]"
                standing = "" if grade.manual_score is None else _number(grade.manual_score)
                texts = map(_guarded, (question[:CELL], answer))
                names = (_guarded(side.student), side.lab, side.grade_id, _version(side))
                lines.append([*names, *texts, _number(points), standing, "", ""])
        _write_csv(path, lines)
        return len(lines) - 1

    def read_manual(self, path: Path) -> int:
        """Set the scores and comments that people filled in, and return how many rows had any.

        A row without a score leaves what stands; a comment alone is taken. Rows may be added by hand, for
        any cell with points ("verdict-1-3"), with an empty `version`. Raises BookError with one sentence per
        faulty row, and then writes nothing.
        """
        with self._transaction() as session:
            _notice(session)
            complaints, entries, seen = [], [], set()
            for number, row in _read_csv(path):
                try:
                    entry = _manual_entry(session, row)
                    if entry is None:
                        continue
                    if entry[0] in seen:
                        raise BookError("this answer stands in an earlier row too; delete one of them.")
                except BookError as error:
                    complaints.append(f"{path.name}, row {number}: {error}")
                else:
                    seen.add(entry[0])
                    entries.append(entry)
            if complaints:
                raise BookError("\n".join(complaints))
            for side, grade, score, comment in entries:
                if score is not None:
                    key = (side.student, side.lab, side.grade_id)
                    _record(session, key, "manual score", grade.manual_score, score, BY_FILE)
                    grade.manual_score = side.manual = score
                    grade.needs_manual_grade = False
                    side.graded = side.current
                if comment:
                    _comment_on(grade).manual_comment = comment
            for submitted in {grade.notebook for _, grade, _, _ in entries}:
                late = session.get(_Submission, (submitted.student.id, submitted.assignment.name))
                _deduct(session, submitted, late.late)
        return len(entries)

    # ----------------------------------------------------------------------- by hand, in the form grader

    def stage(self, folder: Path) -> Path:
        """Write a course folder for nbgrader's form grader: `cd FOLDER`, `jupyter lab`, menu Nbgrader.

        The notebooks in it are the released ones with the student's answers in place, without outputs, so
        nothing of what else was in the file gets there. Markdown answers are shown as they were typed: as
        Markdown they could bring HTML, and with it programs, into the browser of whoever grades.
        """
        with self._transaction() as session:
            _notice(session)
            (folder / "submitted").mkdir(parents=True, exist_ok=True)
            _write_private(folder / "nbgrader_config.py", _config(self.url, folder))
            labs: dict[str, _Lab] = {}
            for student, name, received in session.execute(_received()).all():
                lab = labs.setdefault(name, labs.get(name) or self._staged_lab(name, folder))
                report = _stored_report(session, student, name)
                notebook = _staged(lab, report)
                path = folder / "autograded" / student / name / f"{name}.ipynb"
                notebooks.write(path, notebooks.text_of(notebook))
                for side in session.scalars(select(_Cell).filter_by(student=student, lab=name)):
                    side.shown = side.current
                # The form grader counts these folders, and compares the times. It needs no notebook there.
                empty = folder / "submitted" / student / name
                empty.mkdir(parents=True, exist_ok=True)
                if received is not None:
                    notebooks.write(empty / "timestamp.txt", f"{received.isoformat(' ')} UTC\n")
        return folder

    def _staged_lab(self, name: str, folder: Path) -> _Lab:
        path = self._folder / f"{name}.ipynb"
        if name not in self._labs and not path.is_file():
            raise BookError(f"There is no lab {name!r} in {self._folder}; put its notebook back to stage it.")
        lab = self._labs.get(name) or _Lab(path)
        for step in ("source", "release"):
            notebooks.write(folder / step / name / f"{name}.ipynb", notebooks.text_of(lab.notebook))
        return lab


# --------------------------------------------------------------------------- databases


def _url(where: str | Path) -> URL:
    if isinstance(where, str) and "://" in where:
        try:
            url = make_url(where)
        except SQLAlchemyError as error:
            raise BookError(
                f"{where} is no address of a database; write one like sqlite:///grades.db."
            ) from error
        if url.get_backend_name() != "sqlite":
            return url
        if not url.database or url.database == ":memory:":
            raise BookError("A gradebook in memory would be lost; give a file, like sqlite:///grades.db.")
        path = Path(url.database)
    else:
        path = Path(where)
    path = path.expanduser().resolve()
    if path.is_dir():
        raise BookError(f"{path} is a folder; give the file of the gradebook, like {path / 'gradebook.db'}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BookError(
            f"{path.parent} cannot be created ({error.strerror}); choose another place."
        ) from error
    return URL.create("sqlite", database=str(path))


def _lock_file(url: URL) -> str:
    """Beside the file; for a server, a place that programs on this machine share."""
    if url.get_backend_name() == "sqlite":
        return f"{url.database}.lock"
    digest = hashlib.sha256(url.render_as_string(hide_password=True).encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"gradebook-{digest}.lock")


def _named(url: URL) -> str:
    return url.database if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=True)


def _translated(error: Exception, url: URL) -> BookError:
    if isinstance(error, ImportError):
        return BookError(
            f"{_named(url)} needs a driver that is not installed ({error}); install it with pip."
        )
    reason = str(getattr(error, "orig", error)).splitlines()[0]
    if "database is locked" in reason:
        return BookError(
            f"Another program is writing to {_named(url)}; close it (a form grader?) and try again."
        )
    return BookError(
        f"The gradebook {_named(url)} cannot be used ({reason}); check the address and the file."
    )


def _be_patient(engine: Engine, wait: float) -> None:
    """SQLite: a transaction has the database to itself from its beginning, and waits for it.

    SQLite's module for Python begins one with the first change only, so what was read might be out of date.
    """
    if engine.dialect.name != "sqlite":
        return

    def connected(connection: Any, _: object) -> None:
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout = {int(wait * 1000)}")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # of connections made before


def _create(url: URL, wait: float) -> None:
    """Create what is missing of the tables, all or none where the database allows it.

    nbgrader would ask the program `alembic` for the version of its tables, and not find it in an
    environment that is not activated.
    """
    head = ScriptDirectory(ALEMBIC_DIR).get_current_head()
    engine = create_engine(url)
    _be_patient(engine, wait)
    try:
        with engine.begin() as connection:
            tables = set(inspect(connection).get_table_names())
            theirs, ours = set(api.Base.metadata.tables), set(_Side.metadata.tables)
            if not tables - ours:
                api.Base.metadata.create_all(connection)
                connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
                connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": head})
            elif not theirs <= tables or "alembic_version" not in tables:
                raise BookError(
                    f"{_named(url)} is a database, but no gradebook of nbgrader's; give another one."
                )
            version = connection.scalar(text("SELECT version_num FROM alembic_version"))
            if version != head:
                raise BookError(
                    f"{_named(url)} was made by another version of nbgrader; make a copy of it, activate the "
                    "course's environment and run `nbgrader db upgrade` in its folder."
                )
            _Side.metadata.create_all(connection)
            course = api.Course.__table__
            if connection.execute(select(course).where(course.c.id == COURSE)).first() is None:
                connection.execute(course.insert().values(id=COURSE))
    finally:
        engine.dispose()


def _enter_lab(session: Session, lab: _Lab) -> None:
    """Bring the gradebook into step with a lab: its cells and points.

    Where points changed, automatic scores are cleared, because they were out of the old points, and manual
    ones are kept for another look. What was given for a cell that is gone from the lab goes with it.
    """
    _notice(session)
    assignment = session.scalars(select(api.Assignment).filter_by(name=lab.name)).one_or_none()
    if assignment is None:
        assignment = api.Assignment(lab.name, course_id=COURSE)
        session.add(assignment)
    notebook = next((item for item in assignment.notebooks if item.name == lab.name), None)
    if notebook is None:
        notebook = api.Notebook(name=lab.name, assignment=assignment)
        session.add(notebook)
    notebook.kernelspec = json.dumps(lab.notebook.metadata.get("kernelspec", {}))
    session.flush()
    touched = set()

    graded = {cell.name: cell for cell in notebook.grade_cells}
    for name, wanted in lab.graded.items():
        cell = graded.pop(name, None)
        if cell is None:
            cell = api.GradeCell(
                name=name, notebook=notebook, max_score=wanted.points, cell_type=wanted.cell_type
            )
            session.add(cell)
            for submitted in notebook.submissions:  # it waits until the submission is graded again
                session.add(api.Grade(cell=cell, notebook=submitted, needs_manual_grade=True))
        elif cell.max_score != wanted.points:
            for grade in cell.grades:
                _void(session, lab.name, grade)
                touched.add(grade.notebook)
        cell.max_score, cell.cell_type = wanted.points, wanted.cell_type
    for name, cell in graded.items():
        for grade in list(cell.grades):
            key = (grade.student.id, lab.name, name)
            for what, old in (("automatic", grade.auto_score), ("manual", grade.manual_score)):
                _record(session, key, f"{what} score", old, None, "cell gone from the lab")
            _record(session, key, "extra credit", grade.extra_credit, None, "cell gone from the lab")
            touched.add(grade.notebook)
            if side := session.get(_Cell, key):
                session.delete(side)
            session.delete(grade)
        session.delete(cell)

    solutions = {cell.name: cell for cell in notebook.solution_cells}
    for name in lab.solutions:
        if solutions.pop(name, None) is None:
            session.add(api.SolutionCell(name=name, notebook=notebook))
    for cell in solutions.values():
        for comment in list(cell.comments):
            session.delete(comment)
        session.delete(cell)

    sources = {cell.name: cell for cell in notebook.source_cells}
    for name, wanted in lab.marked.items():
        cell = sources.pop(name, None)
        if cell is None:
            cell = api.SourceCell(name=name, notebook=notebook)
            session.add(cell)
        mark = wanted.metadata.nbgrader
        cell.cell_type, cell.source = wanted.cell_type, wanted.source
        cell.locked, cell.checksum = bool(mark.get("locked")), mark.get("checksum")
    for cell in sources.values():
        session.delete(cell)

    session.flush()
    for submitted in touched:
        session.expire(submitted)
        submission = session.get(_Submission, (submitted.student.id, lab.name))
        if submission is not None:
            _deduct(session, submitted, submission.late)


def _void(session: Session, lab: str, grade: api.Grade) -> None:
    """Clear an automatic score whose maximum changed, and ask for another look at a manual one."""
    key = (grade.student.id, lab, grade.name)
    _record(session, key, "automatic score", grade.auto_score, None, "points changed")
    grade.auto_score, grade.needs_manual_grade = None, True
    if side := session.get(_Cell, key):
        side.graded = None


# --------------------------------------------------------------------------- scores


def _judge(
    session: Session, grade: api.Grade, side: _Cell, judged: Answer | FreeText | None, by: str
) -> str | None:
    """Set what a report says about a cell, and return the comment on it."""
    match judged:
        case Answer():
            auto, waits, note = judged.score, False, _sentences(judged)
        case FreeText(attempted=True):
            auto, waits, note = None, True, None
        case FreeText():
            auto, waits, note = 0.0, False, NO_RESPONSE
        case _:
            auto, waits, note = None, True, MISSING
    key = (side.student, side.lab, side.grade_id)
    _record(session, key, "automatic score", grade.auto_score, auto, by)
    grade.auto_score = auto
    side.current = _digest(judged)
    grade.needs_manual_grade = waits if grade.manual_score is None else side.graded != side.current
    return note


def _notice(session: Session, student: str | None = None, lab: str | None = None) -> None:
    """Take note of what people did in the form grader: new scores, and old ones that they let stand."""
    wanted = _joined(select(api.Grade, _Cell).select_from(api.Grade), api.GradeCell).join(
        _Cell,
        and_(
            _Cell.student == api.Student.id,
            _Cell.lab == api.Assignment.name,
            _Cell.grade_id == api.GradeCell.name,
        ),
    )
    wanted = wanted.where(
        or_(
            api.Grade.manual_score.is_distinct_from(_Cell.manual),
            api.Grade.extra_credit.is_distinct_from(_Cell.extra),
            and_(
                api.Grade.manual_score.is_not(None),
                api.Grade.needs_manual_grade.is_(False),
                _Cell.graded.is_distinct_from(_Cell.current),
            ),
        )
    )
    if student is not None:
        wanted = wanted.where(api.Student.id == student, api.Assignment.name == lab)
    touched = {}
    for grade, side in session.execute(wanted).all():
        key = (side.student, side.lab, side.grade_id)
        _record(session, key, "manual score", side.manual, grade.manual_score, BY_HAND)
        _record(session, key, "extra credit", side.extra, grade.extra_credit, BY_HAND)
        side.manual, side.extra = grade.manual_score, grade.extra_credit
        looked_at = side.shown or side.current
        side.graded = None if grade.manual_score is None else looked_at
        if grade.manual_score is not None and looked_at != side.current:
            grade.needs_manual_grade = True
        touched[grade.notebook] = session.get(_Submission, (side.student, side.lab))
    for submitted, submission in touched.items():
        _deduct(session, submitted, submission.late)


def _deduct(session: Session, submitted: api.SubmittedNotebook, late: float) -> None:
    """nbgrader knows points that are taken off, so they follow the score."""
    session.flush()
    session.refresh(submitted, ["grades"])
    score = sum(
        _score(grade.auto_score, grade.manual_score, grade.extra_credit) for grade in submitted.grades
    )
    submitted.late_submission_penalty = round((1 - late) * score, 6)


def _score(auto: float | None, manual: float | None, extra: float | None) -> float:
    """nbgrader's rule: the manual score goes before the automatic one; without either there is no extra."""
    base = auto if manual is None else manual
    return 0.0 if base is None else base + (extra or 0.0)


def _record(
    session: Session,
    key: tuple[str, str, str],
    what: str,
    old: float | None,
    new: float | None,
    by: str,
) -> None:
    if old != new:
        student, lab, grade_id = key
        now = datetime.now(UTC).isoformat(timespec="seconds")
        change = {"what": what, "old": old, "new": new, "by": by[:NAME]}
        session.add(_Change(time=now, student=student, lab=lab, grade_id=grade_id, **change))


def _joined(wanted: Any, cell: type) -> Any:
    """From grades to their students, labs and cells."""
    return (
        wanted.join(cell, cell.id == api.Grade.cell_id)
        .join(api.SubmittedNotebook, api.SubmittedNotebook.id == api.Grade.notebook_id)
        .join(api.SubmittedAssignment, api.SubmittedAssignment.id == api.SubmittedNotebook.assignment_id)
        .join(api.Assignment, api.Assignment.id == api.SubmittedAssignment.assignment_id)
        .join(api.Student, api.Student.id == api.SubmittedAssignment.student_id)
    )


def _digest(judged: Answer | FreeText | None) -> str:
    source = judged.source if judged else ""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def _sentences(answer: Answer) -> str | None:
    """What a student reads about an exercise, as nbgrader's comment."""
    sentences = dict.fromkeys((answer.mistake, *answer.notes, answer.partial))
    return _plain("\n".join(filter(None, sentences))) or None


def _plain(source: str) -> str:
    """Text that every database and file can hold, and that is no HTML where nbgrader shows comments.

    An exception's message may quote what a student wrote, and nbgrader's pages show comments as Markdown.
    """
    kept = "".join(sign for sign in source if sign in "\n\t" or sign >= " ")
    kept = kept.encode("utf-8", "replace").decode()
    return re.sub(r"<(?=[\w/!?])|\](?=[(:\[])", r"\g<0> ", kept)


def _stored_report(session: Session, student: str, lab: str) -> Report:
    try:
        return Report.from_json(session.get(_Submission, (student, lab)).report)
    except (ValueError, KeyError, TypeError) as error:
        raise BookError(
            f"The report on {lab} by {student} was stored by another version of the course; grade this "
            "submission again."
        ) from error


def _item(report: Report, grade_id: str) -> Answer | FreeText | None:
    return next((i for i in (*report.answers, *report.free_texts) if i.grade_id == grade_id), None)


def _check_name(student: str) -> None:
    """A name becomes a folder, and nbgrader shows it on its pages as if it were HTML."""
    wrong = (
        not student
        or len(student) > NAME
        or student != student.strip()
        or student.startswith(".")
        or not student.isprintable()
        or re.search(r'[<>&"`/\\:*?|\[\]{}]', student)
    )
    if wrong:
        raise BookError(
            f"The name {student[:60]!r} of a student has signs that a folder or a page cannot have; give the "
            "student another one in the mapping file."
        )


# --------------------------------------------------------------------------- CSV files


DANGEROUS = re.compile(r"'*\s*[=+\-@＝＋－＠]|'*[\t\r\n]")


def _guarded(value: str) -> str:
    """What no spreadsheet takes for a formula."""
    value = value.replace("\0", "")
    return f"'{value}" if DANGEROUS.match(value) else value


def _unguarded(value: str) -> str:
    return value[1:] if value.startswith("'") and DANGEROUS.match(value[1:]) else value


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


def _table(standings: Iterable[Standing]) -> dict[str, dict[str, Standing]]:
    table: dict[str, dict[str, Standing]] = {}
    for standing in standings:
        table.setdefault(standing.student, {})[standing.lab] = standing
    return table


def _write_csv(path: Path, lines: Iterable[list[str]], mark: bool = True) -> None:
    sheet = io.StringIO(newline="")
    csv.writer(sheet).writerows(lines)
    whole = ("\ufeff" if mark else "") + sheet.getvalue()
    try:
        notebooks.write(path, whole.encode("utf-8", "replace").decode())
    except OSError as error:
        raise BookError(
            f"{path} cannot be written ({error.strerror}); close it in the spreadsheet and try again."
        ) from error


def _read_csv(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of a manual.csv, with the number that a spreadsheet shows. Takes what spreadsheets save."""
    try:
        whole = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BookError(
            f"{path} cannot be read ({error.strerror}); give the file that you filled in."
        ) from error
    except UnicodeDecodeError as error:
        raise BookError(
            f'{path.name} is not in UTF-8; save it from the spreadsheet as "CSV UTF-8".'
        ) from error
    header = whole.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        rows = list(csv.reader(io.StringIO(whole, newline=""), delimiter=separator))
    except csv.Error as error:
        raise BookError(
            f"{path.name} is not a table ({error}); write it anew and fill it in again."
        ) from error
    names = [name.strip() for name in rows[0]] if rows else []
    if absent := [
        name for name in ("student", "lab", "grade_id", "version", "score", "comment") if name not in names
    ]:
        raise BookError(f"{path.name} has no column {absent[0]!r}; keep the first row as it was written.")
    return [
        (number, dict(zip(names, map(_unguarded, [*row, *[""] * len(names)]), strict=False)))
        for number, row in enumerate(rows[1:], 2)
        if any(field.strip() for field in row)
    ]


def _manual_entry(session: Session, row: dict[str, str]) -> tuple[_Cell, api.Grade, float | None, str] | None:
    """What a row sets; None if nothing was filled in. Raises BookError, without the row's number."""
    score, comment = row["score"].strip(), row["comment"].strip()
    if not score and not comment:
        return None
    student, lab, grade_id = (
        _known_student(session, row["student"]),
        row["lab"].strip(),
        row["grade_id"].strip(),
    )
    wanted = _joined(select(api.Grade, api.GradeCell.max_score).select_from(api.Grade), api.GradeCell).where(
        api.Student.id == student, api.Assignment.name == lab, api.GradeCell.name == grade_id
    )
    found = session.execute(wanted).one_or_none()
    side = session.get(_Cell, (student, lab, grade_id))
    if found is None or side is None:
        raise BookError(f"{student} has no cell {grade_id!r} of a lab {lab!r}; correct these columns.")
    grade, points = found
    version = row["version"].strip()
    if version and version != _version(side):
        raise BookError(
            f"{student}'s answer {grade_id} has changed since the table was written; write a new table and "
            "look at it again."
        )
    if not score:
        return side, grade, None, comment
    plain = re.fullmatch(r"\d+([.,]\d+)?", score, re.ASCII)
    value = float(score.replace(",", ".")) if plain else math.inf
    if value > points:
        raise BookError(f"the score {score!r} is not a number from 0 to {_number(points)}; correct it.")
    return side, grade, value, comment


def _known_student(session: Session, name: str) -> str:
    """The student of this name. A spreadsheet may have taken 0042 for a number."""
    if session.get(api.Student, name) is not None:
        return name
    bare = name.strip()
    if bare.isdecimal() and len(bare) <= NAME:
        alike = session.scalars(select(api.Student.id).where(api.Student.id.like(f"0%{bare.lstrip('0')}")))
        same = [student for student in alike if student.isdecimal() and int(student) == int(bare)]
        if len(same) == 1:
            return same[0]
    raise BookError(f"there is no student {name!r} in the gradebook; write the name as it was.")


def _version(side: _Cell) -> str:
    """Which version of an answer a row is about; with a letter, or Excel could take it for a number."""
    return f"v-{side.current[:12]}"


def _waiting(session: Session) -> list[tuple[_Cell, api.Grade, float]]:
    wanted = _joined(
        select(_Cell, api.Grade, api.GradeCell.max_score).select_from(api.Grade), api.GradeCell
    ).join(
        _Cell,
        and_(
            _Cell.student == api.Student.id,
            _Cell.lab == api.Assignment.name,
            _Cell.grade_id == api.GradeCell.name,
        ),
    )
    # Question by question: people grade more evenly so.
    order = (_Cell.lab, _Cell.grade_id, _Cell.student)
    rows = session.execute(wanted.where(api.Grade.needs_manual_grade.is_(True)).order_by(*order))
    return [tuple(row) for row in rows]


def _comment_on(grade: api.Grade) -> api.Comment:
    """The comment that belongs to a cell with points: at itself, or at the exercise above a verdict."""
    comments = {comment.cell.name: comment for comment in grade.notebook.comments}
    name = grade.cell.name
    return comments.get(name) or comments[name.replace("verdict-", "ex-", 1)]


# --------------------------------------------------------------------------- the form grader's folder


def _staged(lab: _Lab, report: Report) -> NotebookNode:
    """The released notebook with a student's answers, without anything that could run in a browser."""
    answers = {name: _item(report, name) for name in lab.graded}
    sources = {lab.graded[name].comments or name: item for name, item in answers.items()}
    cells = []
    for released in lab.notebook.cells:
        cell = copy.copy(released)
        cells.append(cell)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name not in lab.solutions or name not in sources:
            continue
        item = sources[name]
        source = item.source if item and item.source else MISSING
        source = "".join(sign for sign in source if sign in "\n\t" or sign >= " ")
        source = source.encode("utf-8", "replace").decode()
        if len(source) > STAGED:
            source = f"{source[:STAGED]}\n[cut here: {len(source):,} characters]"
        if cell.cell_type == "markdown":
            cell.source = f'<pre style="white-space: pre-wrap">{_one_line(source)}</pre>'
        else:
            cell.source = source if item and item.source else f"# {source}"
    return NotebookNode({**lab.notebook, "cells": cells})


def _one_line(source: str) -> str:
    """Text as one line of HTML, in which neither Markdown nor MathJax finds anything to do."""
    return html.escape(source).replace("\n", "&#10;")


def _received() -> Any:
    """Student, lab and time of every submission of ours."""
    return (
        select(_Submission.student, _Submission.lab, api.SubmittedAssignment.timestamp)
        .join(api.SubmittedAssignment, api.SubmittedAssignment.student_id == _Submission.student)
        .join(api.Assignment, api.Assignment.id == api.SubmittedAssignment.assignment_id)
        .where(api.Assignment.name == _Submission.lab)
    )


def _config(url: URL, folder: Path) -> str:
    if url.get_backend_name() == "sqlite":
        relative = os.path.relpath(url.database, folder.resolve())
        database = f'"sqlite:///" + os.path.abspath(os.path.join(root, {relative!r}))'
    else:
        database = repr(url.render_as_string(hide_password=False))
    return f'''"""Written by `python -m helpers.course grade`: run `jupyter lab` here, menu Nbgrader."""

import os

c = get_config()  # noqa: F821
root = os.path.dirname(os.path.abspath(__file__))
c.CourseDirectory.root = root
c.CourseDirectory.db_url = {database}
c.FormgradeExtension.debug = False  # it would show the address of the database
# nbgrader's own grading would run students' code without a sandbox. No notebook is in submitted/, and if
# somebody puts one there, it is not run.
c.Autograde.autograde_preprocessors = []
'''


def _write_private(path: Path, whole: str) -> None:
    """The address of a database may hold its password."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(whole.encode())
