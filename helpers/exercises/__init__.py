"""Exercises that check themselves: the decorator, the verdict, hints and the reference.

A lab's exercises stand in one file of this folder, `lab01.py` for lab 01, as a tuple `EXERCISES`; adding a
lab is adding a file. `_check.py` runs functions safely, `_diagnosis.py` says what is wrong with the results.
"""

import html
import importlib
import inspect
import os
import pkgutil
import re
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from IPython.display import display

from . import _check, _diagnosis
from ._check import Complaint

__all__ = [
    "Complaint", "Exercise", "Mistake", "Verdict", "check", "exercise", "hint", "judge", "reference",
    "registry", "verdict",
]  # fmt: skip

Status = Literal["right", "not attempted", "not right yet", "error", "too slow"]

SEEDS = (0, 1, 2)  # fixed, so that a card reads the same on every run; several, so that luck is not enough


# What an exercise is ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mistake:
    """A known mistake: a small wrong implementation and the sentence for whoever makes it."""

    wrong: Callable[..., object]  #: takes the same positional arguments as the reference
    sentence: str  #: what the student reads
    seen: str  #: where it was seen: "S1", "peer", "trial", ...


@dataclass(frozen=True)
class Exercise:
    """One exercise, with everything that is known about right and wrong answers to it.

    A result is an array, a scalar, or a (nested) tuple or list of those. The reference may raise on purpose:
    then a right answer raises the same type of exception.
    """

    key: str  #: "1.3": the lab's number stands before the point
    title: str
    reference: Callable[..., object]  #: a plain function; its source is what `reference(key)` shows
    cases: Callable[[np.random.Generator], list[tuple]]  #: random positional arguments, one tuple per call
    mistakes: tuple[Mistake, ...]
    verified: str  #: one sentence: what a right answer was shown to do
    hints: tuple[str, str]
    points: int = 1
    limit: float = 20.0  #: seconds for all calls of one check together; then they are stopped
    slow: float = 5.0  #: seconds; a right answer that takes longer is "too slow"
    alternatives: tuple[Callable[..., object], ...] = ()  #: other right answers, for the tests only
    #: how the check uses an answer: called as use(answer, *args) in place of answer(*args), and what it
    #: returns is compared; may raise Complaint with a sentence for the student
    use: Callable[..., object] | None = None
    rtol32: float = 1e-4  #: allowed error / max|reference| of each array where any float32 is involved
    rtol64: float = 1e-9  #: the same where everything is float64
    #: helpers that a lab offers and that nearly are the answer ("helpers.cam.grad_cam"): not there in grading
    gives_away: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """What the arguments of one call are named."""
        if self.use:
            return list(inspect.signature(self.use).parameters)[1:]
        return list(inspect.signature(self.reference).parameters)

    def draw(self, rngs: Iterable[np.random.Generator]) -> list[tuple]:
        """The arguments of all calls of one check."""
        return [args for rng in rngs for args in self.cases(rng)]

    def observe(self, answer: Callable[..., object], args: tuple) -> _check.Outcome:
        """What `answer` does with a copy of `args`."""
        return _check.observe(answer, args, self.names, self.use)


@dataclass(frozen=True)
class Verdict:
    """What a check found. `correct` also holds for an answer that is right but too slow."""

    key: str
    status: Status
    notes: tuple[str, ...]
    correct: bool
    mistake: str = ""  #: the sentence of the known mistake, if it is one
    partly: str = ""  #: what is right about an answer that is not right, if that is worth points


class UnknownExercise(KeyError):
    """No exercise has this key; the message lists those that there are."""

    def __str__(self) -> str:  # KeyError would show the repr of the sentence
        return self.args[0]


class _Registry(Mapping[str, Exercise]):
    """Every exercise by its key. A lab's file is imported only when one of its keys is asked for, because
    labs may need PyTorch or TensorFlow, which don't always get along in one process."""

    def __getitem__(self, key: str) -> Exercise:
        if not isinstance(key, str):
            raise UnknownExercise(f'Write the key in quotes, as text: "{key}".')
        lab = str(key).partition(".")[0]
        name = f"lab{lab:0>2}"
        labs = self._labs()
        known = self._exercises(name) if name in labs else {}
        if key not in known:
            keys = ", ".join(known) or f"those of {', '.join(labs) or 'no lab yet'}"
            raise UnknownExercise(f'There is no exercise "{key}". Use one of these keys: {keys}.')
        return known[key]

    def __iter__(self) -> Iterator[str]:
        for name in self._labs():
            yield from self._exercises(name)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    @staticmethod
    def _labs() -> list[str]:
        return sorted(m.name for m in pkgutil.iter_modules(__path__) if re.fullmatch(r"lab\d\d", m.name))

    @staticmethod
    def _exercises(name: str) -> dict[str, Exercise]:
        found: dict[str, Exercise] = {}
        for ex in importlib.import_module(f"{__name__}.{name}").EXERCISES:
            if not ex.key.startswith(f"{int(name[3:])}."):
                raise ValueError(f'{name}.py: the key "{ex.key}" must start with "{int(name[3:])}.".')
            if ex.key in found:
                raise ValueError(f'{name}.py: two exercises have the key "{ex.key}"; give one another key.')
            found[ex.key] = ex
        return found


