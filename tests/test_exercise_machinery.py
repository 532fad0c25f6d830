"""The machinery of the exercises, on four small exercises of its own."""

import _thread
import dataclasses
import functools
import importlib
import inspect
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from IPython.extensions.autoreload import superreload
from nbclient import NotebookClient
from nbgrader.validator import Validator

import helpers.exercises as exercises
from helpers.exercises import (
    Complaint,
    Exercise,
    Mistake,
    Verdict,
    _check,
    check,
    exercise,
    hint,
    reference,
    verdict,
)
from helpers.hooks import keep_outputs

ROOT = Path(__file__).parents[1]


# Four exercises: an array from arrays, a tuple from a net, a tensor from a module, a context manager -------


def relu_backward(grad_out, x):
    """Gradient of ReLU."""
    return grad_out * (x > 0)


def relu_cases(rng: np.random.Generator) -> list[tuple]:
    cases = []
    for dtype in (np.float32, np.float64):
        x = rng.normal(size=(2, 3, 6, 5)).astype(dtype)
        x.flat[::7] = 0
        cases.append((rng.normal(size=x.shape).astype(dtype), x))
    return cases


RELU = Exercise(
    key="90.1",
    title="ReLU backward",
    reference=relu_backward,
    cases=relu_cases,
    mistakes=(
        Mistake(
            lambda grad_out, x: grad_out * (x >= 0), "Zero lets nothing through: `x > 0` & not >=.", "trial"
        ),
        Mistake(lambda grad_out, x: x > 0, "That is the mask alone.", "trial"),
        Mistake(lambda grad_out, x: grad_out.reshape(7), "The shapes stay as they are.", "trial"),
    ),
    verified="Shown on both precisions.",
    hints=("Where was the input positive?", "Multiply by a mask."),
)


class Layer:
    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight
        self.grad = np.zeros_like(weight)
        self._input = None

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._input = x
        return x @ self.weight


class Net:
    def __init__(self, rng: np.random.Generator) -> None:
        self.layers = [Layer(rng.normal(size=(4, 3)))]
        self.passes = 0

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.passes += 1
        return self.layers[0].forward(x)


def logits_and_noise(net, x, rng):
    return net.forward(x), rng.normal(size=(2,))


def add_gradients(net, x, rng):
    net.layers[0].grad += 1
    return logits_and_noise(net, x, rng)


NET = Exercise(
    key="90.2",
    title="Forward",
    reference=logits_and_noise,
    cases=lambda rng: [(Net(rng), rng.normal(size=(5, 4)), rng) for _ in range(2)],
    mistakes=(Mistake(add_gradients, "Clear the gradients.", "trial"),),
    verified="Shown.",
    hints=("One", "Two"),
)


def module_forward(model, x):
    if x.shape[0] > 3:
        raise ValueError("at most three images")
    return model(x)


def module_cases(rng: np.random.Generator) -> list[tuple]:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3)).eval()
    return [(model, torch.from_numpy(rng.normal(size=(n, 4)).astype(np.float32))) for n in (2, 4)]


MODULE = Exercise("90.3", "Torch", module_forward, module_cases, (), "Shown.", ("One", "Two"))


def use_block(answer, model, x):
    block = answer(model[0])
    if not isinstance(block, AbstractContextManager):
        return block
    with block as outputs:
        model(x)
    if not outputs:
        raise Complaint("After one run the list is empty.")
    return outputs


@contextmanager
def keeps_nothing(layer):
    yield []


BLOCK = Exercise(
    key="90.4",
    title="Block",
    reference=keep_outputs,
    cases=module_cases,
    mistakes=(Mistake(keeps_nothing, "Append to the list.", "trial"),),
    verified="Shown.",
    hints=("One", "Two"),
    use=use_block,
)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Exercise]:
    """The four exercises, and a session that remembers nothing."""
    registry = {ex.key: ex for ex in (RELU, NET, MODULE, BLOCK)}
    monkeypatch.setattr(exercises, "registry", registry)
    for kept in (exercises._verdicts, exercises._hints_given, exercises._references_shown):
        kept.clear()
    return registry


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> list:
    shown: list = []
    monkeypatch.setattr(exercises, "display", shown.append)
    return shown


# The registry ----------------------------------------------------------------------------------------------


LAB = """
from helpers.exercises import Exercise
EXERCISES = tuple(Exercise(key, "", len, lambda rng: [], (), "", ("", "")) for key in {keys})
"""


@pytest.fixture
def add_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(exercises, "__path__", [str(tmp_path)])

    def add(name: str, *keys: str) -> None:
        (tmp_path / f"{name}.py").write_text(LAB.format(keys=list(keys)), encoding="utf-8")
        monkeypatch.delitem(sys.modules, f"helpers.exercises.{name}", raising=False)
        importlib.invalidate_caches()

    yield add
    for file in tmp_path.glob("*.py"):
        sys.modules.pop(f"helpers.exercises.{file.stem}", None)


