"""`python -m helpers.course doctor`: what it finds, what it says about it, and its exit status."""

import argparse
import importlib.metadata
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import nbclient
import psutil
import pytest

from helpers import data, download, pet_photos
from helpers.course import doctor
from helpers.course.doctor import Finding, Outcome, run_steps

ROOT = Path(__file__).parents[1]


def report(check) -> list[tuple[str, str]]:
    """Status and text of what a check finds."""
    return [(finding.status, finding.text) for finding in check]


def test_a_healthy_machine_passes():
    """The whole command, as a user types it: exit status 0, and every subject has its line."""
    done = subprocess.run(
        [sys.executable, "-m", "helpers.course", "doctor"], cwd=ROOT, capture_output=True, encoding="utf-8"
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines[-1] == "The labs can run here."
    assert {line[:4].strip() for line in lines[:-1]} <= {"ok", "note"}
    subjects = {line[6:].split("  ")[0].strip() for line in lines[:-1]}
    assert subjects >= {"Python", "torch", "tensorflow", "scikit-image", "Device", "Memory", "Disk", "Kernel"}
    assert subjects >= {"MNIST", "Cats vs Dogs", "VGG-16", "Network"}


def test_one_failure_decides_the_exit_status(monkeypatch, capsys):
    for name in ("check_packages", "check_kernel", "check_network", "check_data", "check_weights"):
        monkeypatch.setattr(doctor, name, lambda: [Finding("note", "something", "found")])
    assert doctor.main(argparse.Namespace()) == 0
    monkeypatch.setattr(doctor, "check_kernel", lambda: [Finding("FAIL", "Kernel", "dead; revive it")])
    assert doctor.main(argparse.Namespace()) == 1
    assert "FAIL  Kernel            dead; revive it" in capsys.readouterr().out


def test_a_check_that_breaks_is_a_failure(monkeypatch, capsys):
    def broken():
        raise ImportError("No module named 'nbclient'")

    for name in ("check_packages", "check_network", "check_data", "check_weights"):
        monkeypatch.setattr(doctor, name, list)
    monkeypatch.setattr(doctor, "check_kernel", broken)
    assert doctor.main(argparse.Namespace()) == 1
    assert "No module named 'nbclient'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 10, 14), "FAIL"), ((3, 11, 0), "ok"), ((3, 13, 9), "ok"), ((3, 14, 0), "FAIL")],
)
def test_python(version, status):
    [(found, text)] = report(doctor.check_python(version))
    assert found == status
    assert ("install 3.11, 3.12 or 3.13" in text) == (status == "FAIL")


# --------------------------------------------------------------------------- packages and device


def test_steps_survive_an_error_and_a_dying_process():
    steps = {
        "fine": "print('well')",
        "wrong": "raise ImportError('no such file')",
        "deadly": "import os; os.abort()",
        "after": "print('still here')",
        "leaves": "raise SystemExit(3)",
    }
    outcomes = run_steps(steps)
    assert outcomes["fine"] == Outcome("well", "")
    assert outcomes["wrong"] == Outcome("", "ImportError: no such file")
    assert outcomes["deadly"].error.startswith("it ended Python with status")
    assert outcomes["after"] == Outcome("still here", "")
    assert outcomes["leaves"].error == "it ended Python with status 3"


def test_a_step_that_hangs_is_stopped(monkeypatch):
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 1.0)
    assert run_steps({"hangs": "import time; time.sleep(60)"})["hangs"].error == "it took more than 1 s"


@pytest.fixture
def packages(monkeypatch):
    """Pretend that the course needs these packages, and that importing them ends like this."""

    def pretend(requires: list[str], errors: dict[str, str]) -> dict[str, Finding]:
        monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)
        monkeypatch.setattr(
            doctor, "run_steps", lambda steps: {name: Outcome("CPU", errors.get(name, "")) for name in steps}
        )
        return {finding.subject: finding for finding in doctor.check_packages()}

    return pretend


