"""A lab as a student meets it: JupyterLab in a real browser, all cells run, then a wrong answer typed in.

Needs Playwright (the extra "browser") and Chromium. Without them the test is skipped, or with CI=true fails.
"""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.course import notebooks

# Of each lab the exercise that is answered wrongly.
LABS = {
    "01_numpy_saliency.ipynb": "1.1",
    "02_fashion_mnist_gradcam.ipynb": "2.3",
    "03_cats_vs_dogs_gradcam.ipynb": "3.5",
    "04_resnet_gradcam.ipynb": "4.3",
    "05_vgg_hooks.ipynb": "5.4",
}
# Makes the first known mistake of the exercise, whatever that is.
WRONG_ANSWER = """@exercise("{key}")
def wrong(*arguments):
    from helpers.exercises import registry
    return registry["{key}"].mistakes[0].wrong(*arguments)
"""

START, RUN_ALL, RUN_ONE = 120, 300, 60  # seconds
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
]
LAB_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {
        "windowingMode": "none"
    },  # keeps every cell in the page, not only the visible ones
}

# Of each code cell: its source, its prompt, and what a person reads below it.
READ_CELLS = """() => [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell')].map(cell => ({
    source: cell.querySelector('.cm-content').innerText,
    prompt: cell.querySelector('.jp-InputPrompt').textContent,
    shown: cell.querySelector('.jp-Cell-outputArea')?.innerText ?? '',
    images: [...cell.querySelectorAll('.jp-Cell-outputArea img')]
        .map(image => ({alt: image.alt, width: image.naturalWidth})),
}))"""


def missing() -> str:
    """What keeps the browser test from running here, "" when nothing does."""
    if importlib.util.find_spec("playwright") is None:
        return 'Playwright is not installed; pip install -e ".[browser]"'
    return "" if CHROMIUM else "Chromium is not installed; on Debian: apt install chromium"


def wait_until(condition, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def answer(address: str) -> object:
    """The JSON at `address`, None while the server is not up."""
    try:
        with urllib.request.urlopen(address, timeout=10) as reply:
            return json.load(reply)
    except OSError:
        return None


@contextmanager
def jupyterlab(folder: Path, home: Path) -> Iterator[str]:
    """A JupyterLab server on `folder` with settings of its own in `home`, which also gets server.log."""
    for plugin, settings in LAB_SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(settings), encoding="utf-8")
    variables = {
        "HOME": home,
        "JUPYTER_CONFIG_DIR": home / "config",
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "IPYTHONDIR": home / "ipython",
        "PYTHONPATH": notebooks.ROOT,
        "LABS_DATA_SOURCE": "embedded",
    }
    # A student has no LABS_HEADLESS; and under pytest ipykernel would treat C-level output in another way.
    inherited = {k: v for k, v in os.environ.items() if k not in ("LABS_HEADLESS", "PYTEST_CURRENT_TEST")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"]
    options += [f"--ServerApp.port={port}", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}"]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env={**inherited, **{name: str(value) for name, value in variables.items()}},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(
                lambda: server.poll() is not None or answer(f"{address}/api/status"),
                START,
                "JupyterLab starts",
            )
            assert server.poll() is None, "JupyterLab ended at once; see its log"
            yield address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def kernel_is_idle(address: str) -> bool:
    """As the server sees it: the page says idle before there is a kernel."""
    kernels = [session["kernel"] for session in answer(f"{address}/api/sessions") or []]
    return bool(kernels) and all(kernel["execution_state"] == "idle" for kernel in kernels)


def is_json(path: Path) -> bool:
    """Whether the file is whole: JupyterLab empties a file before it writes it anew."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def failed_cells(page, path: Path) -> list[str]:
    """Code cells that failed or did not run, from the notebook as JupyterLab saves it.

    On the page an error looks like any output on stderr, such as a progress bar.
    """
    before = path.stat().st_mtime_ns
    page.keyboard.press("ControlOrMeta+S")
    wait_until(lambda: path.stat().st_mtime_ns != before and is_json(path), START, "the notebook is saved")
    code = [cell for cell in notebooks.read(path).cells if cell.cell_type == "code"]
    return [
        "\n".join(
            [cell.source, *(f"{o.ename}: {o.evalue}" for o in cell.outputs if o.output_type == "error")]
        )
        for cell in code
        if cell.execution_count is None or any(o.output_type == "error" for o in cell.outputs)
    ]


def run_lab(page, address: str, folder: Path, name: str, key: str, diagnosis: str) -> None:
    """Open a lab, run all of it, look at it, then answer exercise `key` wrongly and read the diagnosis."""
    page.goto(f"{address}/lab/tree/{name}?reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=START * 1000)
    wait_until(lambda: kernel_is_idle(address), START, "the kernel starts")

    page.click('li.lm-MenuBar-item:has-text("Run")')
    page.click('li.lm-Menu-item[data-command="runmenu:run-all"]')

    def finished() -> bool:
        """After an error, JupyterLab takes the cells that still wait, "[*]", off the queue."""
        prompts = [cell["prompt"] for cell in page.evaluate(READ_CELLS)]
        begun = any(character.isdigit() for prompt in prompts for character in prompt)
        return begun and not any("*" in prompt for prompt in prompts) and kernel_is_idle(address)

    wait_until(finished, RUN_ALL, "all cells run")
    assert failed_cells(page, folder / name) == []
    cells = page.evaluate(READ_CELLS)
    exercises = [cell for cell in cells if cell["source"].startswith("@exercise(")]
    assert exercises
    assert [cell["source"] for cell in exercises if "not attempted" not in cell["shown"]] == []
    images = [image for cell in cells for image in cell["images"]]
    assert images, "no picture is shown"
    assert [image for image in images if not (image["alt"] and image["width"])] == []

    cell = page.locator(".jp-NotebookPanel .jp-CodeCell").filter(has_text=f'@exercise("{key}")')
    cell.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text(WRONG_ANSWER.format(key=key))
    page.keyboard.press("Shift+Enter")
    cell.locator(".jp-Cell-outputArea").get_by_text(diagnosis).wait_for(timeout=RUN_ONE * 1000)


def try_lab(folder: Path, home: Path, name: str, key: str, diagnosis: str) -> None:
    """`run_lab` in a fresh JupyterLab and browser. A failure names a screenshot and the server's log."""
    from playwright.sync_api import sync_playwright

    screenshot, log = home / "failed.png", home / "server.log"
    with jupyterlab(folder, home) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        try:
            run_lab(page, address, folder, name, key, diagnosis)
        except Exception as error:
            page.screenshot(path=screenshot)
            tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-20:])
            pytest.fail(f"{error}\nScreenshot: {screenshot}\nServer log: {log}, which ends with\n{tail}")
        finally:
            browser.close()


@pytest.mark.parametrize("name, key", LABS.items())
def test_lab_in_the_browser(name, key, tmp_path):
    if reason := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from helpers.exercises import registry

    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    shutil.copy(notebooks.LABS / name, work / name)
    try_lab(work, home, name, key, registry[key].mistakes[0].sentence.replace("`", ""))


def test_every_lab_is_tried():
    assert set(LABS) == {path.name for path in notebooks.LABS.glob("*.ipynb")}


@pytest.mark.parametrize("ci, outcome", [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_a_browser_only_ci_fails(ci, outcome, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "CHROMIUM", None)
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="is not installed"):
        test_lab_in_the_browser(*next(iter(LABS.items())), tmp_path)
