"""Compare what an answer did with what the reference did, and say in a sentence what differs.

A known mistake is recognised by its fingerprint: it did the same as the answer on every input. Where no
mistake matches, `remarks` says what can be said in general.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ._check import LOW_PRECISION, Array, Other, Outcome, Raised, Value, low_precision

MAX_MESSAGE = 300  # characters of an exception's message


@dataclass(frozen=True, eq=False)
class Trial:
    """One call: its arguments, what the student's function did and what the reference did."""

    args: tuple
    got: Outcome
    want: Outcome
    rtol32: float
    rtol64: float

    @cached_property
    def low_precision(self) -> bool:
        """Whether the arguments bring less than float64."""
        return low_precision(*self.args)

    @cached_property
    def rtol(self) -> float:
        """The tolerance of the lowest precision in arguments and results."""
        arrays = (*_arrays(self.got.value), *_arrays(self.want.value))
        low = self.low_precision or any(array.dtype in LOW_PRECISION for array in arrays)
        return self.rtol32 if low else self.rtol64

    @cached_property
    def damage(self) -> frozenset[str]:
        """What the student's function changed and the reference did not."""
        return self.got.changed - self.want.changed

    @cached_property
    def failed(self) -> bool:
        """Whether the student's function raised something that the reference did not."""
        return self.got.error is not None and _kind_of(self.got.error) != _kind_of(self.want.error)

    @cached_property
    def right(self) -> bool:
        """Whether the student's function did what the reference did, and no damage."""
        if self.damage or _kind_of(self.got.error) != _kind_of(self.want.error):
            return False
        if self.want.error is not None:
            return True
        return _misfit(self.got.value, self.want.value) is None and _agree(
            self.got.value, self.want.value, self.rtol
        )


def explains(outcomes: Iterable[Outcome], trials: list[Trial]) -> bool:
    """Whether a mistake with these `outcomes` did on every input what the student's function did.

    Dtypes are not compared: a mask is the same mistake as booleans and as floats.
    """
    return all(
        outcome.changed - trial.want.changed == trial.damage
        and _signature(outcome.error) == _signature(trial.got.error)
        and (outcome.error is not None or _agree(trial.got.value, outcome.value, trial.rtol))
        for outcome, trial in zip(outcomes, trials, strict=True)
    )


def _kind_of(error: Raised | None) -> str:
    return error.kind if error else ""


def _signature(error: Raised | None) -> tuple:
    """What two exceptions with one cause share: type, words, and the shapes they name, in any order.

    The name of the function that was called wrongly, as in "keep() takes 2 positional arguments", may differ.
    """
    words = re.sub(r"^[\w.<>]+\(\)", "", error.message if error else "")
    shapes = re.findall(r"\([\d, ]*\)", words)
    return _kind_of(error), re.sub(r"\([\d, ]*\)", "", words).split(), sorted(shapes)


def failure(trials: list[Trial]) -> tuple[str, ...]:
    """The first exception that should not have been raised, with its line; () if there is none."""
    trial = next((trial for trial in trials if trial.failed), None)
    if trial is None:
        return ()
    error = trial.got.error
    message = error.message.strip().partition("\n")[0][:MAX_MESSAGE]
    message = re.sub(r"0x[0-9a-fA-F]+", "0x...", message)  # an address would differ from run to run
    place = ", ".join(filter(None, (error.line, _shapes(trial))))
    name = error.kind.rpartition(".")[2]
    text = f"{name}: {message}" if message else name
    return (f"{text} ({place})." if place else f"{text}.",)


def remarks(trials: list[Trial]) -> tuple[str, ...]:
    """One or two sentences about an answer that is not right and raised nothing it should not."""
    returned = [trial for trial in trials if trial.got.error is None and trial.want.error is None]
    for misfit in (_is_nothing, _misfit):
        for trial in returned:
            if sentence := misfit(trial.got.value, trial.want.value):
                return (sentence,)
    changed = sorted({path for trial in trials for path in trial.damage})
    damage = (f"It changes {_listed(changed)} in place: leave the arguments as they are.",) if changed else ()
    raised = (t.want.error for t in trials if t.got.error is None)
    missed = (error.kind.rpartition(".")[2] for error in raised if error is not None)
    missing = tuple(
        f"It should raise {kind} for one of the inputs, but it returned something." for kind in missed
    )
    return (*damage, *(_about_values(returned) or missing[:1]))


def partly_right(trials: list[Trial]) -> str:
    """What is right about an answer that is not right, worth half of the points; "" if nothing is.

    The numbers may be right and something else not; or they are right for float64 inputs only.
    """

    def has_right_numbers(trial: Trial) -> bool:
        no_error = trial.got.error is None and trial.want.error is None
        return no_error and _agree(trial.got.value, trial.want.value, trial.rtol)

    if all(map(has_right_numbers, trials)):
        if any(trial.damage for trial in trials):
            return "The numbers are right, but the arguments are changed."
        return "The numbers are right, but their kind is not."
    wide = [trial for trial in trials if not trial.low_precision]
    if wide and len(wide) < len(trials) and all(trial.right for trial in wide):
        return "It is right for float64 inputs, not for float32."
    return ""


