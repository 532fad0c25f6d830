"""`grade`: from what students handed in to a gradebook, feedback pages and a summary.

Each notebook is judged on its own, by `grading.judge` on whichever worker is free; this process alone writes.
A report is written to OUT/reports as soon as it is there, under a name that says what it was made from, so an
interrupted run goes on where it stopped, and only what has changed is graded again.
"""

import argparse
import functools
import hashlib
import os
import secrets
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from distributed import Client, KilledWorker, as_completed
from tqdm import tqdm

from helpers.course import notebooks
from helpers.course.grading import alike, pages
from helpers.course.grading.box import why_not
from helpers.course.grading.gradebook import Book
from helpers.course.grading.intake import Intake, Submission, find_submissions, latest
from helpers.course.grading.judge import GraderError, judge_notebook
from helpers.course.grading.lateness import Lateness, Policy
from helpers.course.grading.report import Report
from helpers.course.notebooks import CourseError

CLOCKS = ("mapping", "platform", "nbgrader", "submit")  # a file's own time may be that of the download
AHEAD = 3  # submissions per worker that are on their way, so that memory stays flat and no worker waits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("submissions", type=Path, help="a folder, or a zip as Moodle and Canvas make it")
    parser.add_argument(
        "--out", type=Path, default=Path("grading"), help="where everything goes (%(default)s)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes here (%(default)s)")
    parser.add_argument("--scheduler", help="address of a running dask scheduler, instead of processes here")
    parser.add_argument("--seed", help="what inputs are drawn from; by default random, kept in OUT/seed")
    parser.add_argument("--db", help="gradebook: a file or an SQLAlchemy URL (OUT/gradebook.db)")
    parser.add_argument("--mapping", type=Path, help="CSV file,student for files with unclear names")
    parser.add_argument("--policy", type=Path, help="TOML with deadlines, late penalties and extensions")
    parser.add_argument("--manual", type=Path, help="read scores from a filled-in manual.csv")
    parser.add_argument("--again", metavar="STUDENT", help="grade this student again (after an appeal)")
    parser.add_argument("--stage", type=Path, help="also write a course folder for nbgrader's form grader")
    parser.add_argument("--trusted", action="store_true", help="run submissions without the sandbox")


