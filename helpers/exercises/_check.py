"""Run a function on copies of its arguments, inside a time limit, without leaving a trace.

PyTorch is used where it has been imported already and is never imported here.
"""

import _thread
import contextlib
import copy
import dis
import functools
import inspect
import random
import signal
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from IPython.utils.capture import RichOutput, capture_output

MAX_CHARACTERS, MAX_OUTPUTS = 4000, 10  # of what the student's function prints and displays in one call
LOW_PRECISION = frozenset({"float16", "bfloat16", "float32"})
NUDGE = 0.5  # s between interrupts for code that swallows them


LEFT_BELOW = (
    "Your code stands above `raise NotImplementedError()`: put `return` and the result in place of that line "
    "(in a context manager, `yield`)."
)
UNINITIALISED = (
    "With `where=`, NumPy leaves the other elements as it finds the memory: pass `out=np.zeros_like(...)`."
)


class OutOfTime(Exception):
    """The time limit was reached."""


class Complaint(Exception):
    """What is wrong with an answer, as a sentence for the student."""


# Outcomes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Array:
    """A copy of an array, a tensor or a scalar that a function returned."""

    values: np.ndarray
    library: str  # "NumPy" or "PyTorch"
    dtype: str  # as its library calls it: NumPy has no bfloat16


@dataclass(frozen=True)
class Other:
    """Anything else that a function returned, None included, or a complaint about it."""

    kind: str  # "None", "a dict", ...
    complaint: str = ""


Value = Array | Other | tuple  # a tuple holds values again


@dataclass(frozen=True)
class Raised:
    """An exception that came out of a function, in words: the function may have run in another process."""

    kind: str  # the exception's type, with its module: "builtins.ValueError"
    message: str
    line: str = ""  # "line 4 of your cell", "" where none of its lines was reached
    by_stub: bool = False  # a NotImplementedError that a `raise` in the function itself has raised


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one call did: the value it returned or the exception it raised, and what it changed.

    `changed` names the arguments or their parts that are not as before, such as "net.fc.weight".
    """

    value: Value
    error: Raised | None
    changed: frozenset[str]


def observe(
    fn: Callable[..., object],
    args: tuple,
    names: Sequence[str],
    use: Callable[..., object] | None = None,
) -> Outcome:
    """Call `fn` on a deep copy of `args`, or `use` on `fn` and the copy."""
    args = copy.deepcopy(args)
    before = dict(_parts(args, names))
    random.seed(0)  # a function that draws from a global generator by mistake does so the same way each time
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.default_generator.manual_seed(0)
        torch.set_grad_enabled(True)  # whatever the call before left
    value, error = Other("None"), None
    try:
        value = _value(use(fn, *args) if use else fn(*args))
    except Complaint as complaint:
        value = Other("a complaint", str(complaint))
    except KeyboardInterrupt:  # the time limit, or the user
        raise
    except BaseException as e:  # noqa: B036  (SystemExit too: exit() in an answer must not end the kernel)
        kind = f"{type(e).__module__}.{type(e).__qualname__}"
        error = Raised(kind, str(e), line_of(e, fn), _is_stub(e, fn))
    after = dict(_parts(args, names))
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return Outcome(value, error, frozenset(changed))


def _value(result: object) -> Value:
    if isinstance(result, tuple | list):
        return tuple(_value(item) for item in result)
    if isinstance(result, np.ndarray | np.generic | int | float | complex):
        values = np.array(result)
        return Array(values, "NumPy", values.dtype.name)
    if _is_tensor(result):
        return Array(_numpy(result), "PyTorch", _dtype_name(result))
    if result is None:
        return Other("None")
    return Other(f"an object of type {type(result).__name__}")


def _is_tensor(obj: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(obj, torch.Tensor)


def _numpy(tensor: Any) -> np.ndarray:
    """A copy of a tensor's values; bfloat16, which NumPy lacks, as float32."""
    tensor = tensor.detach().cpu()
    if _dtype_name(tensor) == "bfloat16":
        tensor = tensor.float()
    return np.array(tensor.numpy())