# Comparing -------------------------------------------------------------------------------------------------


def _arrays(value: Value) -> Iterator[Array]:
    """The arrays in a value, from left to right."""
    if isinstance(value, tuple):
        for item in value:
            yield from _arrays(item)
    elif isinstance(value, Array):
        yield value


def _agree(got: Value, want: Value, rtol: float) -> bool:
    """Whether two values have the same structure, shapes and, within `rtol`, numbers."""
    if isinstance(got, tuple) and isinstance(want, tuple):
        return len(got) == len(want) and all(_agree(g, w, rtol) for g, w in zip(got, want, strict=True))
    if isinstance(got, Array) and isinstance(want, Array):
        return _close(got.values, want.values, rtol)
    return isinstance(got, Other) and got == want


def _close(got: np.ndarray, want: np.ndarray, rtol: float) -> bool:
    if got.shape != want.shape:
        return False
    if not {got.dtype.kind, want.dtype.kind} <= set("biufc"):
        return got.dtype.kind == want.dtype.kind and np.array_equal(got, want)
    return np.allclose(got, want, rtol=0, atol=_allowed(want, rtol), equal_nan=True)


def _allowed(want: np.ndarray, rtol: float) -> float:
    """The largest error that passes: relative to the largest number, absolute where all are 0."""
    if want.dtype.kind in "iub":
        return 0.0
    finite = np.abs(want[np.isfinite(want)])
    return rtol * float(finite.max(initial=0.0) or 1.0)


# Remarks ---------------------------------------------------------------------------------------------------


def _is_nothing(got: Value, _want: Value) -> str | None:
    if got == Other("None"):
        return "It returns nothing (None): end the function with `return` and the result."
    return None


def _misfit(got: Value, want: Value, what: str = "The result") -> str | None:
    """What is wrong with the container, the shape or the dtype of a value; None if nothing is."""
    if isinstance(got, Other) and got.complaint:
        return got.complaint
    if isinstance(want, tuple):
        if not isinstance(got, tuple):
            return f"{what} is {_kind(got)}; wanted a tuple of {len(want)}."
        if len(got) != len(want):
            return f"{what} is a tuple of {len(got)}; wanted a tuple of {len(want)}."
        named = ((g, w, f"Item {i} of the result") for i, (g, w) in enumerate(zip(got, want, strict=True)))
        return next(filter(None, (_misfit(*item) for item in named)), None)
    if not isinstance(got, Array) or not isinstance(want, Array):
        return None if got == want else f"{what} is {_kind(got)}; wanted {_kind(want)}."
    if got.values.shape != want.values.shape:
        return f"{what} has shape {got.values.shape}; wanted shape {want.values.shape}."
    if got.library != want.library and want.values.ndim > 0:
        return f"{what} is from {got.library}; wanted {_kind(want)} from {want.library}."
    kind = want.values.dtype.kind
    if kind == "f" and got.dtype not in ("float32", "float64"):
        return f"{what} has dtype {got.dtype}; wanted floating point (float32 or float64)."
    if kind in "iu" and got.values.dtype.kind not in "iu":
        return f"{what} has dtype {got.dtype}; wanted whole numbers (an integer dtype)."
    if kind == "b" and got.values.dtype.kind != "b":
        return f"{what} has dtype {got.dtype}; wanted True or False (dtype bool)."
    return None


def _kind(value: Value) -> str:
    if isinstance(value, tuple):
        return f"a tuple or list of {len(value)}"
    if isinstance(value, Other):
        return value.kind
    return "one number" if value.values.ndim == 0 else f"an array of shape {value.values.shape}"


@dataclass(frozen=True, eq=False)
class _Pair:
    """One array of a result as it is and as it should be, both of the same shape and as float64."""

    got: np.ndarray
    want: np.ndarray
    allowed: float  # the largest error that passes
    trial: Trial

    @cached_property
    def right(self) -> bool:
        return self.right_when_scaled(1.0)

    def right_when_scaled(self, factor: float) -> bool:
        return np.allclose(factor * self.got, self.want, rtol=0, atol=self.allowed, equal_nan=True)

    @classmethod
    def all_of(cls, trial: Trial) -> list["_Pair"]:
        return [
            cls(got.values.astype(float), want.values.astype(float), _allowed(want.values, trial.rtol), trial)
            for got, want in zip(_arrays(trial.got.value), _arrays(trial.want.value), strict=True)
        ]