def test_packages(packages):
    found = packages(
        ["numpy>=2.0", "pytest>=999", "no-such-package>=1", "psutil", 'captum>=1; extra == "bench"'],
        {"psutil": "ImportError: cut off", "no-such-package": "ModuleNotFoundError: No module named 'it'"},
    )
    assert list(found) == ["numpy", "pytest", "no-such-package", "psutil", "Device"]  # an extra is not needed
    assert (found["numpy"].status, found["numpy"].text) == ("ok", importlib.metadata.version("numpy"))
    assert found["pytest"].status == "note" and "we test >=999" in found["pytest"].text
    assert found["no-such-package"].status == found["psutil"].status == "FAIL"
    assert found["no-such-package"].text.startswith("missing; run `make clean labs`")
    assert "cannot be imported: ImportError: cut off; run" in found["psutil"].text


def test_a_course_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "DISTRIBUTION", "no-such-package")
    [(status, text)] = report(doctor.check_packages())
    assert status == "FAIL" and "the course is not installed in this Python; run `make clean labs`" in text


def test_torch_and_tensorflow_never_meet(packages, monkeypatch):
    processes = []

    def remember(steps):
        processes.append(" ".join(steps.values()))
        return {name: Outcome() for name in steps}

    monkeypatch.setattr(doctor, "run_steps", remember)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch", "tensorflow", "torchvision"])
    list(doctor.check_packages())
    assert [("torch" in code, "tensorflow" in code) for code in processes] in (
        [(True, False), (False, True)],
        [(False, True), (True, False)],
    )


def test_device(packages):
    assert packages([], {})["Device"].status == "ok"
    broken = packages([], {"Device": "RuntimeError: no kernel image is available"})["Device"]
    assert broken.status == "FAIL"
    assert "no kernel image is available; renew the driver of the GPU" in broken.text


# --------------------------------------------------------------------------- memory, disk, kernel


