"""helpers/course/nbval_settings.py: what strict and lax runs notice, and no network."""

import xml.etree.ElementTree
from queue import Empty
from types import ModuleType

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output, writes

NBVAL = ("pytest", "-q", "--color=no", "-p", "no:cacheprovider", "--junitxml=report.xml")
BLOCKED = "The network is blocked in tests"
SETTINGS = "*(os.environ[name] for name in ('LABS_HEADLESS', 'LABS_DATA_SOURCE', 'OMP_NUM_THREADS'))"

# Cells of one notebook: source, what is stored as its output (None: not run), and words of the failure that a
# strict run must report (None: the cell passes).
CELLS = {
    "imports": ("import os, signal, socket, subprocess, sys, time, urllib.request, warnings", "", None),
    "same": ("print('≤ é')", "≤ é\n", None),
    "live number": ("print(f'took ~{time.perf_counter():.3f} s')", "took ~1.2 s\n", None),
    "last digit": ("print('mean 0.124')", "mean 0.125\n", None),
    "warning": ("warnings.warn('new version')", "", None),
    "two in the last digit": ("print('mean 0.123')", "mean 0.125\n", "-mean 0.125\n+mean 0.123"),
    "live NaN": ("print('above\\nloss ~nan')", "above\nloss ~0.9\n", " above\n-loss ~NUMBER\n+loss ~nan"),
    "live inf": ("print('loss ~inf')", "loss ~0.9\n", "-loss ~NUMBER\n+loss ~inf"),
    "count": ("print('epoch 3')", "epoch 4\n", "-epoch 4\n+epoch 3"),
    "nothing any more": ("pass", "something\n", "-something"),
    "something new": ("print('something')", "", "+something"),
    "another kind": ("'a value'", "a value\n", "-a value\n+'a value'"),
    "not run": ("x = 1", None, "nothing is compared; run `make solutions`"),
    "settings": (f"print({SETTINGS})", "1 embedded 1\n", None),
    "connect": ("socket.create_connection(('192.0.2.1', 80), timeout=1)", "", BLOCKED),
    "resolve": ("socket.getaddrinfo('example.org', 443)", "", BLOCKED),
    "datagram": ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))", "", BLOCKED),
    "fetch": ("urllib.request.urlopen('https://example.org', timeout=1)", "", BLOCKED),
    "child": (
        "reach = 'import socket; socket.gethostbyname(\"example.org\")'\n"
        "child = subprocess.run([sys.executable, '-c', reach], capture_output=True, text=True)\n"
        "print(child.stderr.splitlines()[-1])",
        f"OSError: [Errno 101] {BLOCKED}; this tried to reach example.org\n",
        None,
    ),
    "this machine": (
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(server.getsockname(), timeout=5).close()",
        "",
        None,
    ),
    "dead kernel": ("os.kill(os.getpid(), signal.SIGKILL)", "", "the kernel died while it ran this cell"),
}


def stored(*cells: tuple[str, str | None]) -> str:
    """A notebook file: code cells with the text that each has printed, None for a cell not run."""
    code = []
    for count, (source, printed) in enumerate(cells, 1):
        outputs = [new_output("stream", text=printed)] if printed else []
        code.append(
            new_code_cell(source, outputs=outputs, execution_count=None if printed is None else count)
        )
    return writes(new_notebook(cells=code))


@pytest.fixture(scope="module")
def failures(new_course_copy, run_in, tmp_path_factory) -> dict[str, str]:
    """Name of each cell in CELLS -> what one strict run said about it, "" where it passed."""
    tree = new_course_copy(tmp_path_factory.mktemp("strict"))
    text = stored(*((source, printed) for source, printed, _ in CELLS.values()))
    (tree / "solutions" / "00_sample.ipynb").write_text(text, encoding="utf-8")
    done = run_in(tree, *NBVAL, "--nbval", "solutions", OMP_NUM_THREADS="1")
    assert done.returncode == 1, done.stdout + done.stderr
    cases = xml.etree.ElementTree.parse(tree / "report.xml").iter("testcase")
    said = ["".join(part.text or "" for part in case if part.tag in ("failure", "error")) for case in cases]
    return dict(zip(CELLS, said, strict=True))


