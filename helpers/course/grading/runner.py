"""Runs inside the sandbox: executes a submission's cells and calls the functions that they define.

Usage: python runner.py < job.json. It writes one JSON object per line: {"ready": ...}, then for each
exercise {"begin": key} and {"done": key, ...}. Nothing here is secret and nothing that it writes is believed:
it shares a process with the submission. The judge compares what comes back with what it computed itself.
"""

import base64
import io
import json
import os
import sys
import traceback

LARGEST = 8_000_000  # bytes of one returned array


def set_limits(limits: dict) -> None:
    """Limit this process and all its children, and if it is root's, go on as nobody in particular."""
    try:
        import resource
    except ImportError:  # Windows, where only trusted submissions run
        return
    for name, value in limits["resources"].items():
        number = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(number)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (value, value))
    if user := limits["user"]:  # root is above the limit on processes
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)


class Shell:
    """The IPython shell in which cells run, without anything that would write to the result stream."""

    def __init__(self) -> None:
        from IPython.core.interactiveshell import InteractiveShell

        class Quiet(InteractiveShell):
            def enable_gui(self, gui: str | None = None) -> None:
                """`%matplotlib inline` asks for it; there is nothing to enable."""

            def showtraceback(self, *_: object, **__: object) -> None:
                """The judge gets the exception itself."""

        self._shell = Quiet.instance()
        self._shell.history_manager.enabled = False

    def defined(self, name: str) -> object:
        """A function of this name that some cell has defined without the decorator."""
        function = self._shell.user_ns.get(name)
        own = getattr(function, "__module__", None) == "__main__"
        return function if callable(function) and own else None

    def run(self, source: str) -> BaseException | None:
        """Run a cell; return what it raised."""
        result = self._shell.run_cell(source, store_history=False)
        return result.error_before_exec or result.error_in_exec


def encoded(value: object) -> object:
    """A value of helpers.exercises._check as JSON."""
    from helpers.exercises import _check

    if isinstance(value, tuple):
        return [encoded(item) for item in value]
    if isinstance(value, _check.Array):
        array = value.values
        if array.nbytes > LARGEST:
            return {"kind": f"an array of {array.nbytes / 1e6:.0f} MB", "complaint": ""}
        if array.dtype.kind not in "biufc":
            return {"kind": f"an array of dtype {array.dtype}", "complaint": ""}
        return {
            "data": base64.b64encode(array.tobytes()).decode(),
            "format": array.dtype.str,
            "shape": list(array.shape),
            "library": value.library,
            "dtype": value.dtype,
        }
    return {"kind": value.kind, "complaint": value.complaint}


def line_of_cell(error: BaseException) -> str:
    """The last line of a cell that an exception passed."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename.startswith("<ipython-input")]
    if isinstance(error, SyntaxError) and error.lineno:
        lines = [error.lineno]
    return f"line {lines[-1]} of your cell" if lines else ""


def error_as_json(error: object) -> dict | None:
    return error and {**vars(error), "message": error.message[:2000]}


def executed(shell: Shell, sources: list[str], limit: float) -> dict:
    """Run cells, all of them; what went wrong with the last one, {} if nothing did."""
    from helpers.exercises import _check

    try:
        errors = _check.within(limit, lambda: [shell.run(source) for source in sources])
    except _check.OutOfTime:
        return {"timeout": True}
    if not errors or errors[-1] is None:
        return {"failed": sum(error is not None for error in errors)}
    kind = f"{type(errors[-1]).__module__}.{type(errors[-1]).__qualname__}"
    raised = _check.Raised(kind, str(errors[-1]), line_of_cell(errors[-1]))
    return {"cell_error": error_as_json(raised), "failed": sum(error is not None for error in errors)}


def judged(function: object, key: str, *, seeds: list, arguments: list, limit: float) -> dict:
    """What the student's function did with the inputs of an exercise."""
    import numpy as np

    from helpers.exercises import _check
    from helpers.exercises.inputs import INPUTS

    cases, use = INPUTS[key]
    session = _check.Session()
    with _check.undisturbed():
        drawn = [args for seed in seeds for args in cases(np.random.default_rng(seed))]
        try:
            outcomes = session.run((_check.observe(function, args, arguments, use) for args in drawn), limit)
        except _check.OutOfTime:
            return {"timeout": True}
    return {
        "outcomes": [
            {
                "value": encoded(outcome.value),
                "error": error_as_json(outcome.error),
                "changed": sorted(outcome.changed),
            }
            for outcome in outcomes
        ],
        "seconds": session.seconds,
        "numeric_warnings": list(session.numeric_warnings),
        "uninitialised": session.uninitialised,
        "above_stub": _check.has_code_above_the_stub(function),
    }


def main() -> None:
    # Results go where stdout went; what the submission prints goes to stderr, which the judge counts.
    results = io.TextIOWrapper(os.fdopen(os.dup(1), "wb"), encoding="utf-8", newline="\n")
    os.dup2(2, 1)

    def send(message: dict) -> None:
        results.write(json.dumps(message) + "\n")
        results.flush()

    job = json.load(sys.stdin)
    set_limits(job["limits"])
    sys.stdin = open(os.devnull, encoding="utf-8")  # input() ends at once

    from helpers import exercises

    shell = Shell()
    if error := shell.run(job["setup"]):
        send({"broken": f"{type(error).__name__}: {error}"})
        return
    from helpers.exercises.references import REFERENCES

    exercises.stand_ins.update(REFERENCES)
    send({"ready": True})
    for key in job["order"]:
        send({"begin": key})
        found = executed(shell, job["cells"][key], job["limit"])
        if key in job["judge"] and "timeout" not in found:
            # A line below the function may have failed: it may need what only the whole lab has.
            function = exercises.answers.get(key) or shell.defined(job["names"][key])
            if function:
                found |= judged(function, key, **job["judge"][key])
        send({"done": key, **found})


if __name__ == "__main__":
    main()
