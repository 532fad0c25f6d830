"""How pytest runs notebooks: `pytest --nbval solutions labs` compares the outputs of solutions/ (strict) and
only runs labs/, which stores none (lax).

A pytest plugin, named in pyproject.toml: a conftest.py in tests/ would not be read for solutions/ and labs/.
The functions that replace nbval's own work around traps of nbval 0.11, named where they stand.
"""

import difflib
import os
import re
import time
from queue import Empty

import nbval.kernel
import pytest
from jupyter_client import KernelClient, KernelManager
from nbval.plugin import IPyNbCell, IPyNbFile, RunningKernel

from helpers.course import notebooks
from helpers.course.refresh import KERNEL_SETTINGS, kernel_environment

OFFLINE = notebooks.ROOT / "tests" / "offline"

# Masked in what is stored and in what a run prints, before the two are compared: live numbers behind a tilde,
# such as "~0.87" or "~ 12.3 s". NaN and inf are no numbers: a run that prints "~nan" differs from "~0.87".
MASKED = {r"~ ?[-+]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?": "~NUMBER"}

DECIMAL = re.compile(r"(?<![\w.])[-+]?\d+\.\d+(?:e[-+]?\d+)?(?!\w|\.\d)")
ALIVE_EVERY = 2.0  # seconds between two looks at whether a busy kernel still lives
NOT_COMPARED = (
    "stderr",  # warnings differ between versions; `refresh` refuses to store any
    "text/html",  # carries pictures, which differ in the last bit; the same in words is in text/plain
)


class Printed(str):
    """Text that equals another even if its decimal numbers differ, each by one in the last digit."""

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        if str(self) == str(other):
            return True
        here, there = DECIMAL.findall(str(self)), DECIMAL.findall(str(other))
        return DECIMAL.split(str(self)) == DECIMAL.split(str(other)) and all(map(_nearly_equal, here, there))

    def __ne__(self, other: object) -> bool:
        return not self == other


def _nearly_equal(here: str, there: str) -> bool:
    return abs(float(here) - float(there)) <= 1.001 * max(_last_digit(here), _last_digit(there))


def _last_digit(number: str) -> float:
    """The worth of the last printed digit: 0.01 for "1.23", 0.001 for "4.5e-2"."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def pytest_collectstart(collector: pytest.Collector) -> None:
    if isinstance(collector, IPyNbFile):
        if collector.path.parent.name == "labs":
            collector.compare_outputs = False
        collector.skip_compare += NOT_COMPARED
        # Not in a file for --nbval-sanitize-with: nbval reads that in the system's encoding, and silently
        # drops a pattern that has a blank line inside it.
        collector.sanitize_patterns.update(MASKED)


_start_new_kernel = nbval.kernel.start_new_kernel
_await_reply = RunningKernel.await_reply
_sanitize = IPyNbCell.sanitize
_compare_outputs = IPyNbCell.compare_outputs
_runtest = IPyNbCell.runtest


def start_new_kernel(**options) -> tuple[KernelManager, KernelClient]:
    """Kernels run as in a refresh, but without network, and what the caller has set wins."""
    environment = kernel_environment(OFFLINE, environment={**KERNEL_SETTINGS, **os.environ})
    return _start_new_kernel(env=environment, **options)


def await_reply(kernel: RunningKernel, msg_id: str, timeout: float | None = None) -> None:
    """nbval's own notices a dead kernel (out of memory, say) only when the cell's time is up."""
    end = time.monotonic() + (float("inf") if timeout is None else timeout)
    while True:
        try:
            return _await_reply(kernel, msg_id, timeout=min(ALIVE_EVERY, max(0.0, end - time.monotonic())))
        except Empty:
            if not kernel.is_alive():
                raise RuntimeError("the kernel died while it ran this cell") from None
            if time.monotonic() >= end:
                raise


def sanitize(cell: IPyNbCell, text: object) -> object:
    text = _sanitize(cell, text)
    return Printed(text) if isinstance(text, str) else text


def compare_outputs(cell: IPyNbCell, test: list, ref: list, skip_compare: tuple | None = None) -> bool:
    """nbval's own explains a difference by two long texts, or by naming only the kind of the output."""
    same = _compare_outputs(cell, test, ref, skip_compare)
    if not same:
        stored, now = (_shown_lines(cell, outputs) for outputs in (ref, test))
        diff = list(difflib.unified_diff(stored, now, "stored in the notebook", "this run", lineterm="", n=2))
        cell.comparison_traceback = diff or cell.comparison_traceback
    return same


def _shown_lines(cell: IPyNbCell, outputs: list) -> list[str]:
    """What a reader sees of the outputs, masked as for the comparison."""
    texts = []
    for output in outputs:
        if output.output_type == "stream" and output.name != "stderr":
            texts.append(output.text)
        elif output.output_type == "error":
            texts.append(f"{output.ename}: {output.evalue}")
        elif "text/plain" in output.get("data", {}):
            texts.append(output["data"]["text/plain"])
    return [line for text in texts for line in str(_sanitize(cell, text)).splitlines()]


def runtest(cell: IPyNbCell) -> None:
    """nbval's own silently compares nothing in a cell that is stored without execution count.

    And in labs/, which nobody has solved, the card of every exercise must say so; in a lax run of solutions/,
    on real data, no printed claim may turn out False.
    """
    if cell.parent.compare_outputs and cell.cell.execution_count is None:
        cell.raise_cell_error(
            "The cell is stored without having been run, so nothing is compared; run `make solutions`"
        )
    _runtest(cell)
    if not cell.parent.compare_outputs and cell.path.parent.name == "solutions":
        for line in _shown_lines(cell, cell.test_outputs):
            if line.endswith(": False"):
                cell.raise_cell_error(f"A claim of the lab does not hold here: {line}")
    if cell.path.parent.name == "labs" and cell.cell.source.startswith("@exercise("):
        if not any("not attempted" in line for line in _shown_lines(cell, cell.test_outputs)):
            cell.raise_cell_error('The card of an unsolved exercise does not read "not attempted"')


nbval.kernel.start_new_kernel = start_new_kernel
RunningKernel.await_reply = await_reply
IPyNbCell.sanitize = sanitize
IPyNbCell.compare_outputs = compare_outputs
IPyNbCell.runtest = runtest
