"""Every exercise of every lab: known mistakes get their own sentence, right answers pass, cheats never do."""

import copy
import dataclasses
import inspect
import random
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import helpers.exercises
from helpers.exercises import Exercise, Mistake, Verdict, _check, check, registry

EXERCISES = list(registry.values())

every_exercise = pytest.mark.parametrize("ex", EXERCISES, ids=lambda ex: ex.key)


def test_lab_01_is_complete() -> None:
    lab = [ex for ex in EXERCISES if ex.key.startswith("1.")]
    assert len(lab) >= 10, "lab 01 has seven core exercises and three for depth"
    assert sum(len(ex.mistakes) for ex in lab) >= 40


@every_exercise
def test_it_is_complete(ex: Exercise) -> None:
    assert len(ex.mistakes) >= 4
    assert len(ex.alternatives) >= 2
    assert len({m.sentence for m in ex.mistakes}) == len(ex.mistakes), "two mistakes share a sentence"
    assert all(m.seen for m in ex.mistakes), "say where each mistake was seen"
    assert ex.points > 0 and ex.verified and all(ex.hints)
    assert "def " in inspect.getsource(ex.reference), "the reference is what `reference(key)` shows"


@every_exercise
def test_right_answers_pass(ex: Exercise) -> None:
    for answer in (ex.reference, *ex.alternatives):
        found = check(ex.key, answer)
        assert (found.status, found.notes, found.correct) == ("right", (ex.verified,), True), (answer, found)


@pytest.mark.parametrize(
    ("ex", "mistake"),
    [
        pytest.param(ex, mistake, id=f"{ex.key}-{i}")
        for ex in EXERCISES
        for i, mistake in enumerate(ex.mistakes, start=1)
    ],
)
def test_each_mistake_gets_its_own_sentence(ex: Exercise, mistake: Mistake) -> None:
    found = check(ex.key, mistake.wrong)
    assert found.status in ("not right yet", "error") and not found.correct
    assert [m.sentence for m in ex.mistakes if m.sentence in found.notes] == [mistake.sentence], found


