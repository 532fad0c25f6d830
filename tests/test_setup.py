"""The set-up: versions that agree everywhere, the Makefile, copies in work/, and what README says of them."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers.course import labs

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
DEPENDENCIES = [Requirement(line) for line in sum(EXTRAS.values(), PROJECT["dependencies"])]
CONSTRAINTS = [
    Requirement(line)
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# --------------------------------------------------------------------------- versions


def pins(name: str) -> list[Version]:
    """The exact versions of a package in constraints.txt: one, or one per marker."""
    found = [pin for pin in CONSTRAINTS if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [Version(next(iter(pin.specifier)).version) for pin in found]


@pytest.mark.parametrize("need", DEPENDENCIES, ids=lambda need: need.name)
def test_range_ends_at_the_pinned_version(need):
    """Both ends are stated, the exact set lies inside, and the upper end is the next version after it."""
    if need.name == "nbval":  # its traps are worked around one by one, for this version alone
        assert str(need.specifier) == "==0.11.*"
        assert [str(pin) for pin in pins("nbval")] == ["0.11.0"]
        return
    ends = {end.operator: Version(end.version) for end in need.specifier}
    assert set(ends) == {">=", "<"}
    assert pins(need.name), f"{need.name} is not in constraints.txt: run `make constraints`"
    for pin in pins(need.name):
        assert need.specifier.contains(pin)
        precision = len(ends["<"].release)
        *head, last = pin.release[:precision]
        assert (*head, last + 1) == ends["<"].release, f"{need.name}: {need.specifier} does not end at {pin}"


def test_constraints_have_names_versions_and_markers_only():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert re.fullmatch(r"#.*|[a-z0-9-]+==[0-9a-z.]+( ; [\w '<>=!.()]+)?", line), line
    assert not any("//" in line for line in lines)


def test_environment_yml_follows_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, packages = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert Requirement(python) == Requirement(f"python{PROJECT['requires-python']}")
    assert pip == "pip"
    assert packages == {"pip": ["--constraint constraints.txt", "--editable .[test]"]}  # as make


def imported_packages(source: str) -> set[str]:
    """Names of the packages that a piece of Python imports, without what it imports relatively."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def sources() -> dict[Path, str]:
    """All Python of the project, notebooks included."""
    found = {path: path.read_text(encoding="utf-8") for path in ROOT.glob("*.py")}
    for folder in ("helpers", "tests"):
        found |= {path: path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")}
    for path in (ROOT / "solutions").glob("*.ipynb"):
        cells = nbformat.read(path, as_version=4).cells
        lines = [line for cell in cells if cell.cell_type == "code" for line in cell.source.splitlines()]
        found[path] = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))  # magics
    return found


def test_every_import_is_a_stated_dependency():
    stated = {canonicalize_name(need.name) for need in DEPENDENCIES}
    distributions = importlib.metadata.packages_distributions()
    ours = {"helpers", "tests"}
    missing = {}
    for path, source in sources().items():
        for package in imported_packages(source) - set(sys.stdlib_module_names) - ours:
            owners = {canonicalize_name(name) for name in distributions.get(package, [package])}
            if not owners & stated:
                missing.setdefault(package, path.relative_to(ROOT).as_posix())
    assert not missing, f"imported, but not in pyproject.toml: {missing}"


# --------------------------------------------------------------------------- make


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")

# Stands for a Python: notes every installation and fails as told.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
  "-c "*) exit ${WRONG_VERSION:-0} ;;
  "-m venv --clear .venv") rm -rf .venv && mkdir -p .venv/bin && cp "$0" .venv/bin/python
      printf '#!/bin/sh\\necho opened in $(basename "$PWD")\\n' > .venv/bin/jupyter
      chmod +x .venv/bin/jupyter ;;
  "-m pip --version") exit 0 ;;
  "-m pip install "*) echo "$*" >> installs; exit ${INSTALL_FAILS:-0} ;;
  "-m helpers.course labs") mkdir -p work ;;
  *) exit 99 ;;
esac
"""


@pytest.fixture
def make(tmp_path):
    """Run make in a folder with the Makefile alone and a fake Python."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "fake-python"
    python.write_text(FAKE_PYTHON, encoding="utf-8")
    python.chmod(0o755)

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "EXTRAS"))}
        inherited |= {"PYTHON": str(python)} | environment
        command = ["make", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=inherited, capture_output=True, encoding="utf-8")

    run.installs = lambda: (tmp_path / "installs").read_text(encoding="utf-8").splitlines()
    run.folder = tmp_path
    return run


@needs_make
def test_make_labs_installs_once(make):
    first, second = make("labs"), make("labs")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert make.installs() == ["-m pip install --constraint constraints.txt --editable .[test]"]
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1] == "opened in work"


@needs_make
def test_an_interrupted_installation_is_taken_up_again(make):
    assert make("labs", INSTALL_FAILS="1").returncode != 0
    assert make("labs").returncode == 0
    assert len(make.installs()) == 2


@needs_make
@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_new_versions_are_installed(make, file):
    make("labs")
    later = (make.folder / ".venv" / "installed-test").stat().st_mtime + 10
    os.utime(make.folder / file, (later, later))
    assert make("labs", INSTALL_FAILS="1").returncode != 0  # interrupted: the old stamp must not count
    assert make("labs").returncode == 0
    assert len(make.installs()) == 3


@needs_make
def test_a_damaged_environment_is_made_again(make):
    make("labs")
    (make.folder / ".venv" / "bin" / "python").unlink()
    shutil.rmtree(make.folder / ".venv" / "bin")
    (make.folder / ".venv" / "installed-test").unlink()
    assert make("labs").returncode == 0
    assert len(make.installs()) == 2


