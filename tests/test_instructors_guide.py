"""The instructor's guide: what it names exists, and its examples do what it says."""

import argparse
import csv
import re
import shlex
import shutil
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from helpers.course import grade, notebooks, submit, variant
from helpers.course.grading.intake import find_submissions
from helpers.course.grading.lateness import Policy
from helpers.course.grading.report import Answer, Report, Verdict

ROOT = notebooks.ROOT
GUIDE = (ROOT / "solutions" / "README.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = {"grade": grade, "submit": submit, "variant": variant}
LAB = "01_numpy_saliency"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> list[list[str]]:
    """The rows of the table whose header begins with this."""
    table = GUIDE.partition(f"\n| {heading} |")[2].partition("\n\n")[0].split("\n")[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def options(parser: argparse.ArgumentParser) -> set[str]:
    """Every option of a command, and of its subcommands."""
    found = set()
    for action in parser._actions:
        found.update(name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            found.update(*map(options, action.choices.values()))
    return found - {"--help"}


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(command)
    COMMANDS[command].add_arguments(parser)
    return parser


LINES = [
    line
    for page in (GUIDE, README)
    for line in re.findall(r"python -m helpers\.course ((?:grade|submit|variant)\b[^`\n]*)", page)
]
MAPPING, BY_HAND = blocks("csv")
(POLICY,) = blocks("toml")


# Commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split(" --")[0])
def test_commands_can_be_given_as_they_stand(line):
    command, *arguments = shlex.split(line)
    parser_of(command).parse_args(arguments)  # exits, and so fails, for an option that does not exist


def test_every_command_is_shown():
    shown = {tuple(line.split()[: 2 if line.startswith("variant") else 1]) for line in LINES}
    assert shown == {("grade",), ("submit",), ("variant", "make"), ("variant", "grade")}


def test_options_that_the_prose_names_exist():
    theirs = {"--port", "--nworkers", "--nthreads"}  # dask's
    known = set().union(*(options(parser_of(command)) for command in COMMANDS))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", GUIDE)) - {"--help"} <= known | theirs


def test_every_option_of_grade_is_explained():
    assert options(parser_of("grade")) <= set(re.findall(r"--[a-z][a-z-]*", GUIDE))


def test_options_of_dask_exist():
    from click.testing import CliRunner
    from distributed.cli import dask_scheduler, dask_worker

    for module, named in ((dask_scheduler, ["--port"]), (dask_worker, ["--nworkers", "--nthreads"])):
        shown = CliRunner().invoke(module.main, ["--help"]).output
        assert all(option in shown for option in named)


def test_targets_of_make_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", GUIDE))
    assert named and named <= targets


# Examples ---------------------------------------------------------------------------------------------------


def submissions_for_the_mapping(folder: Path) -> None:
    """Files that each line of the example is about."""
    for line in csv.DictReader(MAPPING.splitlines()):
        place = folder / line["file"].replace("*", "7_assignsubmission_file_")
        number = re.search(r"lab(\d\d)", line["file"])[1]
        lab = next(notebooks.LABS.glob(f"{number}_*.ipynb"))
        path = place if place.suffix == ".ipynb" else place / lab.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lab.read_bytes())
    for unpacked in list(folder.glob("*.zip")):
        with zipfile.ZipFile(folder / "archive", "w") as archive:
            for path in unpacked.rglob("*.ipynb"):
                archive.write(path, path.relative_to(unpacked))
        shutil.rmtree(unpacked)
        (folder / "archive").rename(unpacked)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What the guide's instructor has."""
    folder = tmp_path_factory.mktemp("term")
    for name, text in {"names.csv": MAPPING, "policy.toml": POLICY, "by_hand.csv": BY_HAND}.items():
        (folder / name).write_text(text, encoding="utf-8")
    submissions_for_the_mapping(folder / "submissions")
    return folder


def test_the_mapping_says_whose_everything_is(folder):
    found = find_submissions(folder / "submissions", mapping=folder / "names.csv")
    assert found.problems == []
    whose = {(s.student, s.lab[:2]) for s in found.submissions}
    assert whose == {("ada_lovelace", "01"), ("alan_turing", "01"), ("grace@example.org", "02")}
    alan = next(s for s in found.submissions if s.student == "alan_turing")
    assert (alan.received, alan.clock) == (datetime(2026, 11, 20, 21, 5, tzinfo=UTC), "mapping")


def test_without_the_mapping_a_file_is_not_clear(folder):
    """Else the example would show nothing."""
    found = find_submissions(folder / "submissions")
    assert "lab01/ada2.ipynb,STUDENT" in " ".join(found.problems)


def test_the_policy_does_what_its_comments_say(folder):
    rules = Policy.read(folder / "policy.toml")

    def factor(student: str, lab: str, *when: int) -> float:
        return rules.penalty(student, lab, datetime(*when, tzinfo=UTC)).factor

    assert factor("alan_turing", LAB, 2026, 11, 20, 23, 5) == 1  # 00:05 in Berlin: within the grace
    assert factor("alan_turing", LAB, 2026, 11, 20, 23, 30) == 0.9
    assert factor("alan_turing", LAB, 2026, 11, 26, 12) == 0
    assert factor("ada_lovelace", LAB, 2026, 11, 26, 12) == 1
    assert factor("alan_turing", "02", 2026, 12, 4, 22, 50) == 1  # to the end of the day
    assert factor("alan_turing", "02", 2026, 12, 5, 12) == 0.8
    assert factor("ada_lovelace", "02", 2026, 12, 7, 12) == 1  # three days more


# What the command writes ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def graded(folder) -> Path:
    """What `grade` writes for the examples of the guide. The judging itself is left out."""

    def report(submission) -> Report:
        number = int(submission.lab[:2])
        name, key = f"verdict-{number}-3", f"{number}.3"
        answer = Answer(key, name, "a title", 1, 0, "not right", source=f"# {submission.student}")
        return Report(submission.student, submission.lab, submission.file, "0" * 64, "", (answer,))

    def without_judging(todo, seed, args, failed):
        for submission, path in todo:
            notebooks.write(path, report(submission).to_json())
            yield report(submission)

    usual = [
        "submissions",
        "--out",
        "grading",
        "--policy",
        "policy.toml",
        "--mapping",
        "names.csv",
        "--trusted",
    ]
    later = ["--again", "ada_lovelace", "--manual", "by_hand.csv", "--stage", "staged"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grade, "graded", without_judging)
        patch.chdir(folder)
        for more in ([], later):
            assert grade.main(parser_of("grade").parse_args([*usual, *more])) == 0
    return folder / "grading"


def test_what_grade_writes_is_what_the_table_lists(graded):
    written = {path.name + "/" * path.is_dir() for path in graded.iterdir() if path.suffix != ".lock"}
    assert written == {name.strip("`") for name, _ in rows("What")}


def test_sections_of_the_summary_have_the_names_that_the_guide_uses(graded):
    summary = (graded / "summary.html").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<!\*)\*([A-Z][a-z ]+)\*(?!\*)", GUIDE))
    assert len(named) == 6
    assert {name for name in named if f">{name}</h2>" not in summary} == set()


def test_the_score_by_hand_counts_and_is_logged(graded):
    with (graded / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        ada = next(row for row in csv.DictReader(file) if row["student"] == "ada_lovelace")
    assert ada[f"{LAB} manual part"] == "1"
    with (graded / "log.csv").open(encoding="utf-8-sig", newline="") as file:
        logged = [(row["student"], row["grade_id"], row["new"], row["by"]) for row in csv.DictReader(file)]
    assert ("ada_lovelace", "verdict-1-3", "1", "manual.csv") in logged


def test_tables_have_the_columns_that_the_guide_names(graded):
    headers = {}
    for name in ("grades.csv", "lms.csv", "manual.csv", "log.csv"):
        with (graded / name).open(encoding="utf-8-sig", newline="") as file:
            headers[name] = next(csv.reader(file))
    assert set(BY_HAND.split("\n")[0].split(",")) <= set(headers["manual.csv"])
    assert headers["lms.csv"] == ["student", LAB, "02_fashion_mnist_gradcam"]
    assert {f"{LAB} score", f"{LAB} late factor", f"{LAB} total", "waits for a person"} <= set(
        headers["grades.csv"]
    )


# Words ------------------------------------------------------------------------------------------------------


def test_every_verdict_is_in_the_table():
    assert [verdict for verdict, *_ in rows("Verdict")] == list(get_args(Verdict))


@pytest.mark.parametrize("solution", sorted(notebooks.SOLUTIONS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_rubrics_stand_where_the_guide_says(solution):
    def answers(path: Path) -> dict[str, str]:
        marked = ((cell, cell.metadata.get("nbgrader", {})) for cell in notebooks.read(path).cells)
        return {n["grade_id"]: cell.source for cell, n in marked if n.get("grade") and n.get("solution")}

    with_rubrics, released = answers(solution), answers(notebooks.LABS / solution.name)
    assert with_rubrics.keys() == released.keys() != set()
    assert [name for name, source in with_rubrics.items() if "Rubric" not in source] == []
    assert [name for name, source in released.items() if "Rubric" in source] == []


@pytest.mark.parametrize(
    ("page", "folder"),
    [
        pytest.param(GUIDE, ROOT / "solutions", id="guide"),
        pytest.param(README, ROOT, id="README"),
        pytest.param(CONTRIBUTING, ROOT, id="CONTRIBUTING"),
    ],
)
def test_links_and_paths_lead_somewhere(page, folder):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page)
    assert links and [link for link in links if not (folder / link).exists()] == []
    paths = re.findall(r"`((?:helpers|course|solutions|labs|tests|data)/[\w./*-]*)`", page)
    paths = [re.sub("^course/", "helpers/course/", path).replace("NN", "01") for path in paths]
    # a lab's name is left open: solutions/NN_name.ipynb
    assert [path for path in paths if "_name" not in path and not list(ROOT.glob(path.rstrip("/")))] == []
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors


def test_every_module_of_grading_is_introduced():
    section = CONTRIBUTING.partition("\n## Grading\n")[2].partition("\n## ")[0]
    modules = {path.stem for path in (ROOT / "helpers" / "course" / "grading").glob("*.py")} - {"__init__"}
    assert {name for name in modules if f"`{name}`" not in section} == set()
    assert len(section.strip().split("\n")) <= 12


def test_pages_lead_to_the_guide():
    for page in (README, CONTRIBUTING):
        assert "(solutions/README.md)" in page