@pytest.mark.parametrize("name", CELLS)
def test_strict_run(name, failures):
    words = CELLS[name][2]
    assert (words in failures[name]) if words else (failures[name] == "")


@pytest.mark.parametrize("option", ["--nbval", "--nbval-lax"])
@pytest.mark.parametrize("card, status", [("not attempted", 0), ("right", 1)])
def test_labs_are_run_lax_and_want_unattempted_cards(option, card, status, course_copy, run_in):
    """Nothing else is compared, whatever the option, and settings that the caller made hold."""
    decorator = f"def exercise(key):\n    print('0.1: {card}')\n    return lambda function: function"
    decorated = '@exercise("0.1")\ndef f(x):\n    raise NotImplementedError()'
    settings = f"import os; assert [{SETTINGS}] == ['1', 'real', '2']"
    text = stored((decorator, None), (decorated, None), ("print('not compared')", None), (settings, None))
    (course_copy / "labs" / "00_sample.ipynb").write_text(text, encoding="utf-8")
    done = run_in(course_copy, *NBVAL, option, "labs", LABS_DATA_SOURCE="real", OMP_NUM_THREADS="2")
    assert done.returncode == status, done.stdout
    assert ('does not read "not attempted"' in done.stdout) == bool(status)
    assert f"{4 - status} passed" in done.stdout


@pytest.fixture
def plugin(pytestconfig) -> ModuleType:
    return pytestconfig.pluginmanager.get_plugin("helpers.course.nbval_settings")


@pytest.mark.parametrize("alive, raised", [(True, Empty), (False, RuntimeError)])
def test_waiting_for_a_silent_kernel_ends(alive, raised, plugin, monkeypatch):
    class SilentKernel(plugin.RunningKernel):
        def __init__(self):
            self.waits = []

        def get_message(self, stream, timeout=None):
            self.waits.append(timeout)
            raise Empty

        def is_alive(self):
            return alive

    monkeypatch.setattr(plugin, "ALIVE_EVERY", 0.01)
    kernel = SilentKernel()
    with pytest.raises(raised):
        kernel.await_reply("id", timeout=0.05)
    assert max(kernel.waits) <= 0.01


@pytest.mark.parametrize(
    "here, there, equal",
    [
        ("loss 1.23, 4.5e-02", "loss 1.24, 4.4e-02", True),
        ("loss 1.23.", "loss 1.25.", False),
        ("loss 1.23.", "loss 1.24.", True),
        ("version 1.2.3", "version 1.2.4", False),
        ("12 of 40", "13 of 40", False),
        ("loss 1.2", "loss 1.23", True),
        ("loss -0.00", "loss 0.00", True),
        ("loss 0.1", "gain 0.1", False),
        ("loss nan", "loss 0.1", False),
    ],
)
def test_printed_decimals_may_differ_by_one_in_the_last_place(here, there, equal, plugin):
    assert (plugin.Printed(here) == plugin.Printed(there)) is equal
    assert (plugin.Printed(here) != plugin.Printed(there)) is not equal


@pytest.mark.parametrize("claim, status", [("True", 0), ("False", 1)])
def test_claims_must_hold_on_real_data(claim, status, course_copy, run_in):
    text = stored((f"print('accuracy at least 75 %: {claim}')", "accuracy at least 75 %: True\n"))
    (course_copy / "solutions" / "00_sample.ipynb").write_text(text, encoding="utf-8")
    done = run_in(course_copy, *NBVAL, "--nbval-lax", "solutions", LABS_DATA_SOURCE="real")
    assert done.returncode == status, done.stdout
    assert ("A claim of the lab does not hold here" in done.stdout) == bool(status)
