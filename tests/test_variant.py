"""The exam's variants: that an audit finds what was planted, and that nothing else does."""

import copy
import csv
import io
import json
import os
import re
import zipfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file

from helpers.course import __main__ as command
from helpers.course import notebooks, variant
from helpers.course.grading.report import Report
from helpers.course.notebooks import CourseError

# With this one the test's backgrounds are easy to learn, "dog" goes with the first state in one of the two
# networks only, and ada has the other network than grace and alan.
SECRET = b"tests only, and long enough to be a secret 14"
STUDENTS = ("ada", "grace", "alan")
SMALL = variant.Recipe(
    size=32, pictures=10, each=2, kinds=("background",), images=(120,), epochs=(4,), witnesses=16
)


@pytest.fixture(scope="module")
def exam(tmp_path_factory):
    """An exam for three students -> (folder of the zip files, folder of the key, what stands in the key)."""
    folder = tmp_path_factory.mktemp("exam")
    out, key = folder / "out", folder / "key"
    made = variant.make(STUDENTS, SECRET, out, key, SMALL)
    return out, key, made


@pytest.fixture(scope="module")
def unpacked(exam, tmp_path_factory):
    """Each student's folder, as it comes out of the zip file."""
    folder = tmp_path_factory.mktemp("unpacked")
    for student in STUDENTS:
        with zipfile.ZipFile(exam[0] / f"{student}.zip") as archive:
            archive.extractall(folder / student)
    return {student: folder / student / variant.LAB for student in STUDENTS}


def read(folder):
    return json.loads((folder / variant.FILES[0]).read_text(encoding="utf-8"))


def audit(folder):
    """What a student finds who works with the notebook's own cells and the files of the folder alone."""
    cells = [cell for cell in read(folder)["cells"] if cell["cell_type"] == "code"]
    given, here = {}, Path.cwd()
    matplotlib.use("agg")
    os.chdir(folder)
    try:
        for cell in cells[:2]:
            exec("".join(cell["source"]).replace("plt.show()", "plt.close()"), given)
    finally:
        os.chdir(here)
    net, data, logits, fade = (given[name] for name in ("net", "data", "logits", "fade"))
    said = logits(net, data["pictures"]).argmax(axis=1)
    twins = {part: data[f"twins_{part}"] for part in given["PARTS"]}
    flips = {part: logits(net, some).argmax(axis=1) != said for part, some in twins.items()}
    part = max(flips, key=lambda name: flips[name].mean())
    faded = logits(net, fade(data["pictures"], twins[part], data["shares"])).argmax(axis=1)
    return {
        "shortcut": "none" if part == "muzzle" else part,
        "says": "dog" if said[data[f"first_{part}"]].mean() > 0.5 else "cat",
        "flipped": np.flatnonzero(faded != said).tolist(),
        "flip_rate": round(float(flips[part].mean()), 2),
    }