def _dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _parts(args: tuple, names: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Everything in `args` that a call should leave alone, as (path, comparable content)."""
    seen: set[int] = set()
    for i, arg in enumerate(args):
        yield from _parts_of(arg, names[i] if i < len(names) else f"argument {i + 1}", seen)


def _parts_of(obj: Any, path: str, seen: set[int]) -> Iterator[tuple[str, object]]:
    torch = sys.modules.get("torch")
    if obj is None or isinstance(obj, bool | int | float | complex | str | bytes | np.generic):
        yield path, repr(obj)
        return
    if id(obj) in seen or isinstance(obj, type | types.FunctionType | np.random.Generator | random.Random):
        return  # a random generator may of course advance
    seen.add(id(obj))
    if isinstance(obj, np.ndarray):
        yield path, (obj.dtype.name, obj.shape, obj.tobytes())
    elif _is_tensor(obj):
        values = _numpy(obj)
        yield path, (_dtype_name(obj), values.shape, values.tobytes())
        if obj.is_leaf:
            yield from _parts_of(obj.grad, f"{path}.grad", seen)
    elif torch is not None and isinstance(obj, torch.nn.Module):
        for name, module in obj.named_modules():
            here = f"{path}.{name}" if name else path
            yield f"{here}.training", module.training
            # the private dictionaries are the only place where PyTorch says which hooks there are
            hooks = {k: len(v) for k, v in vars(module).items() if k.endswith("_hooks") and v}
            yield f"the hooks of {here}", sorted(hooks.items())
        for name, tensor in [*obj.named_parameters(), *obj.named_buffers()]:
            yield f"{path}.{name}.requires_grad", tensor.requires_grad
            yield from _parts_of(tensor, f"{path}.{name}", seen)
    elif isinstance(obj, dict):
        for key, item in obj.items():
            yield from _parts_of(item, f"{path}[{key!r}]", seen)
    elif isinstance(obj, tuple | list):
        for i, item in enumerate(obj):
            yield from _parts_of(item, f"{path}[{i}]", seen)
    else:  # attributes with a leading underscore are the object's own business: caches
        for name, item in getattr(obj, "__dict__", {}).items():
            if not name.startswith("_"):
                yield from _parts_of(item, f"{path}.{name}", seen)


def low_precision(*objects: object) -> bool:
    """Whether any array in these arguments is a floating-point one with less than 64 bits."""
    contents = (content for _, content in _parts(objects, ()) if isinstance(content, tuple))
    return any(dtype in LOW_PRECISION for dtype, *_ in contents)


# Exceptions ------------------------------------------------------------------------------------------------


def _is_stub(error: BaseException, fn: Callable[..., object]) -> bool:
    """Whether `error` is a NotImplementedError that a `raise` in the body of `fn` itself has raised.

    PyTorch raises them too: compiled code has no frame of its own, so the last one is the caller's.
    """
    if not isinstance(error, NotImplementedError) or error.__traceback__ is None:
        return False
    *_, last = _steps(error.__traceback__)
    code = last.tb_frame.f_code
    return code is _code(fn) and code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


def _steps(step: types.TracebackType | None) -> Iterator[types.TracebackType]:
    while step is not None:
        yield step
        step = step.tb_next


def has_code_above_the_stub(fn: Callable[..., object]) -> bool:
    """Whether a function that raises NotImplementedError does anything before."""
    code = _code(fn)
    if code is None:
        return False
    named, *starred = inspect.getargs(code)
    parameters = len(named) + sum(name is not None for name in starred)
    return set(code.co_names) > {"NotImplementedError"} or code.co_nlocals > parameters


def line_of(error: BaseException, fn: Callable[..., object]) -> str:
    """ "line 4 of your cell": the last line that `error` passed in the file or cell that defines `fn`."""
    code = _code(fn)
    lines = [
        line
        for frame, line in traceback.walk_tb(error.__traceback__)
        if code is not None and frame.f_code.co_filename == code.co_filename
    ]
    if not lines:
        return ""  # such as a call with too many arguments, which never gets to a line of the function
    name = code.co_filename
    is_cell = name.startswith("<") or "ipykernel_" in name
    return f"line {lines[-1]} of your {'cell' if is_cell else 'file'}"


def _code(fn: Callable[..., object]) -> types.CodeType | None:
    """The code that a student wrote, under whatever decorators stand above it."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    return getattr(fn, "__code__", None) or getattr(type(fn).__call__, "__code__", None)


# Time, output, traces --------------------------------------------------------------------------------------


@dataclass
class Session:
    """One check of a student's function: runs the calls, keeps time and warnings, if asked to also output."""

    seconds: float = 0.0
    numeric_warnings: tuple[str, ...] = ()  # at most one sentence
    uninitialised: bool = False  # the result holds what was in the memory; older NumPy does not say so
    _text: str = ""
    _outputs: list[RichOutput] = field(default_factory=list)

    def run(self, outcomes: Iterable[Outcome], limit: float) -> list[Outcome]:
        """Draw all `outcomes`, the student's calls, within `limit` seconds. Raises OutOfTime."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")  # each place once: an endless loop must not fill the memory
            start = time.perf_counter()
            try:
                return within(limit, lambda: list(outcomes))
            finally:
                self.seconds = time.perf_counter() - start
                numeric = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
                self.uninitialised = any("used without 'out'" in str(w.message) for w in caught)
                self.numeric_warnings = tuple(f"NumPy warned: {message}." for message in numeric[:1])

    def run_quietly(self, outcomes: Iterable[Outcome], limit: float) -> list[Outcome]:
        """The same; what the calls print and display is kept, for `show_first_output`."""
        shown: list[int] = []  # characters and figures that the first call had put out when it returned

        def noting() -> Iterator[Outcome]:
            for outcome in outcomes:
                shown[:] = shown or (len(captured.stdout), len(captured.outputs))
                yield outcome

        with capture_output() as captured:
            try:
                return self.run(noting(), limit)
            finally:
                characters, figures = shown or (None, None)
                self._text, self._outputs = captured.stdout[:characters], captured.outputs[:figures]

    def show_first_output(self) -> None:
        """Show what the function printed and displayed in its first call, but not what it wrote to stderr."""
        if self._text:
            print(self._text[:MAX_CHARACTERS], end="" if self._text.endswith("\n") else "\n")
        if len(self._text) > MAX_CHARACTERS:
            print(f"... (only the first {MAX_CHARACTERS} characters are shown)")
        for output in self._outputs[:MAX_OUTPUTS]:
            output.display()


def within(limit: float, call: Callable[[], Any]) -> Any:
    """Return `call()`, or raise OutOfTime if it takes longer than `limit` seconds.

    Works by interrupting the main thread; called from another thread, it sets no limit. A KeyboardInterrupt
    that did not come from the limit is passed on.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:  # so a shell starts what runs in the background; no interrupt would arrive
        signal.signal(signal.SIGINT, signal.default_int_handler)
    lock, finished, fired = threading.Lock(), threading.Event(), threading.Event()

    def watch() -> None:
        pause = limit
        while not finished.wait(pause):
            with lock:  # so that no interrupt is sent once `finish` has returned
                if not finished.is_set():
                    fired.set()
                    _thread.interrupt_main()
            pause = NUDGE

    def finish() -> None:  # an interrupt that was sent at the last moment arrives while this runs
        with lock:
            finished.set()

    try:
        try:
            threading.Thread(target=watch, daemon=True).start()
            result = call()
        finally:
            finish()
    except KeyboardInterrupt:
        finish()  # again: the interrupt may have come while it ran the first time
        if not fired.is_set():
            raise
    finally:
        if before == signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)
    if fired.is_set():
        raise OutOfTime
    return result


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put back afterwards: random states, NumPy's error state, PyTorch's grad mode, number of threads and the
    hooks that it calls for every module.

    Silences warnings.
    """
    torch = sys.modules.get("torch")
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with contextlib.ExitStack() as stack:
        stack.callback(random.setstate, python_state)
        stack.callback(np.random.set_state, numpy_state)
        stack.enter_context(np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if torch is not None:
            gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
            stack.enter_context(torch.random.fork_rng(devices=gpus))
            stack.enter_context(torch.enable_grad())
            for name, hooks in vars(torch.nn.modules.module).items():
                if name.startswith("_global_") and isinstance(hooks, dict):
                    stack.callback(hooks.update, dict(hooks))
                    stack.callback(hooks.clear)  # callbacks run in reverse order
            # inputs are small, and where other programs use the cores, threads wait for one another
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)
        yield