def _about_values(trials: list[Trial]) -> tuple[str, ...]:
    """A sentence about the first array of the result whose numbers are wrong; () if all are right.

    The values must have the structure of the reference's.
    """
    rows = [_Pair.all_of(trial) for trial in trials]
    for i in range(max(map(len, rows), default=0)):
        pairs = [row[i] for row in rows if i < len(row)]  # the number of arrays may depend on the input
        if not all(pair.right for pair in pairs):
            found = (say(pairs) for say in (_nan, _zeros, _unchanged, _factor, _first_only, _float64_only))
            sentence = next(filter(None, found), None) or _difference(pairs)
            several = isinstance(trials[0].want.value, tuple)
            whole = f"Array {i} of the result: {sentence}" if several else sentence[0].upper() + sentence[1:]
            return (whole,)
    return ()


def _nan(pairs: list[_Pair]) -> str | None:
    bad = [pair for pair in pairs if (np.isfinite(pair.want) & ~np.isfinite(pair.got)).any()]
    if not bad:
        return None
    return f"it holds NaN or infinity, {_on(bad, pairs)}: look for a division by zero or an overflow."


def _zeros(pairs: list[_Pair]) -> str | None:
    return None if any(pair.got.any() for pair in pairs) else "every number in it is 0."


def _unchanged(pairs: list[_Pair]) -> str | None:
    for i, arguments in enumerate(zip(*(pair.trial.args for pair in pairs), strict=False)):
        if all(
            isinstance(argument, np.ndarray) and np.array_equal(pair.got, argument)
            for pair, argument in zip(pairs, arguments, strict=True)
        ):
            return f"it is argument {i + 1} as it came in."
    return None


def _factor(pairs: list[_Pair]) -> str | None:
    factors = []
    for pair in pairs:
        if not pair.want.any():
            if not pair.right:
                return None
            continue
        got, want = pair.got.ravel(), pair.want.ravel()
        factor = float(got @ want / (want @ want))
        if not factor or not pair.right_when_scaled(1 / factor):
            return None
        factors.append(factor)
    if np.ptp(factors) <= 1e-3 * np.max(np.abs(factors)):
        if abs(factors[0] + 1) < 1e-3:
            return "it is the negative of the right answer."
        return f"it is {factors[0]:.3g} times the right answer."
    if all(pair.want.size > 1 for pair in pairs):  # a single number is a multiple of any other
        least, most = min(factors), max(factors)
        return (
            "it is the right answer times a factor that changes with the input "
            f"(from {least:.3g} to {most:.3g}): look for a size that is divided by, or not divided by."
        )
    return None


def _first_only(pairs: list[_Pair]) -> str | None:
    for pair in _wrong(pairs):
        if pair.want.ndim == 0 or len(pair.want) < 2 or not pair.want[0].any():
            return None
        off = np.abs(pair.got - pair.want) > pair.allowed
        if off[0].any() or any(item.mean() < 0.1 for item in off[1:]):  # a few values off: not that mistake
            return None
    return "it is right at index 0 of the first axis only: is something done for the first image alone?"


def _float64_only(pairs: list[_Pair]) -> str | None:
    if any(pair.right for pair in pairs) and all(pair.right != pair.trial.low_precision for pair in pairs):
        return "it is right for float64 inputs and wrong for float32 inputs: look at the dtypes on the way."
    return None


def _difference(pairs: list[_Pair]) -> str:
    wrong = _wrong(pairs)
    pair = wrong[0]
    both_nan = np.isnan(pair.got) & np.isnan(pair.want)  # as wanted
    error = np.where(both_nan, 0, np.abs(pair.got - pair.want))
    share = 100 * np.mean(~(error <= pair.allowed))  # NaN on one side counts
    where = tuple(int(i) for i in np.unravel_index(np.argmax(error), error.shape))
    numbers = f"yours {pair.got[where] + 0:.4g}, wanted {pair.want[where] + 0:.4g}"  # + 0: no "-0"
    if pair.want.ndim == 0:
        return f"it differs {_on(wrong, pairs)}; on the first of these: {numbers}."
    percent = "less than 1 %" if share < 1 else f"{share:.0f} %"
    shapes = _shapes(pair.trial)
    return (
        f"it differs {_on(wrong, pairs)}; on the first of these at {percent} of the values, "
        f"most at index {where}: {numbers}{f' ({shapes})' if shapes else ''}."
    )


def _wrong(pairs: list[_Pair]) -> list[_Pair]:
    return [pair for pair in pairs if not pair.right]


def _on(some: list[_Pair], pairs: list[_Pair]) -> str:
    count = "every input" if len(some) == len(pairs) else f"{len(some)} of {len(pairs)} inputs"
    return f"on {count} tried"


def _shapes(trial: Trial) -> str:
    shapes = [str(tuple(arg.shape)) for arg in trial.args if getattr(arg, "ndim", 0)]
    return f"array inputs of shape {_listed(shapes)}" if shapes else ""


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