def test_adding_a_lab_is_adding_a_file(add_lab: Callable[..., None]) -> None:
    add_lab("lab91", "91.1", "91.2")
    add_lab("lab92", "92.1")
    registry = exercises._Registry()
    assert list(registry) == ["91.1", "91.2", "92.1"] and len(registry) == 3
    assert registry["92.1"].key == "92.1"


def test_a_lab_is_imported_only_when_asked_for(add_lab: Callable[..., None]) -> None:
    add_lab("lab91", "91.1")
    add_lab("lab92", "92.1")
    assert "91.1" in exercises._Registry()
    assert "helpers.exercises.lab92" not in sys.modules


@pytest.mark.parametrize(
    ("key", "says"), [("91.7", "91.1, 91.2"), ("5.1", "lab91"), ("nonsense", "lab91"), ("", "lab91")]
)
def test_an_unknown_key_lists_the_known_ones(add_lab: Callable[..., None], key: str, says: str) -> None:
    add_lab("lab91", "91.1", "91.2")
    with pytest.raises(exercises.UnknownExercise) as caught:
        exercises._Registry()[key]
    assert str(caught.value).startswith(f'There is no exercise "{key}".') and says in str(caught.value)


def test_wrong_and_duplicate_keys_are_rejected(add_lab: Callable[..., None]) -> None:
    add_lab("lab91", "91.1", "91.1")
    add_lab("lab92", "91.1")
    registry = exercises._Registry()
    with pytest.raises(ValueError, match='lab91.py: two exercises have the key "91.1"'):
        registry["91.1"]
    with pytest.raises(ValueError, match='lab92.py: the key "91.1" must start with "92."'):
        registry["92.1"]


# Verdicts --------------------------------------------------------------------------------------------------


def test_right() -> None:
    assert check("90.1", relu_backward) == Verdict("90.1", "right", ("Shown on both precisions.",), True)
    assert check("90.2", logits_and_noise).status == "right"
    assert check("90.3", module_forward).status == "right"
    assert check("90.4", keep_outputs).status == "right"


def test_both_precisions_are_right_whatever_the_input() -> None:
    for dtype in (np.float32, np.float64):
        assert check("90.1", lambda g, x, dtype=dtype: relu_backward(g, x).astype(dtype)).status == "right"


def test_an_answer_may_keep_things_in_private_attributes_only() -> None:
    def keeps_cache(net, x, rng):
        net.layers[0]._something = x.copy()
        return logits_and_noise(net, x, rng)

    def keeps_result(net, x, rng):
        net.result = x.copy()
        return logits_and_noise(net, x, rng)

    assert check("90.2", keeps_cache).status == "right"
    assert check("90.2", keeps_result).notes == (
        "It changes net.result in place: leave the arguments as they are.",
    )


def test_an_expected_exception_is_right_and_its_absence_is_not() -> None:
    found = check("90.3", lambda model, x: model(x))
    assert found.notes == ("It should raise ValueError for one of the inputs, but it returned something.",)

    def other_type(model, x):
        if len(x) > 3:
            raise IndexError("too many")
        return model(x)

    found = check("90.3", other_type)
    assert found.status == "error" and found.notes[0].startswith("IndexError: too many (line")


def test_values_come_before_the_missing_exception() -> None:
    found = check("90.3", lambda model, x: 0 * model(x))
    assert found.notes == ("Every number in it is 0.",)


def test_known_mistakes() -> None:
    known = [m.sentence for m in RELU.mistakes]
    assert check("90.1", lambda g, x: np.where(x < 0, 0, g)).notes == (known[0],)
    assert check("90.1", lambda g, x: np.sign(np.maximum(x, 0))).notes == (known[1],)
    found = check("90.1", lambda g, x: g.reshape(7))
    assert found.status == "error" and found.notes[0] == known[2]
    assert found.notes[1].startswith("ValueError: cannot reshape array of size 180 into shape (7,)")
    assert check("90.2", add_gradients).notes == ("Clear the gradients.",)


def test_a_mistake_is_known_by_its_exception_whatever_the_function_is_called(registered: dict) -> None:
    def calls(keep: Callable) -> Callable:
        return lambda grad_out, x: keep(grad_out, x)

    def keep(grad_out):
        pass

    def mine(one):
        pass

    mistake = Mistake(calls(keep), "Your hook takes two arguments.", "trial")
    registered["90.1"] = dataclasses.replace(RELU, mistakes=(mistake,))
    found = check("90.1", calls(mine))
    assert (
        found.notes[0] == "Your hook takes two arguments." and ".mine() takes 1 positional" in found.notes[1]
    )


