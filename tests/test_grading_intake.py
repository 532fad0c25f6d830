"""Intake: what instructors have, what goes wrong in it, and what somebody may have planted in it."""

import io
import json
import os
import stat
import struct
import sys
import textwrap
import tracemalloc
import zipfile
import zlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from helpers.course.grading import intake, lateness
from helpers.course.grading.intake import find_submissions, latest
from helpers.course.notebooks import CourseError
from helpers.course.submit import stamped

LAB1, LAB2 = "01_numpy_saliency", "02_fashion_mnist_gradcam"
MOODLE = "_assignsubmission_file_"
NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def notebook(lab: str | None = "01", text: str = "", code: str = "x = 1") -> dict:
    """A small notebook, as JSON has it."""
    cells = [
        {"cell_type": "code", "metadata": {}, "source": code, "outputs": [], "execution_count": None},
        {"cell_type": "markdown", "metadata": {}, "source": [text]},
    ]
    course = {"course": {"lab": lab, "release": "abc"}} if lab else {}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": course, "cells": cells}


def raw(*args, **kwargs) -> bytes:
    return json.dumps(notebook(*args, **kwargs)).encode()


def made_by_submit(name: str, when: datetime, **kwargs) -> bytes:
    return json.dumps(stamped(notebook(**kwargs), name, when)).encode()


