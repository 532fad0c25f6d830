"""The course as a submission may see it while it is graded: without the answers.

In place of the package `helpers` stand copies of its modules that hold only what the lab's first cell
imports and what the exercises' inputs are made of, and whatever that needs. Functions that are answers are
replaced by ones that raise an error. So nothing has to be kept in two versions, and a helper that is added
tomorrow is not there until a lab imports it.
"""

import ast
import inspect
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from helpers.exercises import Exercise, registry

HELPERS = Path(inspect.getfile(registry.__class__)).parents[1]

# What exercises need of this package besides their inputs; none of it knows an answer.
MACHINERY = ("exercises/_check.py", "exercises/_blocks.py")
STUB = '''
"""Stands in for helpers.exercises while a submission is graded: the judge is in another process."""

from ._check import Complaint

answers = {}  # key -> the function as it was handed in
stand_ins = {}  # key of an earlier exercise that is not right -> its reference
registry = {}


def exercise(key):
    def keep(function):
        answers[key] = function
        return stand_ins.get(key, function)

    return keep


def check(*_):
    pass


verdict = hint = reference = check
'''
WITHHELD = """
def {name}(*arguments, **named):
    raise RuntimeError("{name}, from the course's helpers, is an answer: it is not there in grading")
"""


@dataclass(frozen=True)
class _Module:
    """The top-level statements of one module, by the names that they bind."""

    name: str
    lines: list[str]
    statements: list[ast.stmt]
    binds: dict[str, ast.stmt] = field(default_factory=dict)


@cache
def _module(name: str) -> _Module | None:
    """A module of the course ("helpers.cam"); None if it is none."""
    path = HELPERS.joinpath(*name.split(".")[1:]).with_suffix(".py")
    if not name.startswith("helpers.") or not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    module = _Module(name, text.splitlines(), ast.parse(text).body)
    for statement in module.statements:
        for bound in _bound(statement):
            module.binds[bound] = statement
    return module


def _bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
        case ast.Assign() | ast.AnnAssign():
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            yield from (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


def _imported(module: str, statement: ast.ImportFrom) -> str:
    """The absolute name of what a `from ... import` in `module` imports from."""
    if not statement.level:
        return statement.module or ""
    package = module.rsplit(".", statement.level)[0]
    return f"{package}.{statement.module}" if statement.module else package


class _Reach:
    """Which names of which modules are needed, found by following names from where they are used."""

    def __init__(self, withheld: set[tuple[str, str]]) -> None:
        self.withheld = withheld
        self.needed: dict[str, set[str]] = {}  # module -> names
        self.met: set[tuple[str, str]] = set()  # withheld names that something needs
        self._todo: deque[tuple[str, str]] = deque()

    def add(self, module: str, name: str) -> None:
        """Need `name` of `module`, and all that it needs; name "*" means the whole module."""
        self._todo.append((module, name))
        while self._todo:
            self._follow(*self._todo.popleft())

    def add_imports(self, source: str) -> None:
        """Need whatever of the course a cell imports."""
        for statement in ast.walk(ast.parse(source)):
            if isinstance(statement, ast.ImportFrom) and statement.level == 0:
                for alias in statement.names:
                    self._import(statement.module or "", alias.name, uses=None)
            elif isinstance(statement, ast.Import):
                for alias in statement.names:
                    if _module(alias.name):
                        self.add(alias.name, "*")

    def _import(self, source: str, name: str, uses: ast.AST | None) -> None:
        """Need what `from source import name` brings: a name, or of a module the attributes that are used."""
        if _module(whole := f"{source}.{name}") is None:
            self.add(source, name)
            return
        attributes = {"*"} if uses is None else _attributes(uses, name)
        for attribute in attributes:
            self.add(whole, attribute)
        self.needed.setdefault(whole, set())

    def _follow(self, module_name: str, name: str) -> None:
        module = _module(module_name)
        if module is None or name in self.needed.setdefault(module_name, set()):
            return
        if name == "*":
            for bound in module.binds:
                self._todo.append((module_name, bound))
            return
        if name not in module.binds:
            return
        self.needed[module_name].add(name)
        if (module_name, name) in self.withheld:
            self.met.add((module_name, name))
            return
        statement = module.binds[name]
        if isinstance(statement, ast.ImportFrom):
            alias = next(a for a in statement.names if (a.asname or a.name) == name)
            source = _imported(module_name, statement)
            if _module(f"{source}.{alias.name}") is None:  # of a module, its attributes are followed
                self._todo.append((source, alias.name))
            return
        for node in ast.walk(statement):
            if not isinstance(node, ast.Name) or node.id == name or node.id not in module.binds:
                continue
            self._todo.append((module_name, node.id))
            if isinstance(binder := module.binds[node.id], ast.ImportFrom):
                alias = next(a for a in binder.names if (a.asname or a.name) == node.id)
                whole = f"{_imported(module_name, binder)}.{alias.name}"
                if _module(whole):
                    self.needed.setdefault(whole, set())
                    self._todo += [(whole, attribute) for attribute in _attributes(statement, node.id)]


def _attributes(node: ast.AST, name: str) -> set[str]:
    """The attributes of the variable `name` that some code uses; "*" if it uses the variable otherwise."""
    found = [
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == name
    ]
    count = sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(node))
    return {*found, "*"} if count > len(found) else set(found)