# An answer that is used in another way than by calling it --------------------------------------------------


def test_a_complaint_is_what_the_student_reads(registered: dict) -> None:
    found = check("90.4", keeps_nothing)
    assert (found.status, found.notes) == ("not right yet", ("Append to the list.",))
    registered["90.4"] = dataclasses.replace(BLOCK, mistakes=())
    found = check("90.4", keeps_nothing)
    assert (found.status, found.notes) == ("not right yet", ("After one run the list is empty.",))


def test_what_is_used_returns_is_compared() -> None:
    @contextmanager
    def keeps_twice(layer):
        with keep_outputs(layer) as outputs:
            yield outputs
        outputs += outputs

    assert check("90.4", keeps_twice).notes == ("The result is a tuple of 2; wanted a tuple of 1.",)
    found = check("90.4", inspect.unwrap(keep_outputs))
    assert found.notes == ("The result is an object of type generator; wanted a tuple of 1.",)


def test_what_is_changed_is_called_as_in_use() -> None:
    @contextmanager
    def leaves_hook(layer):
        outputs = []
        layer.register_forward_hook(lambda *args: outputs.append(args[-1]))
        yield outputs

    assert "the hooks of model.0 in place" in check("90.4", leaves_hook).notes[0]


@contextmanager
def block_stub(layer):
    raise NotImplementedError()


@contextmanager
def starred_stub(*layers):
    raise NotImplementedError()


@contextmanager
def unfinished_block(layer):
    outputs = []
    layer.register_forward_hook(lambda *args: outputs.append(args[-1]))
    raise NotImplementedError()


@contextmanager
def stub_in_the_hook(layer):
    def keep(layer, inputs, output):
        raise NotImplementedError()

    with layer.register_forward_hook(keep):
        yield []


def test_a_context_manager_that_is_not_attempted() -> None:
    assert (
        check("90.4", block_stub)
        == check("90.4", starred_stub)
        == Verdict("90.4", "not attempted", (), False)
    )
    found = check("90.4", unfinished_block)
    assert found.status == "not attempted" and found.notes == (_check.LEFT_BELOW,)
    found = check("90.4", stub_in_the_hook)
    assert found.status == "error"
    line = inspect.getsourcelines(inspect.unwrap(stub_in_the_hook))[1] + 3
    assert found.notes[0].startswith(f"NotImplementedError (line {line} of your file, ")


@contextmanager
def endless_block(layer):
    while True:
        pass
    yield []


@contextmanager
def endless_hook_and_swallowing(layer):
    def keep(layer, inputs, output):
        while True:
            pass

    with suppress(BaseException), layer.register_forward_hook(keep):
        yield []


@pytest.mark.parametrize("answer", [endless_block, endless_hook_and_swallowing])
def test_an_endless_block_is_stopped(answer: Callable, registered: dict) -> None:
    registered["90.4"] = dataclasses.replace(BLOCK, limit=0.3)
    assert check("90.4", answer).status == "too slow"


def test_the_decorator_above_a_context_manager(cards: list) -> None:
    mine = contextmanager(inspect.unwrap(keep_outputs))
    assert exercise("90.4")(mine) is mine
    assert exercise("90.4")(block_stub) is keep_outputs
    reference("90.4")
    assert cards[-1].code.startswith("@contextmanager\ndef keep_outputs(layer")


# General remarks -------------------------------------------------------------------------------------------


def right_but(change: Callable[[np.ndarray], object]) -> Callable:
    return lambda grad_out, x: change(relu_backward(grad_out, x))


def changes_input(grad_out, x):
    grad_out *= x > 0
    return grad_out


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda g, x: None, "It returns nothing (None)"),
        (right_but(lambda a: (a, a)), "is a tuple or list of 2; wanted an array of shape (2, 3, 6, 5)"),
        (right_but(lambda a: {"a": a}), "The result is an object of type dict; wanted an"),
        (right_but(lambda a: a[0]), "The result has shape (3, 6, 5); wanted shape (2, 3, 6, 5)."),
        (right_but(lambda a: a.astype(np.float16)), "The result has dtype float16; wanted floating point"),
        (right_but(lambda a: a.astype(int)), "The result has dtype int64; wanted floating point"),
        (right_but(lambda a: torch.from_numpy(a)), "is from PyTorch; wanted an array of shape"),
        (right_but(lambda a: a / 0), "It holds NaN or infinity, on every input tried"),
        (right_but(lambda a: 0 * a), "Every number in it is 0."),
        (lambda g, x: x, "It is argument 2 as it came in."),
        (right_but(lambda a: -a), "It is the negative of the right answer."),
        (right_but(lambda a: 0.25 * a), "It is 0.25 times the right answer."),
        (right_but(lambda a: 1e6 * a), "It is 1e+06 times the right answer."),
        (right_but(lambda a: a / abs(a).max()), "the right answer times a factor that changes"),
        (right_but(lambda a: np.concatenate((a[:1], a[1:] + 1))), "It is right at index 0 of the first axis"),
        (right_but(lambda a: a if a.dtype == np.float64 else a + 1), "It is right for float64 inputs"),
        (right_but(lambda a: a + 1), "It differs on every input tried; on the first of these at 100 %"),
        (changes_input, "It changes grad_out in place"),
    ],
)  # fmt: skip
def test_general_remarks(answer: Callable, says: str) -> None:
    found = check("90.1", answer)
    assert found.status == "not right yet" and not found.correct
    assert says in found.notes[0], found.notes
    assert len(found.notes) <= 2