def packed(members: dict[str, bytes], when: datetime = NOON) -> bytes:
    """A zip archive. Its times are local, as zip has them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, when.astimezone().timetuple()[:6])
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


def laid_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def look(tmp_path):
    """`look(files, mapping="")`: find what was handed in as these files, of a course with two labs."""
    labs = laid_out(tmp_path / "labs", {f"{lab}.ipynb": b"{}" for lab in (LAB1, LAB2)})

    def find(files: dict[str, bytes] | Path, mapping: str = "") -> intake.Intake:
        path = files if isinstance(files, Path) else laid_out(tmp_path / "in", files)
        given = None
        if mapping:
            given = tmp_path / "mapping.csv"
            given.write_text(mapping, encoding="utf-8")
        return find_submissions(path, mapping=given, labs=labs)

    return find


def who(found: intake.Intake) -> list[tuple[str, str, int]]:
    return [(s.student, s.lab[:2], s.attempt) for s in found.submissions]


# --------------------------------------------------------------------------- what instructors have

STUDENTS = [("ada_lovelace", "01", 1), ("bob", "01", 1)]
LAYOUTS = {
    "a folder each": {"Ada Lovelace/01_numpy_saliency.ipynb": raw(), "bob/01_numpy_saliency.ipynb": raw()},
    "name first": {"ada_lovelace_01_numpy_saliency.ipynb": raw(), "bob_01_numpy_saliency.ipynb": raw()},
    "name last": {
        "01_numpy_saliency - Ada Lovelace.ipynb": raw(),
        "01_numpy_saliency-bob (1).ipynb": raw(),
    },
    "lab's number": {"lab 1 Ada Lovelace.ipynb": raw(), "01_bob.ipynb": raw()},
    "an archive each": {
        "Ada_Lovelace.zip": packed({"01_numpy_saliency.ipynb": raw()}),
        "bob_01.zip": packed({"work/01_numpy_saliency.ipynb": raw()}),
    },
    "nbgrader": {
        "ada_lovelace/ps1/01_numpy_saliency.ipynb": raw(),
        "bob/ps1/01_numpy_saliency.ipynb": raw(),
        "bob/ps1/.ipynb_checkpoints/01_numpy_saliency-checkpoint.ipynb": raw(),
    },
    "nbgrader's course": {
        "submitted/ada_lovelace/ps1/01_numpy_saliency.ipynb": raw(),
        "submitted/bob/ps1/01_numpy_saliency.ipynb": raw(),
        "source/ps1/01_numpy_saliency.ipynb": raw(),
        "release/ps1/01_numpy_saliency.ipynb": raw(),
    },
    "Moodle, unpacked": {
        f"Ada Lovelace_1234567{MOODLE}/01_numpy_saliency.ipynb": raw(),
        f"Bob_7654321{MOODLE}/my work.ipynb": raw(),
    },
    "Moodle without folders": {
        f"Ada Lovelace_1234567{MOODLE}01_numpy_saliency.ipynb": raw(),
        f"Bob_7654321{MOODLE}my work.ipynb": raw(),
    },
    "Moodle zip in a folder": {
        "CS101-Lab 01-12345.zip": packed(
            {
                f"Ada Lovelace_1234567{MOODLE}/01_numpy_saliency.ipynb": raw(),
                f"Bob_7654321{MOODLE}/bob.zip": packed({"01_numpy_saliency.ipynb": raw()}),
            }
        )
    },
    "folders of labs": {
        "01_numpy_saliency/ada_lovelace/01_numpy_saliency.ipynb": raw(),
        "01_numpy_saliency/bob.zip": packed({"01_numpy_saliency.ipynb": raw()}),
    },
    "no lab in the metadata": {
        "ada_lovelace/01_numpy_saliency.ipynb": raw(lab=None),
        "bob/work.ipynb": raw(lab=None, code='@exercise("1.3")\ndef f(): pass'),
    },
    "what systems leave": {
        "ada_lovelace/01_numpy_saliency.ipynb": raw(),
        "ada_lovelace/.DS_Store": b"x",
        "bob.zip": packed({"01_numpy_saliency.ipynb": raw(), "__MACOSX/._01_numpy_saliency.ipynb": b"x"}),
    },
    "renamed by a browser": {
        "ada_lovelace/01_numpy_saliency.ipynb.txt": raw(),
        "bob/01_numpy_saliency.ipynb.json": raw(),
    },
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(files, look):
    found = look(files)
    assert who(found) == STUDENTS
    assert found.problems == []
    assert all(json.loads(s.content)["nbformat"] == 4 for s in found.submissions)


def test_canvas(look, tmp_path):
    members = {
        "lovelaceada_12345_678901_01_numpy_saliency-1.ipynb": raw(text="second"),
        "lovelaceada_12345_678900_01_numpy_saliency.ipynb": raw(text="first"),
        "bob_LATE_222_678902_lab.zip": packed({"01_numpy_saliency.ipynb": raw()}),
        "eve_333_678903_text.html": b"<p>Here you are</p>",
    }
    path = tmp_path / "submissions.zip"
    path.write_bytes(packed(members))
    found = look(path)
    assert who(found) == [("bob", "01", 1), ("lovelaceada", "01", 1), ("lovelaceada", "01", 2)]
    assert [b"second" in s.content for s in found.submissions] == [False, False, True]
    assert [(s.late, s.received, s.clock) for s in found.submissions][:2] == [
        (True, None, ""),
        (False, None, ""),
    ]
    assert found.problems == [
        "submissions.zip/eve_333_678903_text.html holds no notebook (only "
        "submissions.zip/eve_333_678903_text.html); ask eve for it."
    ]
    assert found.submissions[0].file == "submissions.zip/bob_LATE_222_678902_lab.zip/01_numpy_saliency.ipynb"


def test_one_notebook_and_what_submit_made(look, tmp_path):
    path = tmp_path / f"{LAB1}-ada_lovelace-20261120T1200.ipynb"
    path.write_bytes(made_by_submit("Ada Lovelace", NOON))
    (submission,) = look(path).submissions
    assert (submission.student, submission.lab, submission.file) == ("ada_lovelace", LAB1, path.name)
    assert (submission.received, submission.clock) == (NOON, "submit")
    renamed = path.rename(tmp_path / "my homework.ipynb")
    assert who(look(renamed)) == [("ada_lovelace", "01", 1)]


def test_several_labs_and_attempts(look, tmp_path):
    files = {
        "ada/01_numpy_saliency.ipynb": raw(text="newer"),
        "ada/01_numpy_saliency (1).ipynb": raw(text="older"),
        "ada/02_fashion_mnist_gradcam.ipynb": raw("02"),
    }
    folder = laid_out(tmp_path / "in", files)
    os.utime(folder / "ada/01_numpy_saliency.ipynb", (2_000_000_000, 2_000_000_000))
    os.utime(folder / "ada/01_numpy_saliency (1).ipynb", (1_900_000_000, 1_900_000_000))
    found = look(folder)
    assert who(found) == [("ada", "01", 1), ("ada", "01", 2), ("ada", "02", 1)]
    assert [b"newer" in s.content for s in found.submissions] == [False, True, False]
    assert [s.content for s in latest(found.submissions)] == [raw(text="newer"), raw("02")]


def test_a_broken_last_attempt_does_not_count(look, tmp_path):
    folder = laid_out(tmp_path / "in", {f"ada/try {number}/{LAB1}.ipynb": raw() for number in (1, 2, 3)})
    (folder / f"ada/try 3/{LAB1}.ipynb").write_bytes(b"{")
    for number in (1, 2, 3):
        os.utime(folder / f"ada/try {number}/{LAB1}.ipynb", (2e9 + number,) * 2)
    found = look(folder)
    assert [s.readable for s in found.submissions] == [True, True, False]
    (counts,) = latest(reversed(found.submissions))
    assert (counts.attempt, counts.file) == (2, f"ada/try 2/{LAB1}.ipynb")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b"\xff\xfe{\x00}\x00"], ids=["empty", "torn", "list", "16"]
)
def test_content_that_is_no_notebook_is_handed_on(content, look):
    found = look({"ada/01_numpy_saliency.ipynb": content})
    (submission,) = found.submissions
    assert (submission.student, submission.lab, submission.content) == ("ada", LAB1, content)
    assert not submission.readable


def test_which_lab_is_not_clear(look):
    found = look({"ada/x.ipynb": raw(lab="07"), "bob/02_x.ipynb": raw(lab="07"), "eve/x.ipynb": b"{"})
    assert who(found) == [("bob", "02", 1)]
    assert [problem.partition(";")[0] for problem in found.problems] == [
        "ada/x.ipynb: it is not clear which lab this is",
        "eve/x.ipynb: it is not clear which lab this is",
    ]
    assert "bob/02_x.ipynb: its metadata names a lab that the course has not" in found.notes[0]


def test_metadata_beats_the_file_name(look):
    found = look({"ada/01_numpy_saliency.ipynb": raw("02")})
    assert who(found) == [("ada", "02", 1)]
    assert "its name says 01_numpy_saliency, but it is 02_fashion" in found.notes[0]


@pytest.mark.parametrize(
    "odd", [{"course": []}, {"course": {"lab": []}}, {"course": {"lab": {}}}, []], ids=repr
)
def test_odd_metadata(odd, look):
    content = json.dumps({**notebook(), "metadata": odd}).encode()
    assert who(look({"ada/01_numpy_saliency.ipynb": content})) == [("ada", "01", 1)]


# --------------------------------------------------------------------------- unclear names and the mapping

UNCLEAR = ["final.ipynb", "01_numpy_saliency.ipynb", "01_numpy_saliency final.ipynb", "my work.ipynb",
           "01_numpy_saliency_ada2.ipynb", "work 01_numpy_saliency.ipynb", "01_numpy_saliency copy.ipynb",
           "solution.zip.ipynb"]  # fmt: skip


@pytest.mark.parametrize("name", UNCLEAR)
def test_unclear_names_are_not_guessed(name, look):
    found = look({name: raw()})
    assert found.submissions == []
    assert found.problems == [
        f"{name}: its name does not say clearly whose it is; add a line to the mapping file: {name},STUDENT"
    ]
    mapped = look({name: raw()}, f"file,student\n{name},Ada Lovelace\n")
    assert who(mapped) == [("ada_lovelace", "01", 1)]
    assert mapped.problems == []


def test_an_unclear_archive(look, tmp_path):
    files = {"CS101 x7.zip": packed({"a/01_numpy_saliency.ipynb": raw(), "b/01_numpy_saliency.ipynb": raw()})}
    (problem,) = look(files).problems
    line = "add a line to the mapping file: CS101 x7.zip,STUDENT"
    assert problem.endswith(f"{line}; if it is a whole class's, grade it by itself")
    assert who(look(tmp_path / "in" / "CS101 x7.zip")) == [("a", "01", 1), ("b", "01", 1)]


def test_mapping(look):
    files = {
        "x1.ipynb": raw(),
        "x2.ipynb": raw(),
        "a,b.ipynb": raw(),
        "[1].ipynb": raw(),
        f"Eve_1{MOODLE}/01_numpy_saliency.ipynb": raw(),
    }
    text = 'File;Student;Received\nx?.ipynb;Ada;2026-11-20T13:00+01:00\n"a,b.ipynb";bob;\n[1].ipynb;cy;\n'
    found = look(files, text + f"Eve_1{MOODLE};Dr. Eve;\nnothing*;dan;\n")
    assert who(found) == [
        ("ada", "01", 1),
        ("ada", "01", 2),
        ("bob", "01", 1),
        ("cy", "01", 1),
        ("dr._eve", "01", 1),
    ]
    assert [(s.received, s.clock) for s in found.submissions[:2]] == [(NOON, "mapping")] * 2
    assert found.problems == ["Line 6 of the mapping fits no file (nothing*); correct or delete it."]


def test_a_pattern_does_not_reach_into_what_students_name(look):
    files = {"final.ipynb": raw(), f"Bob_1{MOODLE}/final.ipynb": raw(), "eve/final.ipynb": raw()}
    assert not intake._fits("a/b", "*") and not intake._fits("a", "a/*")
    found = look(files, "file,student\n*.ipynb,ada\n")
    assert who(found) == [("ada", "01", 1), ("bob", "01", 1), ("eve", "01", 1)]


MAPPINGS = {
    "no header": ("a.ipynb,ada\n", "must begin with the line: file,student"),
    "no student": ("file,student\na.ipynb,\n", "line 2: it needs a file and a student"),
    "no letter": ("file,student\na.ipynb,../..\n", "line 2: it needs a file and a student"),
    "twice": ("file,student\na.ipynb,ada\na.ipynb,bob\n", "line 3: line 2 gives a.ipynb to another"),
    "no time": ("file,student,received\na.ipynb,ada,noon\n", "'noon' is no time"),
}


@pytest.mark.parametrize("text, sentence", MAPPINGS.values(), ids=MAPPINGS)
def test_malformed_mapping(text, sentence, look):
    with pytest.raises(CourseError, match=sentence):
        look({"a.ipynb": raw()}, text)


def test_mapping_that_cannot_be_read(look, tmp_path):
    laid_out(
        tmp_path, {"labs/01_a.ipynb": b"", "in/a.ipynb": b"", "m.csv": "file,student\nä,b".encode("cp1252")}
    )
    with pytest.raises(CourseError, match="is not UTF-8 text"):
        find_submissions(tmp_path / "in", mapping=tmp_path / "m.csv", labs=tmp_path / "labs")
    with pytest.raises(CourseError, match="cannot be read"):
        find_submissions(tmp_path / "in", mapping=tmp_path / "none.csv", labs=tmp_path / "labs")


def test_nothing_to_read(look, tmp_path):
    with pytest.raises(CourseError, match="cannot be opened"):
        look(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_bytes(b"")
    with pytest.raises(CourseError, match="neither a folder nor a zip archive"):
        look(tmp_path / "notes.txt")
    (tmp_path / "torn.zip").write_bytes(packed({"a": b"1"})[:-10])
    with pytest.raises(CourseError, match="is no zip archive that can be opened"):
        look(tmp_path / "torn.zip")
    with pytest.raises(CourseError, match="There is no lab"):
        find_submissions(tmp_path, labs=tmp_path / "in")


# --------------------------------------------------------------------------- one student is not another


def test_a_student_cannot_hand_in_for_another(look):
    theirs = {
        "ada_lovelace/01_numpy_saliency.ipynb": raw(text="planted"),
        f"Ada Lovelace_1234567{MOODLE}/01_numpy_saliency.ipynb": raw(text="planted"),
        "01_numpy_saliency-ada_lovelace.ipynb": made_by_submit("Ada Lovelace", NOON, text="planted"),
    }
    files = {
        f"Ada Lovelace_1234567{MOODLE}/01_numpy_saliency.ipynb": raw(),
        f"Mallory_7654321{MOODLE}/all.zip": packed(theirs),
    }
    for name, content in theirs.items():
        files[f"Mallory_7654321{MOODLE}/{name}"] = content
    found = look(files)
    assert [s.content for s in found.submissions if s.student == "ada_lovelace"] == [raw()]
    assert [s.student for s in found.submissions] == ["ada_lovelace"] + ["mallory"] * 6
    assert any("made by `submit` for ada_lovelace" in note and "as mallory's" in note for note in found.notes)


@pytest.mark.parametrize("entry", ["mallory.zip", "lab01.zip", "export.zip"])
def test_an_invented_class_beside_students(entry, look):
    invented = packed({f"Ada_1234567{MOODLE}/01_numpy_saliency.ipynb": raw(text="planted")})
    found = look({"ada/01_numpy_saliency.ipynb": raw(), entry: invented})
    assert [(s.student, s.content) for s in found.submissions] == [("ada", raw())]
    assert found.problems == [
        f"{entry} looks like a whole class's, but lies beside single students' (ada); grade it by itself or, "
        f"if it is one student's, add to the mapping file: {entry},STUDENT"
    ]


def test_an_invented_class_in_a_folder(look):
    invented = {f"mallory/Ada_1{MOODLE}/01_numpy_saliency.ipynb": raw(text="planted")}
    found = look({"ada/01_numpy_saliency.ipynb": raw(), **invented})
    assert [(s.student, s.content) for s in found.submissions] == [("ada", raw())]
    assert found.problems[0].startswith("mallory looks like a whole class's")


def test_a_group_is_not_taken_for_one_student(look):
    files = {f"tuesday/{name}/01_numpy_saliency.ipynb": raw(text=name) for name in ("ada", "bob")}
    found = look(files)
    assert found.submissions == []
    assert "tuesday holds one lab under several names (ada, bob)" in found.problems[0]
    mapped = look(files, "file,student\ntuesday/*,x\n")
    assert who(mapped) == [("x", "01", 1), ("x", "01", 2)]
    separate = look(files, "file,student\ntuesday/ada,ada\ntuesday/bob,bob\n")
    assert who(separate) == [("ada", "01", 1), ("bob", "01", 1)]


def test_flat_files_of_a_group(look):
    found = look({f"tuesday/{name}_01_numpy_saliency.ipynb": raw() for name in ("ada", "bob")})
    assert found.submissions == [] and "(ada, bob)" in found.problems[0]


NAMESAKES = {
    "Moodle": (
        {f"Ada_1{MOODLE}/01_numpy_saliency.ipynb": raw(), f"Ada_2{MOODLE}/01_numpy_saliency.ipynb": raw()},
        f"Ada_1{MOODLE},ada_1 / Ada_2{MOODLE},ada_2",
    ),
    "Canvas": (
        {"ada_1_5_01_numpy_saliency.ipynb": raw(), "ada_2_6_01_numpy_saliency.ipynb": raw()},
        "ada_1_5_01_numpy_saliency.ipynb,ada_1 / ada_2_6_01_numpy_saliency.ipynb,ada_2",
    ),
}


@pytest.mark.parametrize("files, lines", NAMESAKES.values(), ids=NAMESAKES)
def test_namesakes_are_not_merged(files, lines, look):
    found = look({**files, "bob_3_7_01_numpy_saliency.ipynb": raw()})
    assert who(found) == [("bob", "01", 1)]
    (problem,) = found.problems
    assert problem.startswith("Several people are called ada") and problem.endswith(lines)
    mapped = look(files, "file,student\n" + lines.replace(" / ", "\n"))
    assert who(mapped) == [("ada_1", "01", 1), ("ada_2", "01", 1), ("bob", "01", 1)]
    assert mapped.problems == []


def test_one_person_in_two_downloads_is_one(look):
    zips = {
        f"CS-{lab}.zip": packed({f"Ada Lovelace_{number}{MOODLE}/{lab}.ipynb": raw(lab[:2])})
        for number, lab in ((1, LAB1), (2, LAB2))
    }
    found = look(zips)
    assert who(found) == [("ada_lovelace", "01", 1), ("ada_lovelace", "02", 1)]


def test_case_collisions(look, tmp_path):
    members = {"Ada/01_numpy_saliency.ipynb": raw(), "ada/01_numpy_saliency.ipynb": raw(text="other")}
    path = tmp_path / "class.zip"
    path.write_bytes(
        packed({**members, "bob/01_numpy_saliency.ipynb": raw(), "bob/01_NUMPY_saliency.IPYNB": raw()})
    )
    found = look(path)
    assert who(found) == [("bob", "01", 1), ("bob", "01", 2)]
    assert "class.zip/Ada,ada_1 / class.zip/ada,ada_2" in found.problems[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_in_an_archive(look, tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("01_numpy_saliency.ipynb", raw(text="one"))
        archive.writestr("01_numpy_saliency.ipynb", raw(text="two"))
    found = look({"ada.zip": out.getvalue()})
    assert who(found) == [("ada", "01", 1), ("ada", "01", 2)]
    assert {s.content for s in found.submissions} == {raw(text="one"), raw(text="two")}


def test_names_that_may_be_one_person_are_noted(look):
    found = look({"lovelace_ada/01_numpy_saliency.ipynb": raw(), "ada_lovelace_02.ipynb": raw("02")})
    assert "ada_lovelace and lovelace_ada may be one person; if so, map both to one name." in found.notes


# --------------------------------------------------------------------------- time


def test_moodle_dates_its_archive(look, tmp_path):
    stamp = made_by_submit("Ada", NOON - timedelta(days=3))
    inner = packed({"01_numpy_saliency.ipynb": stamp}, NOON - timedelta(days=9))
    path = tmp_path / "moodle.zip"
    path.write_bytes(packed({f"Ada_1{MOODLE}/01_numpy_saliency.ipynb": stamp, f"Bob_2{MOODLE}/x.zip": inner}))
    assert [(s.received, s.clock) for s in look(path).submissions] == [(NOON, "platform")] * 2


def test_what_submit_wrote_beats_the_time_of_a_copy(look):
    found = look({"ada/01_numpy_saliency.ipynb": made_by_submit("Ada", NOON - timedelta(days=400))})
    assert (found.submissions[0].received, found.submissions[0].clock) == (
        NOON - timedelta(days=400),
        "submit",
    )


def test_an_edited_stamp_is_ignored(look):
    content = made_by_submit("Ada", NOON).replace(b"2026-11-20T12:00:00Z", b"2026-11-10T12:00:00Z")
    found = look({"ada/01_numpy_saliency.ipynb": content})
    assert found.submissions[0].clock == "file"
    assert "was edited after `submit` made it" in found.notes[0]


def test_nbgraders_timestamp(look):
    files = {
        "ada/ps1/01_numpy_saliency.ipynb": raw(),
        "ada/ps1/timestamp.txt": b"2026-11-20 12:00:00.000000 UTC",
    }
    (submission,) = look(files).submissions
    assert (submission.received, submission.clock) == (NOON, "nbgrader")


def test_time_in_utc_and_no_time():
    info = zipfile.ZipInfo("a", (1980, 1, 1, 0, 0, 0))
    assert intake._time_of(info) is None
    info.extra = struct.pack("<HHBi", 0x5455, 5, 1, int(NOON.timestamp()))
    assert intake._time_of(info) == NOON
    info.extra = b"\x55\x54\xff\xff\x01"
    assert intake._time_of(info) is None
    info.date_time = (2026, 13, 40, 25, 61, 61)
    assert intake._time_of(info) is None


# --------------------------------------------------------------------------- hostile


def test_names_that_leave_the_archive(look, tmp_path):
    bad = {f"{place}{LAB1}.ipynb": raw() for place in ("../", "/etc/", "C:\\", "a/../../")}
    before = sorted(tmp_path.rglob("*"))
    found = look({"mallory.zip": packed(bad), "ada.zip": packed({"01_numpy_saliency.ipynb": raw()})})
    assert [(s.student, s.content) for s in found.submissions] == [("ada", raw())] + [("mallory", b"")] * 4
    assert len(found.problems) == 4
    assert all(
        "counts as unreadable: it has a name that leads out of its archive." in p for p in found.problems
    )
    made = set(tmp_path.rglob("*")) - set(before)
    assert {path.name for path in made} == {"in", "mallory.zip", "ada.zip"}  # what the test itself wrote


def test_a_damaged_archive_never_stops_the_intake(look, tmp_path):
    """Every archive that differs in one byte is read or refused with a sentence."""
    inner = packed({f"{LAB1}.ipynb": raw()})
    good = packed({f"Ada_1{MOODLE}/{LAB1}.ipynb": raw(), f"Bob_2{MOODLE}/b.zip": inner, "/": b""})
    path = tmp_path / "moodle.zip"
    refused = 0
    for position in range(len(good)):
        damaged = bytearray(good)
        damaged[position] ^= 0x2F if position % 2 else 0xFF
        path.write_bytes(damaged)
        try:
            found = look(path)
        except CourseError as error:
            refused += 1
            assert "is no zip archive that can be opened" in str(error)
        else:
            students = {s.student for s in found.submissions}
            both = {"ada", "bob"} <= students
            # An entry whose length is damaged may swallow the next; all else is handed on or told.
            assert both or found.problems or position > good.index(b"PK\x01\x02"), position
    assert 0 < refused < len(good) / 10


def linked(name: str, target: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, target)
    return out.getvalue()


def test_links_in_archives(look):
    found = look(
        {"mallory.zip": linked("01_numpy_saliency.ipynb", "/work/solutions/01_numpy_saliency.ipynb")}
    )
    (submission,) = found.submissions
    assert submission.content == b"" and "it is a link" in found.problems[0]


def test_links_on_disk(look, tmp_path):
    secret = tmp_path / "solutions" / "01_numpy_saliency.ipynb"
    laid_out(tmp_path, {"solutions/01_numpy_saliency.ipynb": raw(text="secret"), "in/ada/x.txt": b""})
    (tmp_path / "in/ada/01_numpy_saliency.ipynb").symlink_to(secret)
    (tmp_path / "in/mallory").symlink_to(secret.parent, target_is_directory=True)
    (tmp_path / "in/ada/more").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/eve_01_numpy_saliency.ipynb").symlink_to(secret)
    found = look(tmp_path / "in")
    assert [(s.student, s.content) for s in found.submissions] == [("ada", b""), ("eve", b"")]
    assert sorted(problem.partition(" ")[0] for problem in found.problems) == [
        "ada/01_numpy_saliency.ipynb",
        "ada/more",
        "eve_01_numpy_saliency.ipynb",
        "mallory",
    ]
    assert all("is a link, and links are not followed" in problem for problem in found.problems)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_pipes_and_folders_with_a_notebooks_name(look, tmp_path):
    laid_out(tmp_path, {"in/bob/01_numpy_saliency.ipynb/inside.ipynb": raw(), "in/ada/02.ipynb": raw("02")})
    os.mkfifo(tmp_path / "in/ada/01_numpy_saliency.ipynb")
    (tmp_path / "in/eve_01_numpy_saliency.ipynb").mkdir()
    found = look(tmp_path / "in")
    assert [(s.student, s.lab, s.content) for s in found.submissions] == [
        ("ada", LAB1, b""),
        ("ada", LAB2, raw("02")),
        ("bob", LAB1, b""),
        ("eve", LAB1, b""),
    ]
    assert [problem.partition(": ")[2] for problem in sorted(found.problems)] == [
        "it is a pipe or a device, not a file.",
        "it is a folder, not a notebook.",
        "it is a folder, not a notebook.",
    ]


def test_a_pipe_that_took_the_place_of_a_file(tmp_path):
    """Between looking and opening: opening must not wait for a writer, nor follow a link."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no pipes with names")
    (tmp_path / "a.ipynb").write_bytes(b"{}")
    node = intake._on_disk(tmp_path / "a.ipynb", "a.ipynb")
    (tmp_path / "a.ipynb").unlink()
    os.mkfifo(tmp_path / "a.ipynb")
    with pytest.raises(intake._Unreadable, match="it is no file"):
        node.read(10)
    (tmp_path / "a.ipynb").unlink()
    (tmp_path / "a.ipynb").symlink_to("/etc/hostname")
    with pytest.raises(intake._Unreadable, match="cannot be read"):
        node.read(1000)