@needs_make
def test_clean_labs_sets_up_afresh(make):
    make("labs")
    (make.folder / "work" / "01.ipynb").write_text("mine", encoding="utf-8")
    done = make("clean", "labs")
    assert done.returncode == 0, done.stderr
    assert len(make.installs()) == 2
    assert (make.folder / "work" / "01.ipynb").read_text(encoding="utf-8") == "mine"


@needs_make
def test_the_wrong_python_is_a_sentence(make):
    done = make("labs", WRONG_VERSION="1")
    assert done.returncode != 0
    assert "This course needs Python 3.11, 3.12 or 3.13 with venv. Install one" in done.stderr
    assert not (make.folder / ".venv").exists()


@needs_make
def test_the_version_that_make_accepts_is_that_of_pyproject(make):
    condition = re.search(r"'(import sys, ensurepip.*?)'", MAKEFILE)[1]
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    for minor in range(10, 15):
        code = condition.replace("sys.version_info[:2]", f"(3, {minor})")
        done = subprocess.run([sys.executable, "-c", code])
        assert (done.returncode == 0) == (minor in (11, 12, 13)), minor


# --------------------------------------------------------------------------- work/


@pytest.fixture
def folders(tmp_path):
    source, work = tmp_path / "labs", tmp_path / "work"
    source.mkdir()
    for name in ("01_one.ipynb", "02_two.ipynb"):
        (source / name).write_text(f"new {name}", encoding="utf-8")
    return source, work


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def test_only_missing_labs_are_copied(folders):
    source, work = folders
    work.mkdir()
    (work / "01_one.ipynb").write_text("my answers", encoding="utf-8")
    assert labs.copy_missing(source, work) == (["02_two.ipynb"], ["01_one.ipynb"])
    assert contents(work) == {"01_one.ipynb": "my answers", "02_two.ipynb": "new 02_two.ipynb"}
    assert labs.copy_missing(source, work) == ([], ["01_one.ipynb", "02_two.ipynb"])


def test_a_copy_that_was_cut_off_is_made_again(folders, monkeypatch):
    source, work = folders

    def full_disk(origin, target):
        target.write_text("ne", encoding="utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full_disk)
    with pytest.raises(OSError, match="No space left"):
        labs.copy_missing(source, work)
    assert not list(work.glob("*.ipynb"))
    monkeypatch.undo()
    labs.copy_missing(source, work)
    assert contents(work) == contents(source)


def test_labs_command(folders, monkeypatch, capsys):
    source, work = folders
    monkeypatch.setattr(labs, "ROOT", source.parent)
    assert labs.main(None) == 0
    assert "work/01_one.ipynb: new" in capsys.readouterr().out
    assert labs.main(None) == 0
    assert "work/01_one.ipynb: yours, left as it is" in capsys.readouterr().out
    shutil.rmtree(work)
    work.write_text("a file in the way", encoding="utf-8")
    assert labs.main(None) == 1
    assert "could not be copied" in capsys.readouterr().out
    work.unlink()
    shutil.rmtree(source)
    assert labs.main(None) == 1
    assert "Get the whole repository" in capsys.readouterr().out


# --------------------------------------------------------------------------- lint and git


def test_ruff_reads_notebooks(tmp_path):
    """A notebook with an unknown name and an open() without encoding: the settings must find both."""
    notebook = tmp_path / "lab.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell('open("x").read(y)')]), notebook)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert "lab.ipynb" in done.stdout and "undefined-name" in done.stdout
    assert "unspecified-encoding" in done.stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
def test_git_ignores_downloads_and_what_students_write(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    ignored = ["work/01.ipynb", ".venv/bin/python", "data/MNIST/raw/x", "data/lock", "helpers/__pycache__/x"]
    kept = ["data/README.md", "labs/01.ipynb", "solutions/01.ipynb", "helpers/data.py"]
    for path in ignored + kept:
        done = subprocess.run(["git", "-C", tmp_path, "check-ignore", "--quiet", path])
        assert (done.returncode == 0) == (path in ignored), path


# --------------------------------------------------------------------------- README


def test_readme_gives_every_way_the_same_two_steps():
    install = '--constraint constraints.txt --editable ".[test]"'
    assert f'--constraint constraints.txt --editable ".[{"$(EXTRAS)"}]"' in MAKEFILE
    assert README.count(install) == 2  # uv and Windows; conda has it in environment.yml
    for step in ("-m helpers.course labs", "jupyter lab --notebook-dir=work"):
        assert README.count(step) == 3, step
    for step in ("ruff check .", "pytest tests", "pytest --nbval solutions labs"):
        assert README.count(step) == 3, step
        assert step.removeprefix("pytest ") in MAKEFILE


def test_readme_names_every_lab_and_no_dead_file():
    for lab in (ROOT / "labs").glob("*.ipynb"):
        assert f"(labs/{lab.name})" in README
    for name in ("README.md", "CONTRIBUTING.md", "data/README.md"):
        page = ROOT / name
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{name} links to {target}"


def test_targets_that_are_named_exist():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        named = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE))
        assert named and named <= targets, named - targets
    assert targets - {"help"} <= set(re.findall(r"^## make ([a-z-]+)", MAKEFILE, re.MULTILINE))


def test_pytest_alone_finds_what_tests_share():
    """README's other ways start `pytest`; only `python -m pytest` puts this folder on the path by itself."""
    pytest_script = Path(sys.executable).with_name("pytest")
    command = [pytest_script, "--collect-only", "-q", "tests/test_data.py", "tests/test_saliency.py"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