def test_the_largest_difference_is_shown() -> None:
    def off_at_one_place(g, x):
        out = relu_backward(g, x)
        out[1, 2, 3, 4] = 50
        return out

    (note,) = check("90.1", off_at_one_place).notes
    assert "at less than 1 % of the values, most at index (1, 2, 3, 4): yours 50, wanted" in note
    assert "array inputs of shape (2, 3, 6, 5) and (2, 3, 6, 5)" in note


def test_nan_where_nan_is_wanted_is_no_difference(registered: dict) -> None:
    def partly_nan(x):
        return np.where(x > 1, np.nan, x)

    registered["90.1"] = dataclasses.replace(
        RELU, reference=partly_nan, cases=lambda rng: [(np.array([5.0, 1.0, 0.5, 3.0]),)] * 2, mistakes=()
    )
    assert check("90.1", partly_nan).correct
    (note,) = check("90.1", lambda x: partly_nan(x) + np.array([0, 1, 0.25, 0])).notes
    assert "at 50 % of the values, most at index (1,): yours 2, wanted 1" in note


def test_wrong_on_every_float32_input_says_nothing_about_float64(registered: dict) -> None:
    only_float32 = dataclasses.replace(RELU, cases=lambda rng: relu_cases(rng)[:1])
    registered["90.1"] = only_float32
    assert check("90.1", right_but(lambda a: a + 1)).notes[0].startswith("It differs on every input tried")


def test_results_of_changing_length_and_whole_numbers(registered: dict) -> None:
    """One number per image, as integers: the batches are of different size."""
    registered["90.1"] = dataclasses.replace(
        RELU,
        reference=lambda x: [np.array(n) for n in np.arange(len(x)) % 3],
        cases=lambda rng: [(np.zeros((n, 2)),) for n in (2, 4, 3)],
        mistakes=(),
    )
    (note,) = check("90.1", lambda x: [int(n) + (n == 2) for n in np.arange(len(x)) % 3]).notes
    assert note == "Array 2 of the result: it is 1.5 times the right answer."
    (note,) = check("90.1", lambda x: [float(n) for n in np.arange(len(x)) % 3]).notes
    assert note == "Item 0 of the result has dtype float64; wanted whole numbers (an integer dtype)."


def test_one_item_of_a_tuple() -> None:
    found = check("90.2", lambda net, x, rng: (net.forward(x), 2 * rng.normal(size=(2,))))
    assert found.notes == ("Array 1 of the result: it is 2 times the right answer.",)
    found = check("90.2", lambda net, x, rng: (net.forward(x), rng.normal(size=(3,))))
    assert found.notes == ("Item 1 of the result has shape (3,); wanted shape (2,).",)
    found = check("90.2", lambda net, x, rng: [net.forward(x)])
    assert found.notes == ("The result is a tuple of 1; wanted a tuple of 2.",)


def test_a_numeric_warning_helps_and_makes_no_noise(capfd: pytest.CaptureFixture, recwarn: object) -> None:
    found = check("90.1", lambda g, x: relu_backward(g, x) / np.zeros_like(x))
    assert any("NumPy warned: divide by zero encountered in divide." in note for note in found.notes)
    assert capfd.readouterr() == ("", "")
    assert not len(recwarn)


# Not attempted, errors -------------------------------------------------------------------------------------


def stub(grad_out, x):
    raise NotImplementedError


def decorated(fn: Callable) -> Callable:
    @functools.wraps(fn)
    def inner(*args):
        return fn(*args)

    return inner


class Callable_:
    def __call__(self, grad_out, x):
        raise NotImplementedError("write me")

    def method(self, grad_out, x):
        raise NotImplementedError


@pytest.mark.parametrize(
    "answer",
    [
        stub,
        decorated(stub),
        decorated(decorated(stub)),
        functools.partial(stub),
        Callable_(),
        Callable_().method,
    ],
)
def test_not_attempted(answer: Callable) -> None:
    assert check("90.1", answer) == Verdict("90.1", "not attempted", (), False)