registry: Mapping[str, Exercise] = _Registry()


# What the session remembers. It is kept outside this module's namespace, which %autoreload empties.
_kept = sys.modules.setdefault(f"{__name__}._kept", types.ModuleType(f"{__name__}._kept"))
_verdicts: dict[str, Verdict] = _kept.__dict__.setdefault("verdicts", {})
_hints_given: dict[str, int] = _kept.__dict__.setdefault("hints_given", {})
_references_shown: set[str] = _kept.__dict__.setdefault("references_shown", set())


# What a student calls --------------------------------------------------------------------------------------


def check(key: str, fn: Callable[..., object]) -> Verdict:
    """Run `fn` on the cases of exercise `key` and say what was found.

    The function gets copies of its arguments; random states, grad mode and warnings are as before afterwards.
    What it prints or displays is shown for the first call only. The time limit needs the main thread (where
    notebooks run) and stops Python code, not one long call into compiled code.

    Raises UnknownExercise for a key that does not exist, and KeyboardInterrupt if the user interrupts.
    """
    ex = registry[key]
    with _check.undisturbed():
        cases = ex.draw(np.random.default_rng(seed) for seed in SEEDS)
        session = _check.Session()
        try:
            outcomes = session.run_quietly((ex.observe(fn, args) for args in cases), ex.limit)
        except _check.OutOfTime:
            result = Verdict(key, "too slow", (_stopped(ex.limit),), correct=False)
        else:
            result = judge(ex, cases, outcomes, session, _check.has_code_above_the_stub(fn))
    session.show_first_output()
    return result


def judge(
    ex: Exercise,
    cases: list[tuple],
    outcomes: list[_check.Outcome],
    session: _check.Session,
    has_code_above_the_stub: bool,
) -> Verdict:
    """The verdict on an answer that finished: `outcomes` is what it did on the `cases`, maybe elsewhere."""
    trials = [
        _diagnosis.Trial(args, got, ex.observe(ex.reference, args), ex.rtol32, ex.rtol64)
        for args, got in zip(cases, outcomes, strict=True)
    ]
    if all(trial.got.error is not None and trial.got.error.by_stub for trial in trials):
        notes = (_check.LEFT_BELOW,) if has_code_above_the_stub else ()
        return Verdict(ex.key, "not attempted", notes, correct=False)
    if session.uninitialised:
        return Verdict(ex.key, "not right yet", (_check.UNINITIALISED,), correct=False)
    if not all(trial.right for trial in trials):
        failure = _diagnosis.failure(trials)
        status = "error" if failure else "not right yet"
        for mistake in ex.mistakes:
            if _diagnosis.explains((ex.observe(mistake.wrong, args) for args in cases), trials):
                notes = (mistake.sentence, *failure)
                return Verdict(ex.key, status, notes, correct=False, mistake=mistake.sentence)
        notes = failure or (*_diagnosis.remarks(trials), *session.numeric_warnings)
        return Verdict(ex.key, status, notes, correct=False, partly=_diagnosis.partly_right(trials))
    if session.seconds > ex.slow:
        note = f"It is right, but the check took longer than {ex.slow:g} s: look for a loop to replace."
        return Verdict(ex.key, "too slow", (note,), correct=True)
    return Verdict(ex.key, "right", (ex.verified,), correct=True)


