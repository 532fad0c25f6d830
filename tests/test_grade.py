"""The command `grade`, whole: a folder of submissions in, a gradebook and pages out."""

import csv
import json
import os
import signal
import threading
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import nbformat
import psutil
import pytest
from distributed import LocalCluster

from helpers.course import grade, notebooks
from helpers.course.grading import box, judge

LAB = "01_numpy_saliency"


@pytest.fixture
def sandbox() -> None:
    if reason := box.why_not():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture
def submissions(tmp_path: Path) -> Path:
    """Ada has everything right, Ben one mistake and a free answer, Cleo's file is no notebook."""
    folder = tmp_path / "submissions"
    right = nbformat.read(notebooks.SOLUTIONS / f"{LAB}.ipynb", 4)
    for cell in right.cells:
        if cell.metadata.get("nbgrader", {}).get("grade_id") in ("discuss-1", "discuss-2", "discuss-3"):
            cell.source = "YOUR ANSWER HERE"
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "transfer":
            cell.source = ""
    hand_in(folder / "ada", right)
    for cell in right.cells:
        cell.source = cell.source.replace("grad_out * (x > 0)", "grad_out * (x >= 0)")
        if cell.metadata.get("nbgrader", {}).get("grade_id") == "discuss-1":
            cell.source = "Because <b>ReLU</b> is flat there."
    hand_in(folder / "ben", right)
    (folder / "cleo").mkdir()
    (folder / "cleo" / f"{LAB}.ipynb").write_text('{"cells": ', encoding="utf-8")
    return folder


def hand_in(folder: Path, notebook: nbformat.NotebookNode) -> None:
    folder.mkdir(parents=True)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, folder / f"{LAB}.ipynb")


def run(*arguments: object) -> int:
    parser = ArgumentParser()
    grade.add_arguments(parser)
    return grade.main(parser.parse_args([str(argument) for argument in arguments]))


def totals(out: Path) -> dict[str, str]:
    with open(out / "lms.csv", encoding="utf-8", newline="") as file:
        return {row["student"]: row[LAB] for row in csv.DictReader(file)}