def test_not_attempted_means_the_function_itself() -> None:
    def calls_a_stub(grad_out, x):
        return stub(grad_out, x)

    def half_done(grad_out, x):
        if x.dtype == np.float64:
            raise NotImplementedError("float64")
        return relu_backward(grad_out, x)

    for answer in (calls_a_stub, decorated(calls_a_stub), half_done):
        found = check("90.1", answer)
        assert found.status == "error" and found.notes[0].startswith("NotImplementedError"), found


def test_an_operation_that_pytorch_lacks_is_an_error() -> None:
    def mean_of_true_and_false(grad_out, x):
        return torch.tensor(x > 0).mean()

    with pytest.raises(Exception) as raised:
        torch.tensor([True]).mean()
    found = check("90.1", mean_of_true_and_false)
    assert found.status == "error"
    assert found.notes[0].startswith(f"{raised.type.__name__}: {str(raised.value)[:20]}"), found


def test_an_error_names_type_message_line_and_inputs() -> None:
    def fails(grad_out, x):
        return grad_out[object()]

    (note,) = check("90.1", fails).notes
    assert note.startswith("IndexError: only integers")
    assert f"(line {fails.__code__.co_firstlineno + 1} of your file, array inputs of shape" in note

    def names_an_address(grad_out, x):
        raise RuntimeError(f"{object()}\nmore")

    (note,) = check("90.1", names_an_address).notes
    assert note.startswith("RuntimeError: <object object at 0x...> (line")

    found = check("90.1", lambda grad_out: grad_out)
    assert (
        found.status == "error"
        and "takes 1 positional argument but 2 were given (array inputs" in found.notes[0]
    )


def test_exit_does_not_end_the_session() -> None:
    assert check("90.1", lambda g, x: sys.exit("bye")).notes[0].startswith("SystemExit: bye")


# Time ------------------------------------------------------------------------------------------------------


def endless(grad_out, x):
    while True:
        pass


def endless_and_swallowing(grad_out, x):
    try:
        endless(grad_out, x)
    except:  # noqa: E722
        endless(grad_out, x)


def endless_and_printing(grad_out, x):
    while True:
        print("still here")


@pytest.mark.parametrize("answer", [endless, endless_and_swallowing, endless_and_printing])
def test_an_endless_loop_is_stopped(
    answer: Callable, registered: dict, capsys: pytest.CaptureFixture
) -> None:
    registered["90.1"] = dataclasses.replace(RELU, limit=0.3)
    found = check("90.1", answer)
    assert (found.status, found.correct) == ("too slow", False)
    assert found.notes[0].startswith("Stopped after 0.3 s: ")
    assert len(capsys.readouterr().out) < 2 * _check.MAX_CHARACTERS


def test_right_but_slow(registered: dict, cards: list) -> None:
    registered["90.1"] = dataclasses.replace(RELU, slow=0.01)

    def slow(grad_out, x):
        time.sleep(0.01)
        return relu_backward(grad_out, x)

    found = check("90.1", slow)
    assert (found.status, found.correct) == ("too slow", True)
    assert "It is right, but" in found.notes[0]
    assert exercise("90.1")(slow) is relu_backward
    assert "The lab goes on with the reference until yours is faster." in cards[0].notes


def test_the_users_own_interrupt_gets_through(cards: list) -> None:
    def interrupted(grad_out, x):
        _thread.interrupt_main()
        time.sleep(1)

    state = np.random.get_state()[1].tolist()
    stdout = sys.stdout
    exercise("90.1")(relu_backward)
    with pytest.raises(KeyboardInterrupt):
        exercise("90.1")(interrupted)
    assert "90.1" not in exercises._verdicts, "an older verdict says nothing about the interrupted answer"
    assert np.random.get_state()[1].tolist() == state and sys.stdout is stdout


def test_an_interrupt_on_its_way_arrives_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call ends while the limit's thread is about to interrupt."""
    interrupt = _thread.interrupt_main

    def slow_interrupt() -> None:
        time.sleep(0.1)
        interrupt()

    monkeypatch.setattr(_thread, "interrupt_main", slow_interrupt)
    with pytest.raises(_check.OutOfTime):
        _check.within(0.02, lambda: time.sleep(0.05))
    time.sleep(0.2)  # a late interrupt would arrive here