@pytest.mark.parametrize(("total", "free", "status"), [(1, 1, "FAIL"), (8, 1, "note"), (8, 5, "ok")])
def test_memory(monkeypatch, total, free, status):
    memory = namedtuple("memory", "total available")(total * 1e9, free * 1e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    [(found, text)] = report(doctor.check_memory())
    assert found == status
    assert text.startswith(f"{free:.1f} of {total:.1f} GB free")


@pytest.mark.parametrize(("free", "status"), [(0.5, "note"), (50, "ok")])
def test_disk(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: namedtuple("usage", "free")(free * 1e9))
    [(found, _)] = report(doctor.check_disk(tmp_path))
    assert found == status
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written(monkeypatch, tmp_path):
    [(status, text)] = report(doctor.check_disk(tmp_path / "nowhere"))
    assert status == "FAIL" and "No such file or directory" in text and "move the course" in text


def test_kernel_of_another_python(monkeypatch):
    monkeypatch.setattr(doctor.sys, "prefix", "elsewhere")
    [(status, text)] = report(doctor.check_kernel())
    assert status == "FAIL" and "instead of elsewhere; remove that kernel" in text


def test_kernel_that_does_not_start(monkeypatch):
    def die(self, **kwargs):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(nbclient.NotebookClient, "execute", die)
    [(status, text)] = report(doctor.check_kernel())
    assert status == "FAIL" and "python3 does not work: Kernel died before" in text


# --------------------------------------------------------------------------- data and network


@pytest.mark.parametrize(
    ("states", "status", "found"),
    [
        (["present", "present"], "ok", "in "),
        (["missing", "missing"], "note", "missing in "),
        (["present", "damaged"], "note", "damaged in "),
        (["missing", "damaged"], "note", "damaged and missing in "),
    ],
)
def test_data(monkeypatch, tmp_path, states, status, found):
    monkeypatch.delenv("LABS_DATA_SOURCE", raising=False)
    monkeypatch.setenv("LABS_DATA", str(tmp_path))
    monkeypatch.setattr(data.RemoteSet, "states", lambda self: dict(enumerate(states)))
    reported = report(doctor.check_data())[:-1]  # without the pets
    assert len(reported) == len(data.REMOTE_SETS)
    for (result, text), name in zip(reported, data.REMOTE_SETS, strict=True):
        assert result == status and text.startswith(f"{found}{tmp_path}")
        assert (f"`python -m helpers.data {name}` downloads it" in text) == (status == "note")


@pytest.mark.parametrize(("answers", "wanted"), [(("", "no answer"), "note"), (("no answer",) * 2, "FAIL")])
def test_real_data_that_cannot_be_had_fail(monkeypatch, tmp_path, answers, wanted):
    monkeypatch.setenv("LABS_DATA_SOURCE", "real")
    monkeypatch.setenv("LABS_DATA", str(tmp_path))
    monkeypatch.setattr(download, "answering", lambda urls: dict(zip(urls, answers, strict=True)))
    for status, text in report(doctor.check_data())[:-1]:  # without the pets
        assert status == wanted and text.startswith("missing in ")


@pytest.mark.parametrize(("setting", "status"), [("auto", "note"), ("embedded", "note"), ("real", "FAIL")])
def test_photos_of_pets(monkeypatch, tmp_path, setting, status):
    """No lab downloads them, so with `real` a lab fails until they are there."""
    monkeypatch.setenv("LABS_DATA_SOURCE", setting)
    monkeypatch.setenv("LABS_DATA", str(tmp_path))
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "answering", lambda urls: dict.fromkeys(urls, ""))
    root = tmp_path / "PetImages"
    found, text = report(doctor.check_data())[-1]
    assert found == status and text.startswith(f"missing in {root}; ")
    assert "`python -m helpers.data pets` downloads it (about 800 MB)" in text

    for name in pet_photos.FOLDERS:
        (root / name).mkdir(parents=True)
        found, text = report(doctor.check_data())[-1]
        assert found == status and text.startswith(
            f"{root} must have the folders Cat and Dog with photos, but "
        )
    for name in pet_photos.FOLDERS:
        (root / name / "1.jpg").touch()
    assert report(doctor.check_data())[-1] == ("ok", f"in {root} (Cat: 1, Dog: 1)")


def test_a_wrong_data_source_fails(monkeypatch):
    monkeypatch.setenv("LABS_DATA_SOURCE", "reel")
    status, text = report(doctor.check_data())[0]
    assert status == "FAIL" and text == "LABS_DATA_SOURCE is 'reel'; set it to auto, real or embedded"


def test_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("LABS_DATA", str(tmp_path))
    findings = report(doctor.check_weights())
    assert [status for status, _ in findings] == ["note"] * 3
    assert findings[2][1].startswith(f"missing in {tmp_path / 'weights'}; labs 04 and 05 use stand-ins")
    assert "`python -m helpers.data vgg16` downloads the weights (553.4 MB)" in findings[2][1]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    assert report(doctor.check_weights())[0][1].startswith("damaged in ")
    monkeypatch.setattr(download.RemoteSet, "states", lambda remote: {"file": "present"})
    assert [status for status, _ in report(doctor.check_weights())] == ["ok"] * 3


def test_network(monkeypatch):
    monkeypatch.setattr(
        download, "answering", lambda urls: {url: "no answer" * (i == 0) for i, url in enumerate(urls)}
    )
    (first, named), *rest = report(doctor.check_network())
    assert first == "note" and "no answer; only downloads need it" in named and "://" in named
    assert {status for status, _ in rest} == {"ok"}


@pytest.mark.parametrize("reason, status", [("", "ok"), ("It needs Linux.", "note")], ids=["yes", "no"])
def test_sandbox(monkeypatch, reason, status):
    monkeypatch.setattr("helpers.course.grading.box.why_not", lambda: reason)
    [(found, text)] = report(doctor.check_sandbox())
    assert found == status and reason in text