def test_file_limit(look, monkeypatch):
    monkeypatch.setattr(intake, "FILE_LIMIT", 2_000_000)
    big = raw(text=" " * 2_000_000)
    found = look(
        {
            "ada/01_numpy_saliency.ipynb": big,
            "bob.zip": packed({f"{LAB1}.ipynb": big, f"{LAB2}.ipynb": raw("02")}),
        }
    )
    assert [(s.student, s.lab, len(s.content)) for s in found.submissions] == [
        ("ada", LAB1, 0),
        ("bob", LAB1, 0),
        ("bob", LAB2, len(raw("02"))),
    ]
    assert all("counts as unreadable: it is larger than 2 MB" in problem for problem in found.problems)
    assert len(found.problems) == 2


def test_a_bomb_costs_only_its_student(look, monkeypatch, tmp_path):
    """Its own budget: 60 files of 1 MB from 60 kB, and the other students' work after it is read."""
    monkeypatch.setattr(intake, "STUDENT_LIMIT", 5_000_000)
    bomb = packed({f"{number}/{LAB1}.ipynb": raw(text=" " * 1_000_000) for number in range(60)})
    assert len(bomb) < 200_000
    path = tmp_path / "moodle.zip"
    mine = {f"Zoe_3{MOODLE}/{LAB1}.ipynb": raw()}
    path.write_bytes(packed({f"Bob_2{MOODLE}/bomb.zip": bomb, **mine}))
    found = look(path)
    kept = [s for s in found.submissions if s.content]
    assert sum(len(s.content) for s in kept if s.student == "bob") <= 5_000_000
    assert [s.content for s in kept if s.student == "zoe"] == [raw()]
    assert sum("goes beyond 5 MB for one student" in problem for problem in found.problems) == 56