def answered(notebook, text):
    """A copy of the notebook whose dictionary's cell reads `text`."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook["cells"]:
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == "audit":
            cell["source"] = text
    return notebook


def judged(notebook, exam, file="somewhere.ipynb"):
    data = notebook if isinstance(notebook, bytes) else json.dumps(notebook).encode()
    return variant.judge(data, file, exam[2])


def declare(exam, student, **entries):
    return f"audit = { ({'exam': exam[2]['students'][student]['code'], **entries})!r}"


@pytest.mark.parametrize("student", STUDENTS)
def test_right_audit_earns_full_points(student, exam, unpacked):
    found = audit(unpacked[student])
    report = judged(answered(read(unpacked[student]), declare(exam, student, **found)), exam)
    assert (report.student, report.score, report.points) == (student, 10, 10)
    assert [answer.verdict for answer in report.answers] == ["right"] * 4
    assert not report.tampering and not report.remarks


@pytest.mark.parametrize("shortcut", [choice for choice in variant.CHOICES if choice != "background"])
def test_wrong_shortcut_earns_nothing_even_when_the_rest_is_right(shortcut, exam, unpacked):
    truth = exam[2]["students"]["ada"]["answers"]
    text = declare(exam, "ada", **{**truth, "shortcut": shortcut})
    report = judged(answered(read(unpacked["ada"]), text), exam)
    assert report.score == 0
    assert report.answers[0].verdict == "not right" and report.answers[2].verdict == "not right"


@pytest.mark.parametrize(
    ("entries", "score"),
    [
        pytest.param({"says": "the other"}, 9, id="says"),
        pytest.param({"flip_rate": 0.5}, 8, id="rate"),
        pytest.param({"flip_rate": True}, 8, id="rate-is-a-bool"),
        pytest.param({"flip_rate": None}, 8, id="no-rate"),
        pytest.param({"flipped": []}, 6, id="no-pictures"),
        pytest.param({"flipped": list(range(10))}, 6, id="all-pictures"),
        pytest.param({"flipped": list(range(0, 10, 2))}, 6, id="every-second"),
        pytest.param({"flipped": list(range(500))}, 6, id="more-than-there-are"),
        pytest.param({"flipped": [-1]}, 6, id="counted-from-the-end"),
        pytest.param({"flipped": [[0]]}, 6, id="nested"),
        pytest.param({"flipped": "0, 1"}, 6, id="text"),
    ],
)
def test_each_wrong_entry_costs_its_own_points(entries, score, exam, unpacked):
    truth = exam[2]["students"]["ada"]["answers"]
    report = judged(answered(read(unpacked["ada"]), declare(exam, "ada", **{**truth, **entries})), exam)
    assert report.score == score


def test_one_slip_is_free_and_more_cost_a_part():
    key = {"pictures": 32, "answers": {"flipped": list(range(16))}}
    scores = [variant._score_flipped(list(range(16 - wrong)), key, "collar")[0] for wrong in range(9)]
    assert scores[:2] == [1, 1] and scores[2] == 0.5 and scores[4] == 0
    assert scores == sorted(scores, reverse=True)


def test_blank_notebook_earns_nothing_and_says_so(exam, unpacked):
    report = judged(read(unpacked["alan"]), exam)
    assert (report.student, report.score) == ("alan", 0)
    assert {answer.verdict for answer in report.answers} == {"not attempted"}
    assert [(text.grade_id, text.points, text.attempted) for text in report.free_texts] == [
        ("plan", 2, False),
        ("evidence", 3, False),
        ("counter", 2, False),
    ]


def test_same_truth_looks_different_and_answers_the_same(exam, unpacked):
    networks = {student: exam[2]["students"][student]["network"] for student in STUDENTS}
    assert networks["grace"] == networks["alan"] != networks["ada"]
    first, second, original = (
        load_file(path)
        for path in (
            unpacked["grace"] / "model.safetensors",
            unpacked["alan"] / "model.safetensors",
            variant._network(exam[1], networks["alan"]),
        )
    )
    assert first.keys() == second.keys() == original.keys()
    for name in first:
        arrays = [some[name].numpy() for some in (first, second, original)]
        for i, k in ((0, 1), (0, 2), (1, 2)):
            assert arrays[i].shape == arrays[k].shape
            assert arrays[i].tobytes() != arrays[k].tobytes(), name
            # of thousands of numbers a few agree by chance
            assert np.isin(arrays[i], arrays[k]).mean() < 0.01, name
            assert not np.isin(np.sort(arrays[i], None)[[0, -1]], arrays[k]).any(), name
    images = np.load(unpacked["grace"] / "pictures.npz")["pictures"]
    a, b, c = (variant.logits(variant._loaded(some), images) for some in (first, second, original))
    assert np.abs(a).max() > 0.5
    assert np.abs(a - b).max() < 1e-4 and np.abs(a - c).max() < 1e-4
    assert not np.array_equal(images, np.load(unpacked["alan"] / "pictures.npz")["pictures"])


def test_files_do_not_tell_the_truth(exam, unpacked):
    seen = []
    for student in STUDENTS:
        with zipfile.ZipFile(exam[0] / f"{student}.zip") as archive:
            entries = [(info.filename, info.date_time, info.external_attr) for info in archive.infolist()]
            assert archive.comment == b""
            weights = archive.read(f"{variant.LAB}/model.safetensors")
            stored = io.BytesIO(archive.read(f"{variant.LAB}/pictures.npz"))
        with zipfile.ZipFile(stored) as arrays:
            entries += [(info.filename, info.date_time, info.external_attr) for info in arrays.infolist()]
        shapes = [(name, array.shape, array.dtype) for name, array in np.load(stored).items()]
        header = weights[8 : 8 + int.from_bytes(weights[:8], "little")]
        text = (unpacked[student] / variant.FILES[0]).read_text(encoding="utf-8")
        names = exam[2]["students"][student]["states"]
        for part in ("collar", "background"):  # what everybody sees in the pictures
            text = text.replace(f"| {part} | {names[part][0]} | {names[part][1]} |", part)
        text = text.replace(exam[2]["students"][student]["code"], "CODE")
        seen.append((entries, shapes, header, len(weights), text))
    assert seen[0] == seen[1] == seen[2]
    assert b"__metadata__" not in seen[0][2]
    whole = seen[0][4]
    assert not re.search(rf"\b({'|'.join(STUDENTS)})\b", whole)
    # each choice stands there as often as the others: in the table, as an array, in the plot
    assert (
        len({whole.count(f'"{part}"') for part in ("background", "clutter", "tongue", "ears", "eyes")}) == 1
    )


def test_states_of_a_part_do_not_tell_whether_it_was_planted():
    recipe = variant.Recipe()
    counts = {kind: Counter() for kind in variant.KINDS}
    for number in range(600):
        student = f"student-{number}"
        kind = variant.truth_of(SECRET, student, recipe).kind
        counts[kind][variant._names(variant.states_of(SECRET, student, recipe))["background"]] += 1
    assert all(115 <= sum(some.values()) <= 185 for some in counts.values())
    for some in counts.values():
        assert len(some) == 3 and all(0.22 < n / sum(some.values()) < 0.45 for n in some.values())


def test_truth_depends_on_the_secret_and_can_be_told_from_it_alone(exam):
    for student in STUDENTS:
        entry, truth = exam[2]["students"][student], variant.truth_of(SECRET, student, SMALL)
        assert entry["answers"]["shortcut"] == truth.kind and entry["answers"]["says"] == truth.says
        assert entry["network"] == truth.number and entry["code"] == variant.code_of(SECRET, student)
        assert entry["states"] == {
            part: list(names)
            for part, names in variant._names(variant.states_of(SECRET, student, SMALL)).items()
        }
    recipe = variant.Recipe()
    people = [f"student-{number}" for number in range(300)]
    one, other = ([variant.truth_of(s, p, recipe).number for p in people] for s in (SECRET, SECRET + b"!"))
    assert 5 < sum(a == b for a, b in zip(one, other, strict=True)) < 60  # 25 by chance


def test_made_again_is_the_same_to_the_byte(exam):
    out, key, made = exam
    data, entry = variant.make_variant("ada", SECRET, SMALL, key)
    assert data == (out / "ada.zip").read_bytes()
    assert (
        json.loads(json.dumps(entry)) == json.loads((key / "key.json").read_text("utf-8"))["students"]["ada"]
    )


def test_training_again_gives_the_same_network(exam):
    truth = variant.truths(SECRET, SMALL)[1]
    again = variant._weights(variant.train(SECRET, truth, SMALL))
    stored = load(variant._network(exam[1], 1).read_bytes())
    assert all(torch.equal(again[name], value) for name, value in stored.items())


def test_student_added_later_changes_nobody_else(exam, tmp_path, monkeypatch):
    monkeypatch.setattr(variant, "train", None)  # the bank is there already
    made = variant.make(["edsger"], SECRET, tmp_path, exam[1], SMALL)
    assert {name: made["students"][name] for name in STUDENTS} == exam[2]["students"]
    assert [path.name for path in tmp_path.iterdir()] == ["edsger.zip"]


def test_network_that_does_not_show_it_is_refused(tmp_path, monkeypatch):
    def untrained(secret, truth, recipe, attempt):
        torch.manual_seed(attempt)
        return variant.exam_net().eval()

    monkeypatch.setattr(variant, "train", untrained)
    monkeypatch.setattr(variant, "ATTEMPTS", 2)
    with pytest.raises(CourseError, match=r"Network 0 \(background\) does not show .* background flips only"):
        variant.make_bank(SECRET, replace(SMALL, witnesses=8), tmp_path)
    assert not list(tmp_path.glob("*.safetensors"))


def test_key_of_another_exam_is_not_touched(exam):
    before = (exam[1] / "bank.json").read_bytes()
    with pytest.raises(CourseError, match="key of another exam"):
        variant.make_bank(SECRET + b"!", SMALL, exam[1])
    assert (exam[1] / "bank.json").read_bytes() == before


HOSTILE = {
    "code": 'audit = {"exam": "CODE", "shortcut": open("MARK", "w")}',
    "code-in-a-list": 'audit = {"exam": "CODE", "flipped": [i for i in range(9)]}',
    "f-string": 'audit = {"exam": "CODE", "says": f"{open(\'MARK\', \'w\')}"}',
    "walrus": 'audit = {"exam": (a := "CODE")}',
    "unpacked": 'audit = {**{"exam": "CODE"}}',
    "second-statement": 'audit = {"exam": "CODE"}\nopen("MARK", "w")',
    "call-instead": 'audit = dict(exam="CODE")',
    "power": 'audit = {"exam": "CODE", "flip_rate": 9**9**9**9}',
    "list-as-key": 'audit = {"exam": "CODE", []: 1}',
    "ten-megabytes": 'audit = {"exam": "CODE", "flipped": [' + "1," * 5_000_000 + "]}",
    "nested-lists": 'audit = {"exam": "CODE", "flipped": ' + "[" * 1_500 + "]" * 1_500 + "}",
    "many-minuses": 'audit = {"exam": "CODE", "flip_rate": ' + "-" * 3_500 + "1}",
    "many-sums": 'audit = {"exam": "CODE", "flip_rate": ' + "1+" * 1_800 + "1}",
    "long-number": 'audit = {"exam": "CODE", "flip_rate": ' + "9" * 3_900 + "}",
    "syntax": 'audit = {"exam": "CODE", "says": dog',
    "null-byte": 'audit = {"exam": "CODE", "says": "\0"}',
    "half-a-character": 'audit = {"exam": "CODE", "says": "\ud800"}',
    "empty": "",
    "set": 'audit = {"CODE"}',
}
# what can be read, but earns nothing
READABLE = {"long-number", "half-a-character"}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_dictionary_gets_one_sentence_and_nothing_is_run(name, exam, unpacked, tmp_path):
    mark = tmp_path / "mark"
    text = HOSTILE[name].replace("CODE", exam[2]["students"]["ada"]["code"]).replace("MARK", str(mark))
    report = judged(answered(read(unpacked["ada"]), text), exam)
    assert (report.student, report.score, report.points) == ("ada", 0, 10)
    assert not mark.exists()
    notes = {note for answer in report.answers for note in answer.notes}
    if name in READABLE:
        assert not report.remarks
    else:
        assert {answer.verdict for answer in report.answers} == {"unreadable"}
        assert len(notes) == 1 and notes == set(report.remarks)
        assert all(note.startswith("The cell `audit") and note.endswith(".") for note in notes)
    assert Report.from_json(report.to_json().encode().decode()) == report


def _without(notebook):
    notebook["cells"] = [c for c in notebook["cells"] if "audit = {" not in "".join(c["source"])]
    return notebook


def _twice(notebook):
    notebook["cells"] *= 2
    return notebook


BROKEN = {
    "missing-cell": (lambda n: json.dumps(_without(n)).encode(), "ada", "is missing"),
    "cell-twice": (lambda n: json.dumps(_twice(n)).encode(), "ada", "stands there 2 times"),
    "empty-file": (lambda n: b"", "", "not a notebook"),
    "broken-json": (lambda n: json.dumps(n).encode()[:-9], "", "not a notebook"),
    "wrong-encoding": (lambda n: json.dumps(n).encode("utf-16"), "", "not a notebook"),
    "deep-json": (lambda n: b"[" * 200_000, "", "not a notebook"),
    "no-cells": (lambda n: b'{"cells": {}}', "", "not a notebook"),
    "odd-cells": (lambda n: b'{"cells": [1, {"metadata": 2, "source": [3]}]}', "", "is missing"),
    "too-large": (lambda n: b" " * (variant.MAX_FILE + 1), "", "more than 50 MB"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_submission_gets_one_sentence(name, exam, unpacked):
    spoil, student, sentence = BROKEN[name]
    report = judged(spoil(read(unpacked["ada"])), exam)
    assert (report.student, report.score, report.points) == (student, 0, 10)
    assert len(report.remarks) == 1 and sentence in report.remarks[0]
    # where the notebook does not say whose it is, the file's name may
    assert judged(spoil(read(unpacked["ada"])), exam, "handed_in/ada/exam_audit.ipynb").student == "ada"


def test_other_students_network_and_code_are_found_out(exam, unpacked):
    truth = exam[2]["students"]["grace"]["answers"]
    mixed = judged(answered(read(unpacked["ada"]), declare(exam, "grace", **truth)), exam)
    assert (mixed.student, mixed.score) == ("", 0)
    assert "ada and grace" in mixed.tampering[0]
    moved = judged(
        answered(read(unpacked["grace"]), declare(exam, "grace", **truth)), exam, "ada/exam_audit.ipynb"
    )
    assert (moved.student, moved.score) == ("grace", 10)
    assert "the file's name says ada" in moved.tampering[0]


def test_editor_that_drops_metadata_costs_nothing(exam, unpacked):
    notebook = answered(read(unpacked["ada"]), declare(exam, "ada", **audit(unpacked["ada"])))
    notebook["metadata"] = {}
    for cell in notebook["cells"]:
        cell["metadata"] = {}
    report = judged(notebook, exam)
    assert (report.student, report.score) == ("ada", 10)


def test_grade_writes_a_table_and_reports(exam, unpacked, tmp_path, capsys):
    submitted = tmp_path / "submitted"
    for student, name in (("ada", "ada/x.ipynb"), ("grace", "g1.ipynb"), ("grace", "g2.ipynb")):
        text = declare(exam, student, **exam[2]["students"][student]["answers"])
        notebooks.write(submitted / name, json.dumps(answered(read(unpacked[student]), text)))
    (submitted / "link.ipynb").symlink_to(submitted / "g1.ipynb")
    out = tmp_path / "grades"
    (out / "reports").mkdir(parents=True)
    (out / "reports" / f"grace.{variant.LAB}.json").write_text("stale", encoding="utf-8")
    arguments = ["variant", "grade", "--key", str(exam[1]), "--out", str(out), str(submitted)]
    assert command.main(arguments) == 0
    assert "3 notebooks graded" in capsys.readouterr().out
    with (out / "audit.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["student"] != "edsger"]
    assert [(row["student"], row["points"]) for row in rows] == [
        ("ada", "10"),
        ("grace", "10"),
        ("grace", "10"),
        ("alan", "0"),
    ]
    assert "handed in 2 files" in rows[1]["reasons"] and rows[3]["reasons"] == "Nothing was handed in."
    assert [path.name for path in (out / "reports").iterdir()] == [f"ada.{variant.LAB}.json"]
    stored = Report.from_json((out / "reports" / f"ada.{variant.LAB}.json").read_text(encoding="utf-8"))
    assert (stored.student, stored.lab, stored.score) == ("ada", variant.LAB, 10)


@pytest.mark.parametrize(
    ("students", "secret", "key", "sentence"),
    [
        pytest.param("name\nada\n", SECRET, "key", 'no column "student"', id="no-column"),
        pytest.param("student\n", SECRET, "key", "lists no student", id="nobody"),
        pytest.param("student\n../ada\n", SECRET, "key", "cannot be a file's name", id="path-as-name"),
        pytest.param("student\n=cmd\n", SECRET, "key", "cannot be a file's name", id="formula-as-name"),
        pytest.param("id\nada\nAda\n", SECRET, "key", "stands in", id="twice"),
        pytest.param("id\nada\n", b"1234", "key", "shorter than 32", id="short-secret"),
        pytest.param("id\nada\n", None, "key", "secrets.token_hex", id="no-secret"),
        pytest.param("id\nada\n", SECRET, "out/key", "keep them apart", id="key-among-the-handouts"),
    ],
)
def test_make_says_what_is_wrong_before_it_trains(students, secret, key, sentence, tmp_path, capsys):
    (tmp_path / "students.csv").write_text(students, encoding="utf-8")
    if secret:
        (tmp_path / "secret").write_bytes(secret)
    arguments = [
        "variant",
        "make",
        "--students",
        tmp_path / "students.csv",
        "--seed-file",
        tmp_path / "secret",
    ]
    arguments += ["--out", tmp_path / "out", "--key", tmp_path / key]
    assert command.main([str(argument) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists() and not (tmp_path / "key").exists()


def test_notebook_is_valid_and_its_cells_are_python(unpacked):
    notebook = notebooks.read(unpacked["ada"] / variant.FILES[0])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            compile(cell.source, "cell", "exec")
    found = [cell.metadata.nbgrader for cell in notebook.cells if "nbgrader" in cell.metadata]
    assert [(cell.grade_id, cell.points) for cell in found] == [
        ("plan", 2),
        ("audit", 10),
        ("evidence", 3),
        ("counter", 2),
    ]