def exercise(key: str) -> Callable[[Callable], Callable]:
    """Check the decorated function, show a card, and hand back something that works.

    Hands back the function itself if it is right, otherwise the reference, so that a lab runs to its end.
    """
    if not isinstance(key, str):
        raise TypeError('Write the decorator with its key: @exercise("1.3"), on the line above "def".')
    ex = registry[key]

    def decorate(fn: Callable) -> Callable:
        if not callable(fn):
            raise TypeError(f'Put @exercise("{key}") on the line above "def": it checks a function.')
        _verdicts.pop(key, None)  # if the user interrupts the check, an older verdict must not stand
        found = _verdicts[key] = check(key, fn)
        notes = found.notes
        if found.status != "right":
            goal = "faster" if found.correct else "right"
            notes += (f"The lab goes on with the reference until yours is {goal}.",)
            notes += (f'`hint("{key}")` gives a hint.',)
        if getattr(fn, "__name__", "") != ex.reference.__name__:
            notes += (f"The lab calls this function `{ex.reference.__name__}`: give yours that name.",)
        display(_Card(_heading(ex, found), notes, found.status))
        return fn if found.status == "right" else ex.reference

    return decorate


def verdict(key: str) -> None:
    """Show what the last check of exercise `key` found, in one line.

    Raises AssertionError, but only while nbgrader validates or grades, if the answer is not correct.
    """
    ex = registry[key]
    found = _verdicts.get(key)
    if found is None:
        heading, notes = f"Exercise {key}, {ex.title}: run the exercise cell above first", ()
    else:
        heading, notes = _heading(ex, found), found.notes
    display(_Card(heading, status=found.status if found else None))
    # nbgrader sets this to "validate" or "autograde" in the kernels that it starts
    if os.environ.get("NBGRADER_EXECUTION") and not (found and found.correct):
        raise AssertionError(" ".join((f"{heading}.", *notes)))


def hint(key: str) -> None:
    """Show the first hint for exercise `key`, on the next call the second, then how to see the reference."""
    ex = registry[key]
    given = _hints_given[key] = min(_hints_given.get(key, 0) + 1, len(ex.hints) + 1)
    if given <= len(ex.hints):
        display(_Card(f"Exercise {key}: hint {given} of {len(ex.hints)}", (ex.hints[given - 1],)))
    else:
        note = f'Those were both. `reference("{key}")` shows the answer, and the card will say that it did.'
        display(_Card(f"Exercise {key}: no more hints", (note, *ex.hints)))


def reference(key: str) -> None:
    """Show the source of the reference answer to exercise `key`; its cards say so from then on."""
    ex = registry[key]
    _references_shown.add(key)
    display(_Card(f"Exercise {key}: reference", code=textwrap.dedent(inspect.getsource(ex.reference))))


# Cards -----------------------------------------------------------------------------------------------------

_COLOURS = {  # JupyterLab's own colours follow its theme; elsewhere one that reads on white and on black
    "right": "var(--jp-success-color1, #388e3c)",
    "not attempted": "var(--jp-ui-font-color2, #808080)",
    "not right yet": "var(--jp-warn-color1, #e07b00)",
    "error": "var(--jp-error-color1, #d9534f)",
    "too slow": "var(--jp-warn-color1, #e07b00)",
    None: "var(--jp-brand-color1, #4a90d9)",
}


@dataclass(frozen=True)
class _Card:
    """The same few sentences as HTML and as plain text. Words in `backticks` become code."""

    heading: str
    notes: tuple[str, ...] = ()
    status: Status | None = None
    code: str = ""

    def __repr__(self) -> str:
        code = textwrap.indent(self.code.rstrip(), "    ")
        return "\n".join((self.heading, *(f"  - {note}" for note in self.notes), *([code] if code else [])))

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{self._marked_up(note)}</li>" for note in self.notes)
        return (
            f'<div style="border-left: 4px solid {_COLOURS[self.status]}; padding: 4px 12px; margin: 4px 0; '
            "background: var(--jp-layout-color2, rgba(128, 128, 128, 0.1)); "
            'max-width: 60em; line-height: 1.5">'
            f"<strong>{self._marked_up(self.heading)}</strong>"
            + (f'<ul style="margin: 2px 0 0; padding-left: 1.4em">{items}</ul>' if items else "")
            + (f'<pre style="margin: 4px 0 0">{html.escape(self.code)}</pre>' if self.code else "")
            + "</div>"
        )

    @staticmethod
    def _marked_up(text: str) -> str:
        return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))


def _heading(ex: Exercise, found: Verdict) -> str:
    shown = " (reference shown)" if ex.key in _references_shown else ""
    return f"Exercise {ex.key}, {ex.title}: {found.status}{shown}"


def _stopped(limit: float) -> str:
    return (
        f"Stopped after {limit:g} s: your function had not finished. "
        "Look for a loop that never ends, or for loops that one array operation can replace."
    )