def _check_with(ex: Exercise, use: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> Verdict:
    """The verdict on an answer that is used by `use(plain, *args)`.

    `plain(answer, *args)` is how the exercise uses one, and how the reference and the mistakes are used.
    """

    def plain(answer: Callable[..., object], *args: object) -> object:
        return ex.use(answer, *args) if ex.use else answer(*args)

    def chosen(answer: Callable[..., object], *args: object) -> object:
        return use(plain, *args) if answer is mine else plain(answer, *args)

    def mine(*args: object) -> object:
        return ex.reference(*args)

    monkeypatch.setattr(helpers.exercises, "registry", {ex.key: dataclasses.replace(ex, use=chosen)})
    return check(ex.key, mine)


def _arrays(obj: object) -> Iterator[np.ndarray | torch.Tensor]:
    """Every array that can be reached through public attributes and containers."""
    if isinstance(obj, np.ndarray | torch.Tensor):
        yield obj
    elif isinstance(obj, torch.nn.Module):
        yield from obj.parameters()
    elif isinstance(obj, tuple | list | dict):
        for item in obj.values() if isinstance(obj, dict) else obj:
            yield from _arrays(item)
    else:
        for name, item in getattr(obj, "__dict__", {}).items():
            if not name.startswith("_"):
                yield from _arrays(item)


@every_exercise
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda a: a * 0, id="zeros"),
        pytest.param(lambda a: a * 0 + 1, id="ones"),
        pytest.param(lambda a: a * 0 + 1.3 if hasattr(a, "dtype") else 0.3, id="constant"),
        pytest.param(lambda a: -a, id="negative"),
        pytest.param(lambda a: None, id="None inside"),
        pytest.param(lambda a: np.asarray(a)[None], id="one axis more"),
        pytest.param(lambda a: np.asarray(a, np.float16), id="float16"),
        pytest.param(lambda a: np.asarray(a).astype(np.complex128), id="complex"),
        pytest.param(lambda a: np.asarray(a).astype(object), id="object"),
        pytest.param(lambda a: np.asarray(a).astype("U20"), id="text"),
        pytest.param(lambda a: np.asarray(a) == 0, id="bool"),
        pytest.param(lambda a: np.asarray(a) * np.nan, id="NaN"),
        pytest.param(lambda a: np.asarray(a) + np.inf, id="infinity"),
    ],
)
def test_changed_results_never_pass(
    ex: Exercise, change: Callable[[object], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def deep(value: object) -> object:
        return tuple(map(deep, value)) if isinstance(value, tuple | list) else change(value)

    found = _check_with(ex, lambda plain, *args: deep(plain(ex.reference, *args)), monkeypatch)
    assert found.status in ("not right yet", "error") and not found.correct, found
    assert found.notes, "say what is wrong"


@every_exercise
def test_cheats_never_pass(ex: Exercise) -> None:
    calls = 0

    def only_once(*args: object) -> object:
        nonlocal calls
        calls += 1
        return ex.reference(*args) if calls == 1 else None

    number = len(inspect.signature(ex.reference).parameters)
    inputs_returned = [
        lambda *args, i=i: args[i % len(args)] for i in range(number)
    ]  # the last has a default
    cheats = (
        lambda *_: None,
        lambda *_: (),
        lambda *_: 0.0,
        lambda *_: "right",
        lambda *args: args,
        only_once,
    )
    for cheat in (*inputs_returned, *cheats):
        found = check(ex.key, cheat)
        assert found.status == "not right yet" and not found.correct, found
        assert found.notes


@every_exercise
def test_in_place_damage_never_passes(ex: Exercise, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = 0

    def damage(plain: Callable[..., object], *args: object) -> object:
        nonlocal damaged
        result = plain(ex.reference, *copy.deepcopy(args))
        with torch.no_grad():
            for array in _arrays(args):
                array[...] = array == 0
                damaged += 1
        return result

    found = _check_with(ex, damage, monkeypatch)
    if not damaged:
        pytest.skip("no array among the arguments")
    assert found.status == "not right yet" and not found.correct, found
    assert any("in place" in note for note in found.notes) or found.notes[0] in {
        m.sentence for m in ex.mistakes
    }


@every_exercise
def test_an_exception_is_an_error(ex: Exercise) -> None:
    class Unheard(Exception):
        pass

    def fails(*_args: object) -> object:
        raise Unheard("this never worked")

    found = check(ex.key, fails)
    assert found.status == "error" and not found.correct
    assert found.notes[0].startswith("Unheard: this never worked")


@every_exercise
def test_a_stub_is_not_attempted(ex: Exercise) -> None:
    def stub(*_args: object) -> object:
        raise NotImplementedError

    def calls_a_stub(*args: object) -> object:
        return stub(*args)

    assert check(ex.key, stub).status == "not attempted"
    assert check(ex.key, calls_a_stub).status == "error"


@every_exercise
def test_an_endless_loop_is_stopped(ex: Exercise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers.exercises, "registry", {ex.key: dataclasses.replace(ex, limit=0.3)})

    def endless(*_args: object) -> object:
        while True:
            pass

    start = time.monotonic()
    found = check(ex.key, endless)
    assert found.status == "too slow" and not found.correct
    assert time.monotonic() - start < 10


@every_exercise
def test_a_check_leaves_no_trace(ex: Exercise, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[tuple] = []

    def cases(rng: np.random.Generator) -> list[tuple]:
        made = ex.cases(rng)
        kept.extend(made)
        return made

    def everything() -> tuple:
        return (
            random.getstate(),
            [part.tolist() if isinstance(part, np.ndarray) else part for part in np.random.get_state()],
            torch.get_rng_state().tolist(),
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            np.geterr(),
            [dict(_check._parts(args, ())) for args in kept],  # arrays, train/eval modes, hooks
        )

    def meddles(*args: object) -> object:
        random.random()
        np.random.rand()
        np.seterr(all="raise")
        torch.rand(1)
        torch.set_grad_enabled(False)
        for arg in args:
            if isinstance(arg, torch.nn.Module):
                arg.train(not arg.training)
                arg.register_forward_hook(lambda *_: None)
        for array in _arrays(args):
            with torch.no_grad():
                array[...] = array == 0
        return None

    monkeypatch.setattr(helpers.exercises, "registry", {ex.key: dataclasses.replace(ex, cases=cases)})
    untouched = [args for seed in helpers.exercises.SEEDS for args in ex.cases(np.random.default_rng(seed))]
    before = (*everything()[:-1], [dict(_check._parts(args, ())) for args in untouched])
    check(ex.key, ex.reference)
    assert everything() == before
    kept.clear()
    check(ex.key, meddles)
    assert everything() == before
