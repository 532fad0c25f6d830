"""`refresh`: outputs that a second run does not change, and what happens when a notebook fails."""

import re
from argparse import Namespace
from pathlib import Path

import nbformat
import pytest

from helpers.course import notebooks, refresh
from helpers.course.notebooks import CourseError

TAKES_MEMORY = "import time\nblock = bytearray(300_000_000)\ntime.sleep(0.5)\ndel block"


@pytest.fixture
def path(tmp_path, sample):
    """The sample as a file, as JupyterLab might have stored it."""
    sample.cells[1].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    sample.cells[2].source = sample.cells[2].source.replace("2 * x", "x + x")
    sample.cells.append(
        nbformat.v4.new_code_cell("import os\nprint(1)\nprint(os.environ['LABS_DATA_SOURCE'], hash('a'))")
    )
    path = tmp_path / "00_sample.ipynb"
    nbformat.write(sample, path)
    return path


def test_a_second_run_changes_no_byte(path, registry, monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")  # of no account here: stored outputs show embedded data
    refresh.refresh(path, registry)
    first = path.read_bytes()
    notebook = notebooks.read(path)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5, 6, 7]
    assert code[1].outputs[0].text == "0.1: right\n"
    assert re.fullmatch(r"1\nembedded -?\d+\n", code[-1].outputs[0].text)  # one stream, not one per print
    assert "return 2 * x" in code[1].source
    assert not [cell for cell in notebook.cells if set(cell.metadata) - {"nbgrader"}]
    refresh.refresh(path, registry)
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    "source, sentence",
    [
        ("x = {}\nx['a']", "00_sample.ipynb, cell 7 raised KeyError: 'a'"),
        ("import sys\nprint('oh', file=sys.stderr)", r"cell 7 wrote to stderr \(oh\)"),
        ("import os\nos._exit(1)", "cell 7 ended the kernel"),
    ],
)
def test_a_failing_cell_is_named_and_the_file_stays(source, sentence, path, sample, registry):
    sample.cells[6].source = source
    nbformat.write(sample, path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=sentence):
        refresh.refresh(path, registry)
    assert path.read_bytes() == before


def test_a_malformed_exercise_is_not_run(path, sample, registry):
    sample.cells[3].metadata.nbgrader.points = 7
    nbformat.write(sample, path)
    with pytest.raises(CourseError, match="gives 7 points"):
        refresh.refresh(path, registry)


def test_times_are_measured_and_stated(path, sample, registry, monkeypatch):
    sample.cells[6].source = TAKES_MEMORY
    sample.metadata["course"] = {"lab": "00", "minutes_gpu": 1.2}
    nbformat.write(sample, path)
    monkeypatch.setattr(refresh, "_cuda_is_there", lambda: False)
    course = refresh.state_times(path, registry)
    assert 0 <= course["minutes_cpu"] < 1
    assert 0.3 <= course["memory_gb"] < 0.8
    notebook = notebooks.read(path)
    assert notebook.metadata.course == course == {**course, "lab": "00", "minutes_gpu": 1.2}
    line = f"**Time and memory:** less than 1 minute on CPU, about 2 minutes on GPU, {course['memory_gb']} GB"
    assert notebook.cells[0].source == f"# Sample\n\n{line}\n\nGoals follow."


def test_gpu_minutes_come_from_a_second_run(path, registry, monkeypatch):
    runs = []

    def fake_refresh(path, registry, environment=None):
        runs.append(environment and environment["CUDA_VISIBLE_DEVICES"])
        return refresh.Usage(seconds=150 if environment else 30, memory=600_000_000)

    monkeypatch.setattr(refresh, "refresh", fake_refresh)
    monkeypatch.setattr(refresh, "_cuda_is_there", lambda: True)
    course = refresh.state_times(path, registry)
    assert runs == ["", None]
    assert course == {"lab": "00", "minutes_cpu": 2.5, "memory_gb": 0.6, "minutes_gpu": 0.5}
    assert refresh.times_line(course).endswith("about 3 minutes on CPU, less than 1 minute on GPU, 0.6 GB")


def test_a_relative_folder_of_data_is_meant_from_here():
    environment = refresh.kernel_environment(environment={"LABS_DATA": "data"})
    assert environment["LABS_DATA"] == str(Path("data").absolute())
    assert "LABS_DATA" not in refresh.kernel_environment(environment={})


def test_times_need_their_line(path, sample, registry, monkeypatch):
    monkeypatch.setattr(refresh, "_cuda_is_there", lambda: False)
    sample.cells[0].source = "# Sample"
    nbformat.write(sample, path)
    with pytest.raises(CourseError, match="needs one line that starts with"):
        refresh.state_times(path, registry)


def test_command_line_goes_on_after_a_failure(path, sample, registry, monkeypatch, capsys):
    monkeypatch.setattr("helpers.exercises.registry", registry)
    sample.cells[6].source = "1 / 0"
    broken = path.with_name("00_broken.ipynb")
    nbformat.write(sample, broken)
    assert refresh.main(Namespace(notebooks=[broken, path], times=False)) == 1
    shown = capsys.readouterr()
    assert "00_broken.ipynb, cell 7 raised ZeroDivisionError" in shown.err
    assert re.match(r"00_sample.ipynb: \d+ s", shown.out)


def test_a_solution_must_be_judged_right(path, sample, registry):
    """A reference that leans on a private function of its module, say, fails in a notebook, quietly."""
    sample.cells[1].source = sample.cells[1].source.replace(": right", ": error\\n  - NameError")
    nbformat.write(sample, path)
    with pytest.raises(CourseError, match=r"cell 3 holds a solution that is not judged right \(0.1: error\)"):
        refresh.refresh(path, registry)