def test_a_real_bomb(look):
    """200 MB from 200 kB, in one file: not more is unpacked than the limit."""
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(10_000_000)
    crc, data = 0, []
    for _ in range(20):
        data.append(squeezed.compress(block))
        crc = zlib.crc32(block, crc)
    data = b"".join([*data, squeezed.flush()])
    name = f"{LAB1}.ipynb".encode()
    for claimed in (200_000_000, 10):  # what the header says is not what counts
        fields = (20, 0, 8, 0, 33, crc, len(data), claimed, len(name))
        local = struct.pack("<4sHHHHHIIIHH", b"PK\x03\x04", *fields, 0) + name + data
        central = struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\x01\x02", 20, *fields, 0, 0, 0, 0, 0, 0) + name
        end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, len(central), len(local), 0)
        tracemalloc.start()
        found = look({"mallory.zip": local + central + end})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * intake.FILE_LIMIT
        assert [s.content for s in found.submissions] == [b""]
        assert "counts as unreadable" in found.problems[0]


def test_an_archive_in_an_archive_has_the_same_budget(look, monkeypatch):
    monkeypatch.setattr(intake, "STUDENT_LIMIT", 1_000_000)
    found = look({"ada/x.zip": packed({f"{LAB1}.zip": bytes(2_000_000)})})
    assert [s.content for s in found.submissions] == [b""]
    assert found.problems == [
        f"ada/x.zip/{LAB1}.zip counts as unreadable: it is larger than what is left of 1 MB."
    ]