def test_the_limit_holds_where_interrupts_are_ignored() -> None:
    """As for programs that a shell has started in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(_check.OutOfTime):
            _check.within(0.02, lambda: time.sleep(1))
        assert _check.within(1, lambda: "done") == "done"
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_limit_never_fires_late() -> None:
    """Calls that end just when the limit is reached: an interrupt arrives inside `within` or not at all."""
    outcomes = set()
    for i in range(60):
        try:
            outcomes.add(_check.within(0.01, lambda i=i: time.sleep(0.005 + 0.00017 * i)))
        except _check.OutOfTime:
            outcomes.add("out of time")
        sum(range(1000))  # a late interrupt would arrive here and fail the test
    assert outcomes == {None, "out of time"}


def test_without_the_main_thread_there_is_no_limit(registered: dict) -> None:
    registered["90.1"] = dataclasses.replace(RELU, limit=0.05)

    def slow(grad_out, x):
        time.sleep(0.02)
        return relu_backward(grad_out, x)

    found: list[Verdict] = []
    thread = threading.Thread(target=lambda: found.append(check("90.1", slow)))
    thread.start()
    thread.join()
    assert found[0].status == "right"


# Traces ----------------------------------------------------------------------------------------------------


def test_a_check_leaves_no_trace() -> None:
    def meddles(grad_out, x):
        random.random()
        np.random.rand()
        torch.rand(1)
        np.seterr(all="raise")
        torch.set_grad_enabled(False)
        return relu_backward(grad_out, x)

    def state() -> tuple:
        rng = np.random.get_state()
        generators = (random.getstate(), rng[1].tolist(), rng[2:], torch.get_rng_state().tolist())
        return generators, np.geterr(), torch.is_grad_enabled()

    before = state()
    assert check("90.1", meddles).status == "right"
    assert state() == before
    with torch.no_grad():
        check("90.1", meddles)
        assert not torch.is_grad_enabled()


def test_hooks_for_every_module_are_taken_off_again() -> None:
    everywhere = torch.nn.modules.module._global_forward_hooks
    with torch.nn.modules.module.register_module_forward_hook(lambda *_: None):
        before = dict(everywhere)

        def leaves_hook(model, x):
            torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
            return module_forward(model, x)

        check("90.3", leaves_hook)
        assert dict(everywhere) == before and len(before) == 1
    assert not everywhere


def test_one_call_does_not_change_the_grad_mode_of_the_next() -> None:
    modes = []

    def switches_off(model, x):
        modes.append(torch.is_grad_enabled())
        torch.set_grad_enabled(False)
        return module_forward(model, x)

    check("90.3", switches_off)
    assert len(modes) == 6 and all(modes)


def test_torch_is_not_imported() -> None:
    code = """
        import sys
        import numpy as np
        import helpers.exercises as exercises
        ex = exercises.Exercise("1.1", "", abs, lambda rng: [(rng.normal(size=3),)], (), "", ("", ""))
        exercises.registry = {"1.1": ex}
        assert exercises.check("1.1", np.abs).status == "right"
        assert not {"torch", "tensorflow"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=True)


def leaves_hook(model, x):
    model[0].register_forward_hook(lambda *_: None)
    return module_forward(model, x)


def leaves_backward_hook(model, x):
    model[0].register_full_backward_hook(lambda *_: None)
    return module_forward(model, x)


def leaves_eval_mode(model, x):
    out = module_forward(model, x)
    model[1].train()
    return out


def leaves_frozen(model, x):
    model[0].weight.requires_grad_(False)
    return module_forward(model, x)


def leaves_gradients(model, x):
    out = module_forward(model, x)
    out.sum().backward()
    return out.detach()


def changes_buffer(model, x):
    out = module_forward(model, x)
    model[1].running_mean += 1
    return out


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (leaves_hook, "the hooks of model.0"),
        (leaves_backward_hook, "the hooks of model.0"),
        (leaves_eval_mode, "model.1.training"),
        (leaves_gradients, "model.0.weight.grad"),
        (leaves_frozen, "model.0.weight.requires_grad"),
        (changes_buffer, "model.1.running_mean"),
        (lambda model, x: module_forward(model, x.mul_(2)) / 2, "x"),
    ],
)
def test_damage_to_a_module_or_tensor_is_never_right(answer: Callable, what: str) -> None:
    found = check("90.3", answer)
    assert found.status != "right" and not found.correct
    assert what in found.notes[0], found


def test_tensors_are_compared() -> None:
    assert (
        check("90.3", lambda m, x: -module_forward(m, x)).notes[0]
        == "It is the negative of the right answer."
    )
    found = check("90.3", lambda m, x: module_forward(m, x).bfloat16())
    assert found.notes[0] == "The result has dtype bfloat16; wanted floating point (float32 or float64)."


def test_output_of_the_first_call_is_shown(capsys: pytest.CaptureFixture) -> None:
    calls = []

    def prints(grad_out, x):
        calls.append(1)
        print("call", len(calls))
        print("to stderr", file=sys.stderr)
        return relu_backward(grad_out, x)

    check("90.1", prints)
    assert len(calls) == 6
    assert capsys.readouterr() == ("call 1\n", "")