def main(args: argparse.Namespace) -> int:
    """Grade, write everything, and say where it is. 1 if that was not possible."""
    if not args.trusted and (reason := why_not()):
        print(reason, file=sys.stderr)
        return 1
    try:
        run(args)
    except (CourseError, GraderError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Stopped. The same command goes on from here; {args.out} keeps what is done.", file=sys.stderr)
        return 130
    return 0


def run(args: argparse.Namespace) -> None:
    """The whole command. Raises CourseError and GraderError."""
    out = args.out
    (out / "reports").mkdir(parents=True, exist_ok=True)
    seed = _seed(out / "seed", args.seed)
    policy = _policy(out / "policy.toml", args.policy)
    intake = find_submissions(args.submissions, mapping=args.mapping)
    counted = latest(intake.submissions)
    if not counted:
        raise CourseError("\n".join([f"{args.submissions} holds no notebook of a lab.", *intake.problems]))
    if args.again and args.again not in {submission.student for submission in counted}:
        raise CourseError(f"{args.again} has handed in nothing here; write the name as in grades.csv.")
    reports = {}
    todo = []
    for submission in counted:
        path = out / "reports" / _report_name(submission, seed)
        report = _stored(path) if submission.student != args.again else None
        if report:
            reports[submission.student, submission.lab] = report
        else:
            todo.append((submission, path))
    failed = []
    for report in graded(todo, seed, args, failed):
        reports[report.student, report.lab] = report
    counted = [s for s in counted if (s.student, s.lab) in reports]
    late = {}
    for s in counted:
        received = s.received if s.clock in CLOCKS else None
        late[s.student, s.lab] = policy.penalty(s.student, s.lab, received, s.late)
    with Book.open(args.db or out / "gradebook.db") as book:
        for submission in counted:
            key = submission.student, submission.lab
            by = "appeal" if submission.student == args.again else "graded"
            book.write(reports[key], received=submission.received, late=late[key].factor, by=by)
        manual = args.manual or out / "manual.csv"  # one that was filled in where it lies is not lost
        if args.manual or manual.exists():
            if rows := book.read_manual(manual):
                print(f"{rows} rows of {manual} were taken over.")
        waiting = write_tables(book, out, args.stage)
        write_pages(book, list(reports.values()), intake, late, policy, out)
    students = {student for student, _ in reports}
    print(
        f"{len(reports)} notebooks of {len(students)} students, {len(todo)} of them graded now. {waiting} "
        f"answers wait for a person, {len(intake.problems)} files for you to settle.\n"
        f"Open {out / 'summary.html'}."
    )
    if failed:
        raise GraderError("\n".join(failed))


def _seed(path: Path, wanted: str | None) -> str:
    """The secret of this grading. Raises CourseError if another one was used before."""
    if path.exists() and (kept := path.read_text(encoding="utf-8")):
        if wanted not in (None, kept):
            raise CourseError(f"{path} says another seed: leave --seed out, or choose another --out.")
        return kept
    seed = wanted if wanted is not None else secrets.token_hex(16)
    path.touch(mode=0o600)
    notebooks.write(path, seed)
    path.chmod(0o600)
    return seed


def _policy(kept: Path, given: Path | None) -> Policy:
    """The policy given, which is kept for later runs: without it nobody would be late any more."""
    if given is None:
        return Policy.read(kept) if kept.exists() else Policy()
    policy = Policy.read(given)
    notebooks.write(kept, given.read_text(encoding="utf-8-sig"))
    return policy


def _report_name(submission: Submission, seed: str) -> str:
    """Says what a report was made from: the file, the seed, the lab and the course's code."""
    digest = hashlib.sha256(seed.encode())
    lab = (notebooks.LABS / f"{submission.lab}.ipynb").read_bytes()
    for part in (submission.content, lab, _code()):
        digest.update(hashlib.sha256(part).digest())
    return f"{submission.student}-{submission.lab}-{digest.hexdigest()[:16]}.json"


@functools.cache
def _code() -> bytes:
    """All of the course's code: a reference that was wrong may have been corrected anywhere in it."""
    return b"".join(path.read_bytes() for path in sorted((notebooks.ROOT / "helpers").rglob("*.py")))


def _stored(path: Path) -> Report | None:
    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Judging, here or elsewhere --------------------------------------------------------------------------------


def judged(content: bytes, student: str, lab: str, file: str, seed: str, trusted: bool) -> str:
    """The task of a worker: a notebook in, a report out as JSON."""
    os.environ["OMP_NUM_THREADS"] = "1"
    return judge_notebook(content, student, lab, file, seed=seed, trusted=trusted).to_json()


def graded(
    todo: list[tuple[Submission, Path]], seed: str, args: argparse.Namespace, failed: list[str]
) -> Iterator[Report]:
    """Judge submissions on the workers; write each report to its path, then yield it.

    Where grading itself fails, a sentence goes into `failed`, and the others are judged all the same.
    """
    if not todo:
        return
    with _client(args) as client:
        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        waiting, running = iter(todo), as_completed()

        def add_one() -> None:
            if pair := next(waiting, None):
                submission, path = pair
                future = client.submit(
                    judged, submission.content, submission.student, submission.lab, submission.file, seed,
                    args.trusted, pure=False,
                )  # fmt: skip
                started[future.key] = pair
                running.add(future)

        started: dict[str, tuple[Submission, Path]] = {}
        for _ in range(AHEAD * workers):
            add_one()
        with tqdm(total=len(todo), unit="notebook") as bar:
            for future in running:
                submission, path = started.pop(future.key)
                add_one()
                bar.update()
                try:
                    text = future.result()
                    notebooks.write(path, text + "\n")
                    report = Report.from_json(text)
                except Exception as error:  # one notebook must not cost the others their grades
                    why = "it ended several workers" if isinstance(error, KilledWorker) else repr(error)
                    failed.append(f"{submission.file} could not be graded: {why}"[:1000])
                    continue
                finally:
                    future.release()
                yield report


def _client(args: argparse.Namespace) -> Client:
    if args.scheduler:
        return Client(args.scheduler, timeout=30)
    # A worker that dies is replaced, and its notebook judged by another one.
    return Client(n_workers=max(1, args.workers), threads_per_worker=1, dashboard_address=None)


# Writing ---------------------------------------------------------------------------------------------------


def write_tables(book: Book, out: Path, stage: Path | None) -> int:
    """Write the tables; how many answers wait for a person."""
    book.write_csv(out / "grades.csv")
    book.write_lms(out / "lms.csv")
    book.write_log(out / "log.csv")
    if stage:
        book.stage(stage)
    return book.write_manual(out / "manual.csv")


def write_pages(
    book: Book,
    reports: list[Report],
    intake: Intake,
    late: dict[tuple[str, str], Lateness],
    policy: Policy,
    out: Path,
) -> None:
    """Write the feedback pages and the summary."""
    of_student: dict[str, list[Report]] = defaultdict(list)
    for report in reports:
        of_student[report.student].append(report)
    links = {}
    for student, theirs in of_student.items():
        links[student] = f"feedback/{student}.html"
        sentences = {report.lab: late[student, report.lab].sentence for report in theirs}
        page = pages.feedback_page(theirs, manual=book.by_hand(student), late=sentences)
        notebooks.write(out / links[student], page)
    left = [(s.student, s.lab, cell) for s in book.grades() for cell in s.waiting]
    problems = [*intake.problems, *intake.notes]
    problems += [
        f"{name} has an extension, but handed in nothing." for name in policy.unknown_students(set(links))
    ]
    page = pages.summary_page(
        reports, problems=problems, alike=alike.alike(reports), manual_left=left, feedback=links
    )
    notebooks.write(out / "summary.html", page)