def test_too_many_entries(look, monkeypatch):
    monkeypatch.setattr(intake, "STUDENT_ENTRIES", 50)
    flood = packed({f"{number}.txt": b"" for number in range(51)})
    found = look({f"Bob_1{MOODLE}/{LAB1}.zip": flood, f"Ada_2{MOODLE}/{LAB1}.ipynb": raw()})
    assert [(s.student, s.content) for s in found.submissions] == [("ada", raw()), ("bob", b"")]
    assert "it holds more than 50 files" in found.problems[0]
    monkeypatch.setattr(zipfile, "ZipFile", None)  # it is counted before zipfile sees it
    with pytest.raises(intake._Unreadable, match="more than 50"):
        opened = intake._Node("a.zip", "a.zip", lambda: io.BytesIO(flood))
        intake._unpacked(opened, intake._Budget(entries=50))


def test_archives_in_archives(look):
    content = packed({f"{LAB1}.ipynb": raw()})
    for _ in range(intake.NESTING):
        content = packed({"more.zip": content})
    found = look({"ada.zip": content, "bob.zip": packed({"in.zip": packed({f"{LAB1}.ipynb": raw()})})})
    assert who(found) == [("bob", "01", 1)]
    assert "it is nested in more than 3 archives" in found.problems[0]