# Decorator, cards, hints -----------------------------------------------------------------------------------


def test_the_decorator_hands_back_something_that_works(cards: list) -> None:
    def mine(grad_out, x):
        return np.where(x > 0, grad_out, 0)

    mine.__name__ = "relu_backward"
    assert exercise("90.1")(mine) is mine
    assert exercise("90.1")(stub) is relu_backward
    right, todo = map(repr, cards)
    assert right == "Exercise 90.1, ReLU backward: right\n  - Shown on both precisions."
    assert todo == (
        "Exercise 90.1, ReLU backward: not attempted\n"
        "  - The lab goes on with the reference until yours is right.\n"
        '  - `hint("90.1")` gives a hint.\n'
        "  - The lab calls this function `relu_backward`: give yours that name."
    )


def test_a_stub_below_code_is_pointed_out() -> None:
    def unfinished(grad_out, x):
        mask = x > 0  # noqa: F841
        raise NotImplementedError

    found = check("90.1", unfinished)
    assert found.status == "not attempted"
    assert found.notes[0].startswith("Your code stands above `raise NotImplementedError()`")


def _numpy_warns_of_uninitialised_memory() -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        np.multiply(np.ones(2), 1, where=np.array([True, False]))
    return bool(caught)


@pytest.mark.skipif(not _numpy_warns_of_uninitialised_memory(), reason="this NumPy does not warn of it")
def test_uninitialised_memory_is_never_right() -> None:
    def lucky(grad_out, x):
        out = np.multiply(grad_out, 1, where=x > 0)
        out[x <= 0] = 0  # right, but NumPy has warned
        return out

    found = check("90.1", lucky)
    assert found.status == "not right yet" and "pass `out=np.zeros_like(...)`" in found.notes[0]


def test_html_says_the_same_and_is_escaped(cards: list) -> None:
    exercise("90.1")(lambda g, x: g * (x >= 0))
    text = cards[0]._repr_html_()
    assert "<code>x &gt; 0</code> &amp; not &gt;=." in text
    assert "<strong>Exercise 90.1, ReLU backward: not right yet</strong>" in text
    assert "<code>hint(&quot;90.1&quot;)</code> gives a hint." in text


def test_wrong_use_is_one_clear_sentence() -> None:
    with pytest.raises(TypeError, match=r'^Write the decorator with its key: @exercise\("1.3"\)'):
        exercise(relu_backward)
    with pytest.raises(TypeError, match='^Put @exercise\\("90.1"\\) on the line above "def"'):
        exercise("90.1")(3)


def test_hints_come_one_by_one(cards: list) -> None:
    for _ in range(4):
        hint("90.1")
    assert [card.heading for card in cards] == [
        "Exercise 90.1: hint 1 of 2",
        "Exercise 90.1: hint 2 of 2",
        "Exercise 90.1: no more hints",
        "Exercise 90.1: no more hints",
    ]
    assert [card.notes[0] for card in cards[:2]] == list(RELU.hints)
    assert '`reference("90.1")` shows the answer' in cards[2].notes[0]


def test_the_reference_is_shown_and_the_cards_say_so(cards: list) -> None:
    reference("90.1")
    assert "return grad_out * (x > 0)" in repr(cards[0])
    assert "return grad_out * (x &gt; 0)" in cards[0]._repr_html_()
    exercise("90.1")(relu_backward)
    verdict("90.1")
    exercise("90.2")(logits_and_noise)
    assert cards[1].heading == cards[2].heading == "Exercise 90.1, ReLU backward: right (reference shown)"
    assert "shown" not in cards[3].heading


def test_verdict_shows_the_stored_one(cards: list) -> None:
    verdict("90.1")
    exercise("90.1")(stub)
    verdict("90.1")
    assert repr(cards[0]) == "Exercise 90.1, ReLU backward: run the exercise cell above first"
    assert repr(cards[2]) == "Exercise 90.1, ReLU backward: not attempted"