def _text(module: _Module, needed: set[str], withheld: set[tuple[str, str]]) -> str:
    """The module's source with only the statements that are needed, as they stand in the file."""
    parts = []
    for statement in module.statements:
        names = set(_bound(statement))
        if isinstance(statement, ast.Import):
            parts.append(ast.unparse(statement))
        elif isinstance(statement, ast.ImportFrom):
            kept = needed | {"annotations"}  # of __future__
            aliases = [a for a in statement.names if (a.asname or a.name) in kept]
            if aliases:
                parts.append(ast.unparse(ast.ImportFrom(statement.module, aliases, statement.level)))
        elif names and not names & needed:
            continue
        elif any((module.name, name) in withheld for name in names):
            parts += [WITHHELD.format(name=name) for name in names]
        elif names:
            first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", ()))])
            parts.append("\n".join(module.lines[first - 1 : statement.end_lineno]))
    return "\n\n".join(parts) + "\n"


# What the rest of the package calls ------------------------------------------------------------------------


def _answer(exercise: Exercise) -> tuple[str, str]:
    """Where the answer to an exercise stands: (module, name)."""
    return exercise.reference.__module__, exercise.reference.__name__


def _withheld(exercises: Iterable[Exercise], keys: Iterable[str]) -> set[tuple[str, str]]:
    """The answers to `exercises`, and what gives those to `keys` away: others may use that as a tool."""
    exercises, keys = list(exercises), set(keys)
    nearly = (name for ex in exercises if ex.key in keys for name in ex.gives_away)
    return {*map(_answer, exercises), *(tuple(name.rsplit(".", 1)) for name in nearly)}


def _fields(exercise: Exercise, lab_module: str) -> dict[str, ast.expr]:
    """The expressions of `cases` and `use` in the exercise's definition."""
    module = _module(lab_module)
    for statement in module.statements:
        for call in ast.walk(statement):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Exercise":
                fields = {keyword.arg: keyword.value for keyword in call.keywords}
                if fields["key"].value == exercise.key:
                    return {name: fields[name] for name in ("cases", "use") if name in fields}
    raise LookupError(f"{lab_module} has no Exercise(key={exercise.key!r}, ...)")


def _references(exercises: Iterable[Exercise]) -> str:
    """A module that offers references by the keys of their exercises."""
    lines, table = [], []
    for ex in exercises:
        name = f"_{ex.key.replace('.', '_')}"
        lines.append(f"from {ex.reference.__module__} import {ex.reference.__name__} as {name}")
        table.append(f"    {ex.key!r}: {name},")
    return "\n".join([*lines, "", "REFERENCES = {", *table, "}", ""])


def own_course(exercises: Iterable[Exercise], key: str) -> frozenset[str]:
    """Keys of the exercises whose answers the inputs of exercise `key` are made of.

    Such an exercise needs a reduced course of its own.
    """
    exercises = list(exercises)
    exercise = next(ex for ex in exercises if ex.key == key)
    reach = _Reach(_withheld(exercises, [key]))
    for expression in _fields(exercise, _lab_module(key)).values():
        _need_expression(reach, _lab_module(key), expression)
    return frozenset(ex.key for ex in exercises if _answer(ex) in reach.met and ex.key != key)


def with_what_they_need(exercises: Iterable[Exercise], keys: Iterable[str]) -> frozenset[str]:
    """Keys of exercises, and of those whose references their references call."""
    exercises, found = list(exercises), set(keys)
    while True:
        reach = _Reach({_answer(ex) for ex in exercises if ex.key not in found})
        for ex in exercises:
            if ex.key in found:
                reach.add(*_answer(ex))
        more = {ex.key for ex in exercises if _answer(ex) in reach.met}
        if not more:
            return frozenset(found)
        found |= more


def _lab_module(key: str) -> str:
    return f"helpers.exercises.lab{int(key.partition('.')[0]):02}"


def _need_expression(reach: _Reach, lab_module: str, expression: ast.expr) -> None:
    for node in ast.walk(expression):
        if isinstance(node, ast.Name):
            reach.add(lab_module, node.id)


def reduced_course(
    exercises: Iterable[Exercise], keys: Iterable[str], setup: str, with_answers_to: Iterable[str] = ()
) -> dict[str, str]:
    """The course for judging the exercises `keys` of a lab: file name -> text.

    exercises: all of the lab. setup: source of its first cell. with_answers_to: keys of exercises whose
    answers may be there, because inputs are made of them or because an earlier answer was wrong.
    """
    exercises, keys, allowed = list(exercises), list(keys), set(with_answers_to)
    lab_module = _lab_module(keys[0])
    withheld = _withheld((ex for ex in exercises if ex.key not in allowed), keys)
    reach = _Reach(withheld)
    reach.add_imports(setup)
    table = []
    for ex in exercises:
        if ex.key in keys:
            fields = _fields(ex, lab_module)
            for expression in fields.values():
                _need_expression(reach, lab_module, expression)
            use = ast.unparse(fields["use"]) if "use" in fields else None
            table.append(f"    {ex.key!r}: ({ast.unparse(fields['cases'])}, {use}),")
        elif ex.key in allowed:
            reach.add(ex.reference.__module__, ex.reference.__name__)
    files = {
        f"{name.replace('.', '/')}.py": _text(_module(name), needed, withheld)
        for name, needed in reach.needed.items()
        if name.count(".") == 1 and _module(name)
    }
    inputs = _text(_module(lab_module), reach.needed.get(lab_module, set()), withheld)
    files["helpers/__init__.py"] = ""
    files["helpers/exercises/__init__.py"] = STUB
    files["helpers/exercises/inputs.py"] = inputs + "\nINPUTS = {\n" + "\n".join(table) + "\n}\n"
    files["helpers/exercises/references.py"] = _references(ex for ex in exercises if ex.key in allowed)
    for name in MACHINERY:
        files[f"helpers/{name}"] = (HELPERS / name).read_text(encoding="utf-8")
    return files