def test_deep_folders(look, tmp_path):
    deep = packed({"/".join("d" * 30) + f"/{LAB1}.ipynb": raw()})
    folder = laid_out(
        tmp_path / "in", {"bob/" + "/".join("d" * 30) + f"/{LAB1}.ipynb": raw(), "ada.zip": deep}
    )
    found = look(folder)
    assert [s.content for s in found.submissions] == []
    assert len(found.problems) == 2 and all("more than 20 folders deep" in p for p in found.problems)


def test_encrypted_torn_and_strangely_packed_archives(look, tmp_path):
    encrypted = bytearray(packed({f"{LAB1}.ipynb": raw()}))
    encrypted[encrypted.index(b"PK\x01\x02") + 8] |= 1
    damaged = bytearray(packed({f"{LAB1}.ipynb": raw()}))
    damaged[60] ^= 0xFF
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr(f"{LAB1}.ipynb", raw())
    files = {
        "a/x.zip": bytes(encrypted),
        "b/x.zip": bytes(damaged),
        "c/x.zip": out.getvalue(),
        f"d/{LAB1}.zip": packed({"a": b"1"})[:-12],
        f"e/{LAB1}.zip": b"",
        "f/x.zip": packed({f"{LAB1}.ipynb": raw()}),
        "g/x.7z": b"7z",
    }
    found = look({f"student {name}": content for name, content in files.items()})
    assert [(s.student[-1], s.content) for s in found.submissions] == [
        *((letter, b"") for letter in "abcde"),
        ("f", raw()),
    ]
    told = {problem[8]: problem for problem in found.problems}
    assert "is encrypted" in told["a"]
    assert "is damaged in its archive" in told["b"]
    assert "is packed in an unusual way" in told["c"]
    assert "is no zip archive that can be opened" in told["d"]
    assert "is no zip archive that can be opened" in told["e"]
    assert "is no zip archive; ask for the notebook" in told["g"]
    assert len(found.problems) == 6