@pytest.mark.parametrize("value", ["validate", "autograde"])
def test_verdict_raises_only_while_nbgrader_runs(
    value: str, cards: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", value)
    with pytest.raises(AssertionError, match="run the exercise cell above first"):
        verdict("90.1")
    exercise("90.1")(lambda g, x: g)
    with pytest.raises(AssertionError, match="not right yet. It is argument 1 as it came in."):
        verdict("90.1")
    exercise("90.1")(relu_backward)
    verdict("90.1")


def test_the_session_survives_reload_and_autoreload(cards: list) -> None:
    before = dict(vars(exercises))
    try:
        exercise("90.1")(relu_backward)
        hint("90.1")
        reference("90.1")
        importlib.reload(exercises)
        assert exercises._verdicts["90.1"].status == "right"
        superreload(exercises)  # what %autoreload does: it empties the namespace first
        assert exercises._verdicts["90.1"].status == "right"
        assert exercises._hints_given == {"90.1": 1} and exercises._references_shown == {"90.1"}
    finally:
        vars(exercises).update(before)


# In a real kernel ------------------------------------------------------------------------------------------

SETUP = """
import helpers.exercises as exercises
from helpers.exercises import *

def double(x):
    return 2 * x

exercises.registry = {"1.1": Exercise(
    "1.1", "Double", double, lambda rng: [(rng.normal(size=(2, 3)),)] * 2,
    (), "Shown.", ("One", "Two"), limit=1.0)}

from contextlib import contextmanager

@contextmanager
def doubled(x):
    yield 2 * x

def use(answer, x):
    with answer(x) as y:
        return y

exercises.registry["1.2"] = Exercise(
    "1.2", "Doubled", doubled, lambda rng: [(rng.normal(size=(2, 3)),)],
    (), "Shown.", ("One", "Two"), use=use)
"""


def run_notebook(*cells: str) -> list[list[dict]]:
    """The outputs of each cell."""
    nb = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(cell.strip("\n")) for cell in (SETUP, *cells)]
    )
    NotebookClient(nb, timeout=60, resources={"metadata": {"path": str(ROOT)}}).execute()
    return [cell.outputs for cell in nb.cells[1:]]


def test_in_a_kernel() -> None:
    error, endless, printing, later = run_notebook(
        '@exercise("1.1")\ndef double(x):\n    y = 2 * x\n    return y.nothing',
        '@exercise("1.1")\ndef double(x):\n    while True:\n        pass',
        '@exercise("1.1")\ndef double(x):\n'
        "    from IPython.display import display\n    display({'text/plain': 'rich'}, raw=True)\n"
        "    print('seen')\n    return 2 * x",
        'verdict("1.1")\nprint(double(3))',
    )
    assert (
        "AttributeError: 'numpy.ndarray' object has no attribute 'nothing' (line 4 of your cell, array"
        in (error[0].data["text/plain"])
    )
    assert "AttributeError: &#x27;numpy.ndarray&#x27; object" in error[0].data["text/html"]
    assert endless[0].data["text/plain"].startswith("Exercise 1.1, Double: too slow\n  - Stopped after 1 s: ")
    assert [output.get("text") or output.data["text/plain"] for output in printing] == [
        "seen\n",
        "rich",
        "Exercise 1.1, Double: right\n  - Shown.",
    ]
    assert later[0].data["text/plain"] == "Exercise 1.1, Double: right"
    assert [output.text for output in later if output.output_type == "stream"] == ["seen\n6\n"]


def test_a_context_manager_in_a_kernel() -> None:
    stub, error, right = (
        outputs[0].data["text/plain"]
        for outputs in run_notebook(
            '@exercise("1.2")\n@contextmanager\ndef doubled(x):\n    raise NotImplementedError()',
            '@exercise("1.2")\n@contextmanager\ndef doubled(x):\n    y = x.nothing\n    yield y',
            '@exercise("1.2")\n@contextmanager\ndef doubled(x):\n    yield x + x',
        )
    )
    assert stub.startswith("Exercise 1.2, Doubled: not attempted\n  - The lab goes on")
    assert "has no attribute 'nothing' (line 4 of your cell, array inputs of shape (2, 3))" in error
    assert right == "Exercise 1.2, Doubled: right\n  - Shown."


def nbgrader_notebook(path: Path, answer: str) -> None:
    """A notebook with one exercise and its locked verdict, worth two points."""
    cells = [nbformat.v4.new_code_cell(SETUP), *map(nbformat.v4.new_code_cell, (answer, 'verdict("1.1")'))]
    for cell, name, locked in ((cells[1], "ex-1-1", False), (cells[2], "verdict-1-1", True)):
        cell.metadata["nbgrader"] = {
            "grade_id": name, "grade": locked, "solution": not locked, "locked": locked, "task": False,
            "schema_version": 3, "cell_type": "code",
        }  # fmt: skip
    cells[2].metadata.nbgrader["points"] = 2
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ('@exercise("1.1")\ndef double(x):\n    return x + x', True),
        ('@exercise("1.1")\ndef double(x):\n    return 3 * x', False),
        ('@exercise("1.1")\ndef double(x):\n    raise NotImplementedError', False),
        ("# the exercise was deleted", False),
    ],
    ids=["right", "wrong", "not attempted", "deleted"],
)
def test_nbgraders_validate_tells_the_truth(
    answer: str, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbgrader_notebook(tmp_path / "lab.ipynb", answer)
    result = Validator().validate(str(tmp_path / "lab.ipynb"))
    assert ("failed" not in result) == passes, result