def test_grading_again_and_by_hand(sandbox: None, submissions: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    assert run(submissions, "--out", out, "--workers", 2) == 0
    assert totals(out) == {"ada": "10", "ben": "9", "cleo": "0"}
    assert "3 of them graded now. 1 answers wait" in " ".join(capsys.readouterr().out.split())
    page = (out / "feedback" / "ben.html").read_text(encoding="utf-8")
    assert "exactly 0" in page and "&lt;b&gt;ReLU" in page and "<b>ReLU" not in page
    summary = (out / "summary.html").read_text(encoding="utf-8")
    assert "exactly 0" in summary and "cleo" in summary
    assert (out / "seed").stat().st_mode & 0o077 == 0
    reports = {path: path.stat().st_mtime_ns for path in (out / "reports").iterdir()}
    assert len(reports) == 3

    # A person grades Ben's answer; nothing is judged a second time.
    with open(out / "manual.csv", encoding="utf-8-sig", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["student"], row["grade_id"]) == ("ben", "discuss-1")
    row.update(score="1.5", comment="Say why.")
    with open(out / "manual.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    assert run(submissions, "--out", out) == 0
    assert "0 of them graded now. 0 answers wait" in " ".join(capsys.readouterr().out.split())
    assert totals(out)["ben"] == "10.5"
    assert {path: path.stat().st_mtime_ns for path in (out / "reports").iterdir()} == reports
    assert "Say why." in (out / "feedback" / "ben.html").read_text(encoding="utf-8")

    # Ben appeals: he alone is judged again, and the score by hand stays.
    assert run(submissions, "--out", out, "--again", "ben") == 0
    assert "1 of them graded now" in " ".join(capsys.readouterr().out.split())
    assert totals(out)["ben"] == "10.5"
    after = {path: path.stat().st_mtime_ns for path in (out / "reports").iterdir()}
    assert {path.name.partition("-")[0] for path in after if after[path] != reports[path]} == {"ben"}

    # Cleo hands in again, and only that is judged.
    (submissions / "cleo" / f"{LAB}.ipynb").write_bytes((submissions / "ada" / f"{LAB}.ipynb").read_bytes())
    assert run(submissions, "--out", out) == 0
    assert "1 of them graded now" in " ".join(capsys.readouterr().out.split())
    assert totals(out) == {"ada": "10", "ben": "10.5", "cleo": "10"}


def test_killed_worker_loses_nothing(sandbox: None, submissions: Path, tmp_path: Path) -> None:
    """One of two workers is killed in the middle of its work."""
    content = (submissions / "ada" / f"{LAB}.ipynb").read_bytes()
    for name in ("dana", "eve", "finn"):
        (submissions / name).mkdir()
        (submissions / name / f"{LAB}.ipynb").write_bytes(content)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        workers = [nanny.pid for nanny in cluster.workers.values()]
        killed = []

        def kill_one() -> None:
            while not killed:
                for pid in workers:
                    if any("runner.py" in "".join(p.cmdline()) for p in psutil.Process(pid).children(True)):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        return
                time.sleep(0.05)

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        out = tmp_path / "out"
        assert run(submissions, "--out", out, "--scheduler", cluster.scheduler_address) == 0
        killer.join(1)
        assert killed
    assert totals(out) == {
        "ada": "10", "ben": "9", "cleo": "0", "dana": "10", "eve": "10", "finn": "10",
    }  # fmt: skip
    assert len(list((out / "reports").iterdir())) == 6


def test_interrupted_run_keeps_what_is_done(submissions: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """Interrupted after the first report; the next run judges the other two."""
    monkeypatch.setattr(grade, "why_not", lambda: "")
    calls = []

    def graded(todo: list, seed: str, args: Namespace, failed: list):
        for submission, path in todo:
            calls.append(submission.student)
            if len(calls) == 2:
                raise KeyboardInterrupt
            report = judge.judge_notebook(b"", submission.student, LAB, "x", seed=seed)
            notebooks.write(path, report.to_json())
            yield report

    monkeypatch.setattr(grade, "graded", graded)
    out = tmp_path / "out"
    assert run(submissions, "--out", out) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert run(submissions, "--out", out) == 0
    assert sorted(calls[2:]) == sorted({"ada", "ben", "cleo"} - {calls[0]})


def test_no_sandbox_refuses(submissions: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(grade, "why_not", lambda: "The sandbox needs Linux. Add --trusted.")
    assert run(submissions, "--out", tmp_path / "out") == 1
    assert "--trusted" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_why_not_says_what_to_do(monkeypatch) -> None:
    monkeypatch.setattr(box.shutil, "which", lambda name: None)
    assert "apt install bubblewrap" in box.why_not.__wrapped__() and "--trusted" in box.why_not.__wrapped__()
    monkeypatch.setattr(box.sys, "platform", "win32")
    assert "WSL" in box.why_not.__wrapped__()


def test_trusted_submissions_run_without_a_sandbox(submissions: Path, monkeypatch) -> None:
    monkeypatch.setattr(box, "why_not", lambda: "none here")
    content = (submissions / "ben" / f"{LAB}.ipynb").read_bytes()
    with pytest.raises(box.NoSandbox, match="none here"):
        judge.judge_notebook(content, "ben", LAB, "x", seed="s")
    report = judge.judge_notebook(content, "ben", LAB, "x", seed="s", trusted=True)
    assert report.score == 9 and report.answers[0].verdict == "known mistake"


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--seed", "another"], "says another seed"),
        (["--again", "zoe"], "zoe has handed in nothing"),
        (["--mapping", "none.csv"], "none.csv"),
        (["--policy", "none.toml"], "none.toml"),
    ],
    ids=["seed", "again", "mapping", "policy"],
)
def test_what_cannot_be_done(
    options: list, sentence: str, submissions: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr(grade, "why_not", lambda: "")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seed").write_text("one", encoding="utf-8")
    assert run(submissions, "--out", tmp_path / "out", *options) == 1
    assert sentence in capsys.readouterr().err


def test_empty_folder(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(grade, "why_not", lambda: "")
    (tmp_path / "x").mkdir()
    assert run(tmp_path / "x", "--out", tmp_path / "out") == 1
    assert "holds no notebook" in capsys.readouterr().err


def test_late(submissions: Path, tmp_path: Path, monkeypatch) -> None:
    """A late hand-in costs what the policy says; a file's own time, which a download sets anew, does not."""
    monkeypatch.setattr(grade, "why_not", lambda: "")

    def graded(todo: list, seed: str, args: Namespace, failed: list):
        for submission, _ in todo:
            blank = judge.judge_notebook(b"", submission.student, LAB, "x", seed=seed)
            fields = json.loads(blank.to_json())
            for answer in fields["answers"]:
                answer.update(score=1, verdict="right")
            yield type(blank).from_json(json.dumps(fields))

    monkeypatch.setattr(grade, "graded", graded)
    policy = tmp_path / "policy.toml"
    policy.write_text("percent_per_day = 10\n[labs.01]\ndeadline = 2026-01-01T12:00:00Z\n", encoding="utf-8")
    mapping = tmp_path / "mapping.csv"
    mapping.write_text("file,student,received\nada/*,ada,2026-01-02T13:00:00Z\n", encoding="utf-8")
    out = tmp_path / "out"
    assert run(submissions, "--out", out, "--policy", policy, "--mapping", mapping) == 0
    assert totals(out) == {"ada": "8", "ben": "10", "cleo": "10"}
    assert "2 days late" in (out / "feedback" / "ada.html").read_text(encoding="utf-8")
    assert run(submissions, "--out", out, "--mapping", mapping) == 0  # the policy is remembered
    assert totals(out)["ada"] == "8"


def test_grading_that_fails_spares_the_others(submissions: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(grade, "why_not", lambda: "")
    monkeypatch.setattr(grade, "judged", _failing_for_ben)
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        out = tmp_path / "out"
        assert run(submissions, "--out", out, "--scheduler", cluster.scheduler_address) == 1
    assert "ben" in capsys.readouterr().err
    assert set(totals(out)) == {"ada", "cleo"}


def _failing_for_ben(content: bytes, student: str, lab: str, file: str, seed: str, trusted: bool) -> str:
    if student == "ben":
        raise judge.GraderError("The course does not start.")
    return judge.judge_notebook(b"", student, lab, file, seed=seed).to_json()