def test_odd_encodings_of_names(look, tmp_path):
    """macOS writes UTF-8 without saying so; decomposed letters; control characters."""
    content = packed({"Zo\u00eb/01_numpy_saliency.ipynb": raw()})
    # ZipFile marks the name as UTF-8: take the mark (bit 11) away, in both headers
    unmarked = bytearray(content)
    unmarked[7] &= ~0x08
    unmarked[content.index(b"PK\x01\x02") + 9] &= ~0x08
    path = tmp_path / "class.zip"
    path.write_bytes(bytes(unmarked))
    assert who(look(path)) == [("zo\u00eb", "01", 1)]
    path.write_bytes(packed({"Zoe\u0308/01_numpy_saliency.ipynb": raw()}))
    assert who(look(path)) == [("zo\u00eb", "01", 1)]
    path.write_bytes(packed({"ev\u202ee\n/01_numpy_saliency.ipynb": raw()}))
    (submission,) = look(path).submissions
    assert submission.file == "class.zip/ev\ufffde\ufffd/01_numpy_saliency.ipynb"
    assert submission.student == "ev_e"


@pytest.mark.skipif(sys.platform != "linux", reason="only there may names be any bytes")
def test_names_that_are_not_text(look, tmp_path):
    folder = os.fsencode(tmp_path / "in") + b"/zo\xeb"
    os.makedirs(folder)
    Path(os.fsdecode(folder), f"{LAB1}.ipynb").write_bytes(raw())
    assert who(look(tmp_path / "in")) == [("zo\u00eb", "01", 1)]


def test_a_deep_notebook_and_long_numbers(look):
    files = {"ada/01_numpy_saliency.ipynb": b"[" * 1_000_000, "bob/01_numpy_saliency.ipynb": b"1" * 1_000_000}
    found = look(files)
    assert [(s.student, s.readable) for s in found.submissions] == [("ada", False), ("bob", False)]


def test_what_is_left_aside_is_told(look):
    found = look(
        {"ada/01_numpy_saliency.ipynb": raw(), "ada/photo.png": b"", "roster.csv": b"", "bob/a.pdf": b""}
    )
    assert found.problems == ["bob holds no notebook (only bob/a.pdf); ask bob for it."]
    assert "Left aside of ada, because they are no notebooks: ada/photo.png." in found.notes
    assert "Left aside, because they are no notebooks: roster.csv." in found.notes


# --------------------------------------------------------------------------- lateness

POLICY = """
timezone = "Europe/Berlin"
percent_per_day = 10
max_days = 5
[labs.01]
deadline = 2026-10-23T12:00:00
[labs.02]
deadline = 2026-12-04
percent_per_day = 30
max_days = 9
grace_minutes = 10
[extensions."Ada Lovelace"]
01 = 2026-10-30T12:00:00
02 = 2
"""


@pytest.fixture
def policy(tmp_path):
    """`policy(text)`: the policy that a file with this text states."""

    def read(text: str = POLICY) -> lateness.Policy:
        (tmp_path / "late.toml").write_text(text, encoding="utf-8")
        return lateness.Policy.read(tmp_path / "late.toml")

    return read


BERLIN = timezone(timedelta(hours=1))
SUMMER = timezone(timedelta(hours=2))
LATE = {
    "to the second": ("bob", LAB1, datetime(2026, 10, 23, 12, 0, tzinfo=SUMMER), 0, 1.0),
    "a second late": ("bob", LAB1, datetime(2026, 10, 23, 12, 0, 1, tzinfo=SUMMER), 1, 0.9),
    "another zone": ("bob", LAB1, datetime(2026, 10, 23, 10, 0, 1, tzinfo=UTC), 1, 0.9),
    "the first day's end": ("bob", LAB1, datetime(2026, 10, 24, 12, 0, tzinfo=SUMMER), 1, 0.9),
    "a day of 25 hours": ("bob", LAB1, datetime(2026, 10, 25, 12, 0, tzinfo=BERLIN), 2, 0.8),
    "after it": ("bob", LAB1, datetime(2026, 10, 25, 12, 0, 1, tzinfo=BERLIN), 3, 0.7),
    "five days": ("bob", LAB1, datetime(2026, 10, 28, 12, 0, tzinfo=BERLIN), 5, 0.5),
    "later than that": ("bob", LAB1, datetime(2026, 10, 28, 12, 0, 1, tzinfo=BERLIN), 6, 0.0),
    "another deadline": ("ada_lovelace", LAB1, datetime(2026, 10, 30, 12, 0, tzinfo=BERLIN), 0, 1.0),
    "later than that one": ("ada_lovelace", LAB1, datetime(2026, 10, 31, 12, 0, tzinfo=BERLIN), 1, 0.9),
    "end of the day, grace": ("bob", "02", datetime(2026, 12, 5, 0, 9, 59, tzinfo=BERLIN), 0, 1.0),
    "after the grace": ("bob", LAB2, datetime(2026, 12, 5, 0, 10, 1, tzinfo=BERLIN), 1, 0.7),
    "not below nothing": ("bob", LAB2, datetime(2026, 12, 10, 12, 0, tzinfo=BERLIN), 6, 0.0),
    "days more": ("Ada Lovelace", LAB2, datetime(2026, 12, 6, 23, 59, 59, tzinfo=BERLIN), 0, 1.0),
    "no deadline": ("bob", "03_cats", datetime(2030, 1, 1, tzinfo=UTC), 0, 1.0),
}


@pytest.mark.parametrize("student, lab, received, days, factor", LATE.values(), ids=LATE)
def test_lateness(student, lab, received, days, factor, policy):
    found = policy().penalty(student, lab, received)
    assert (found.days_late, found.factor) == (days, factor)


def test_lateness_in_words(policy):
    known = policy()
    said = [
        known.penalty("bob", "01", datetime(2026, 10, day, 11, tzinfo=UTC)).sentence for day in (1, 24, 30)
    ]
    assert said == [
        "Handed in in time (deadline 23 Oct 2026, 12:00 (UTC+02:00)).",
        "2 days late (deadline 23 Oct 2026, 12:00 (UTC+02:00), handed in 24 Oct 2026, 13:00 (UTC+02:00)): "
        "20 % of the score is taken off.",
        "7 days late (deadline 23 Oct 2026, 12:00 (UTC+02:00), handed in 30 Oct 2026, 12:00 (UTC+01:00)): "
        "later than 5 days, so it counts nothing.",
    ]
    assert "extended deadline 30 Oct" in known.penalty("ada_lovelace", "01", NOON).sentence


def test_no_time_is_not_late_and_says_so(policy):
    found = policy().penalty("bob", LAB1, None)
    assert (found.days_late, found.factor) == (0, 1.0)
    assert found.sentence.startswith(
        "When it was handed in is not known, so it counts as in time (deadline 23 Oct"
    )
    marked = policy().penalty("bob", LAB1, None, late=True)
    assert (marked.factor, marked.sentence[:27]) == (1.0, "The platform marked it late")


def test_small_policies(policy):
    assert policy("").penalty("bob", LAB1, NOON).factor == 1.0
    late = policy("percent_per_day = 0.5\n[labs.1]\ndeadline = 2026-11-18T12:00:00Z").penalty(
        "bob", LAB1, NOON
    )
    assert (late.days_late, late.factor) == (2, 0.99)
    assert policy().unknown_students({"bob"}) == ["ada_lovelace"]
    with pytest.raises(ValueError, match="needs a time zone"):
        policy().penalty("bob", LAB1, datetime(2026, 1, 1))


FAULTS = {
    "no TOML": ("labs = [", "late.toml is not TOML: .*; correct it there"),
    "a key": ("penalty = 3", "late.toml: penalty is not known; here stand timezone, labs"),
    "a key of a lab": ("[labs.01]\ndeadlin = 1", "labs.01.deadlin is not known; here stand deadline"),
    "a zone": ('timezone = "Mars"', "timezone is 'Mars', which this machine does not know"),
    "no text": ("timezone = 3", "timezone is 3, which this machine does not know"),
    "a path": ('timezone = "../etc"', "timezone is '../etc', which this machine does not know"),
    "no zone": (
        "[labs.01]\ndeadline = 2026-01-01T12:00:00",
        "labs.01.deadline has no time zone; set timezone",
    ),
    "quotes": ('[labs.01]\ndeadline = "2026-01-01"', "labs.01.deadline is '2026-01-01'; give a time without"),
    "no deadline": ("[labs.01]\nmax_days = 1", "labs.01 has no deadline; add one"),
    "a lab twice": (
        "".join(f"[labs.{n}]\ndeadline=2026-01-01T00:00:00Z\n" for n in ("1", "01")),
        "second time",
    ),
    "no lab": ("[labs.final]\ndeadline = 2026-01-01T00:00:00Z", "labs.final: final is no lab"),
    "no table": ("labs = 3", "labs is not a table"),
    "a lab, no table": ("[labs]\n01 = 2026-01-01", "labs.01 is not a table"),
    "too much": ("percent_per_day = 101", "percent_per_day is 101; give a number from 0 to 100"),
    "negative": ("max_days = -1", "max_days is -1; give a whole number"),
    "true": ("percent_per_day = true", "percent_per_day is True; give a number"),
    "half a day": ("max_days = 1.5", "max_days is 1.5; give a whole number"),
    "not a number": ("percent_per_day = nan", "percent_per_day is nan"),
    "lab of a student": ("[extensions.ada]\n01 = 3", r"extensions.ada.01: there is no \[labs.01\] to extend"),
    "no days": (POLICY.replace("02 = 2", "02 = 0"), "extensions.Ada Lovelace.02 is 0 days"),
    "true days": (POLICY.replace("02 = 2", "02 = true"), "extensions.Ada Lovelace.02 is True; give a time"),
    "a student twice": (
        POLICY + "[extensions.ada_lovelace]\n",
        "extensions.ada_lovelace names no student, or one",
    ),
}


@pytest.mark.parametrize("text, sentence", FAULTS.values(), ids=FAULTS)
def test_faults_of_a_policy(text, sentence, policy):
    with pytest.raises(CourseError, match=sentence) as raised:
        policy(text)
    assert "\n" not in str(raised.value)


def test_a_policy_that_cannot_be_read(tmp_path):
    with pytest.raises(CourseError, match=r"none.toml cannot be read \(No such file"):
        lateness.Policy.read(tmp_path / "none.toml")
    (tmp_path / "late.toml").write_bytes("timezone = 'Zürich'".encode("cp1252"))
    with pytest.raises(CourseError, match="not UTF-8 text"):
        lateness.Policy.read(tmp_path / "late.toml")


def test_the_example_of_the_module_is_a_policy(policy):
    text = textwrap.dedent("\n".join(lateness.__doc__.split("\n")[1:]))
    found = policy(text)
    assert found.penalty("ada_lovelace", "02", datetime(2026, 12, 7, 12, tzinfo=UTC)).factor == 1.0
