"""Answers of different students that are suspiciously equal.

What this finds is an invitation to talk, never a proof: two students may have sat at one table, with leave
to, read one book, or asked one machine, and short programs have few good forms. So no score depends on it.

Code is compared without names of variables, comments, docstrings, annotations and layout; prose as runs of
four words. An answer that equals the published solution says nothing, and one that many share says little.
An equal answer says more the longer it is, and more if it is wrong in a way that the course does not know.
"""

import ast
import hashlib
import math
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from helpers.course import notebooks
from helpers.course.grading.report import Report

NOTABLE = 0.5  # scores below are not worth a talk
WRONG = {"not right", "error", "timeout", "dead", "flood"}  # of a known mistake it is known that many make it
NOTHING = {"not attempted", "unreadable"}
WRONG_COUNTS = 4  # times its length: there are more ways to be wrong than to be right
LONG_CODE = 50  # nodes of the syntax tree; a reference solution has from 6 to 100, a transfer task 170 to 300
LONG_PROSE = 15  # rare runs of words
RUN = 4  # words
MAX_CODE, MAX_WORDS = 50_000, 3_000  # characters of an answer that are parsed, words that are compared


@dataclass(frozen=True)
class Likeness:
    """Two or more students whose answers to one exercise are alike."""

    students: tuple[str, ...]
    lab: str
    key: str  #: of the exercise, "1.3", or the grade_id of a free answer, "discuss-1"
    score: float  #: from NOTABLE to 1: how much it says
    sentence: str


@dataclass(frozen=True)
class _Given:
    """One student's answer."""

    student: str
    source: str
    verdict: str = ""  #: "" of a free answer


def alike(
    reports: Iterable[Report], labs: Path = notebooks.LABS, solutions: Path = notebooks.SOLUTIONS
) -> list[Likeness]:
    """Answers that students share, the most telling first.

    From `labs` comes what students were given to start with, from `solutions` what anybody may have read;
    a notebook that is not there is taken for empty.
    """
    code: dict[tuple[str, str, str], dict[str, _Given]] = defaultdict(dict)
    prose: dict[tuple[str, str, str], dict[str, _Given]] = defaultdict(dict)
    for report in reports:
        for answer in report.answers:
            if answer.source and answer.verdict not in NOTHING:
                cell = answer.grade_id.replace("verdict-", "ex-", 1)
                given = _Given(report.student, answer.source, answer.verdict)
                code[report.lab, answer.key, cell][report.student] = given
        for text in report.free_texts:
            if text.attempted:
                kind = code if text.kind == "code" else prose
                kind[report.lab, text.grade_id, text.grade_id][report.student] = _Given(
                    report.student, text.source
                )
    released = {lab: _cells(labs / f"{lab}.ipynb") for lab, _, _ in (*code, *prose)}
    published = {lab: _cells(solutions / f"{lab}.ipynb") for lab, _, _ in (*code, *prose)}

    found: list[Likeness] = []
    for compare, kind in ((_equal_code, code), (_like_prose, prose)):
        for (lab, key, cell), answers in kind.items():
            start, solution = released[lab].get(cell, ""), published[lab].get(cell, "")
            for students, score, sentence in compare(list(answers.values()), start, solution):
                if score >= NOTABLE:
                    found.append(Likeness(tuple(sorted(students)), lab, key, round(score, 2), sentence))
    return sorted(found, key=lambda like: (-like.score, like.lab, like.key, like.students))


def _cells(path: Path) -> dict[str, str]:
    """Sources by grade_id; an answer in Markdown comes with its question, the cell above."""
    if not path.is_file():
        return {}
    sources, above = {}, ""
    for cell in notebooks.read(path).cells:
        if name := cell.metadata.get("nbgrader", {}).get("grade_id"):
            sources[name] = cell.source
            if cell.cell_type == "markdown":
                sources[name] += f"\n\n{above}"  # who quotes the question has not copied from a neighbour
        above = cell.source
    return sources


def _rarity(sharing: int, students: int) -> float:
    """1 for two who share, 0 for all."""
    if sharing <= 2:
        return 1.0
    return math.log(students / sharing) / math.log(students / 2)


def _plenty(length: float, long: float) -> float:
    """From 0 for nothing to 1 for much; a little over 0.6 for `long`."""
    return 1 - math.exp(-max(length, 0) / long)


# Code ------------------------------------------------------------------------------------------------------


def _equal_code(answers: list[_Given], start: str, solution: str) -> Iterator[tuple[list[str], float, str]]:
    """Groups of students whose programs are equal up to names."""
    sources = {start, solution, *(answer.source for answer in answers)}
    prints = {source: fingerprint(source) for source in sources}
    groups = defaultdict(list)
    for answer in answers:
        groups[prints[answer.source]].append(answer)
    for print_, group in groups.items():
        if len(group) < 2 or print_ in (prints[start], prints[solution]):
            continue
        size = print_[1] - prints[start][1]
        verdicts = {answer.verdict for answer in group}
        says = "not the published solution"
        if verdicts <= WRONG:
            size *= WRONG_COUNTS
            says = "wrong, and no mistake that the course knows"
        elif "known mistake" in verdicts:
            says = "a mistake that the course knows"
        score = _rarity(len(group), len(answers)) * _plenty(size, LONG_CODE)
        shared = f"shared by {len(group)} of the {len(answers)} who answered"
        yield [a.student for a in group], score, f"Equal up to names, comments and layout; {shared}; {says}."


def fingerprint(source: str) -> tuple[bytes, int]:
    """What stays of a program without names, comments, docstrings, annotations and layout; and its length.

    What is no Python is compared word by word.
    """
    try:
        if len(source) > MAX_CODE:
            raise ValueError("too long to be parsed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in students' strings
            tree = ast.parse(source)
        words = _Words(tree)
        words.add(tree)
        parts, size = words.found, words.nodes
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        parts = re.findall(r"\w+|[^\w\s]", re.sub(r"#.*", "", source[:MAX_CODE]))
        size = len(parts)
        parts.append(source[MAX_CODE:])
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).digest(), size


SKIPPED = {"annotation", "returns", "type_comment", "type_ignores", "kind", "type_params", "ctx"}
OPERATORS = (ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class _Words:
    """A syntax tree as a list of words in which the names that the program itself gives are numbered."""

    def __init__(self, tree: ast.AST) -> None:
        self.own = set(_names_given(tree))
        self.numbers: dict[str, str] = {}
        self.found: list[str] = []
        self.nodes = 0

    def name(self, name: str) -> str:
        return self.numbers.setdefault(name, f"#{len(self.numbers)}") if name in self.own else name

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind is list:
            kept = [item for item in value if not _says_nothing(item)]
            self.found.append(f"[{len(kept)}")
            for item in kept:
                self.add(item)
        elif kind is str:
            self.found.append(self.name(value))
        elif isinstance(value, ast.AST):
            self.add_node(kind, value)
        else:
            self.found.append(repr(value))

    def add_node(self, kind: type[ast.AST], node: Any) -> None:
        if kind is ast.AnnAssign:
            self.add_node(ast.Assign, ast.Assign(targets=[node.target], value=node.value))
            return
        self.found.append(kind.__name__)
        if not issubclass(kind, OPERATORS):
            self.nodes += 1
        if kind is ast.Name:
            self.found.append(self.name(node.id))
        elif kind is ast.Constant:
            self.found.append(f"{type(node.value).__name__} {node.value!r}")
        elif kind is ast.Attribute:
            self.add(node.value)
            self.found.append(f".{node.attr}")
        elif kind is ast.Call:
            own = isinstance(node.func, ast.Name) and node.func.id in self.own
            self.add(node.func)
            self.add(node.args)
            for keyword in node.keywords:  # those of a function of one's own are names of one's own
                self.found.append(f"{self.name(keyword.arg) if own and keyword.arg else keyword.arg}=")
                self.add(keyword.value)
        else:
            for field in kind._fields:
                if field not in SKIPPED:
                    self.add(getattr(node, field, None))


def _says_nothing(node: Any) -> bool:
    """Docstrings, and statements without effect."""
    kind = type(node)
    return (
        kind is ast.Pass
        or (kind is ast.Expr and type(node.value) is ast.Constant)
        or (kind is ast.AnnAssign and node.value is None)
    )


def _names_given(tree: ast.AST) -> Iterator[str]:
    """Names of variables, parameters and functions; attributes and modules keep theirs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if type(node.ctx) is ast.Store:
                yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield from filter(None, [node.asname])
        elif isinstance(node, (*DEFINITIONS, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            yield from filter(None, [node.name])
        elif isinstance(node, ast.MatchMapping):
            yield from filter(None, [node.rest])


# Prose -----------------------------------------------------------------------------------------------------


def _like_prose(answers: list[_Given], start: str, solution: str) -> Iterator[tuple[list[str], float, str]]:
    """Groups of students whose texts share rare runs of words.

    Equal texts make one group, and groups are compared two by two.
    """
    public = _runs(start) | _runs(solution)
    groups: dict[frozenset[str], list[str]] = defaultdict(list)
    for answer in answers:
        if runs := _runs(answer.source):
            groups[runs].append(answer.student)
    texts = list(groups)
    sharing: dict[str, int] = defaultdict(int)
    for runs, students in groups.items():
        for run in runs - public:
            sharing[run] += len(students)
    columns = {run: column for column, run in enumerate(r for r, count in sharing.items() if count > 1)}
    rows, places, weights = [], [], []
    for row, runs in enumerate(texts):
        for run in runs & columns.keys():
            rows.append(row)
            places.append(columns[run])
            weights.append(math.sqrt(_rarity(sharing[run], len(answers))))
    shape = (len(texts), max(len(columns), 1))
    matrix = sparse.csr_array((np.array(weights), (rows, places)), shape=shape)
    rare = sparse.triu(matrix @ matrix.T).tocoo()  # the weight of what two texts share
    for one, other, weight in zip(rare.row, rare.col, rare.data, strict=True):
        first, second = groups[texts[one]], groups[texts[other]]
        if one == other and len(first) < 2:
            continue
        score = weight / min(len(texts[one]), len(texts[other])) * _plenty(weight, LONG_PROSE)
        if one == other:
            sentence = f"The same words; shared by {len(first)} of the {len(answers)} who answered"
        else:
            shared = len(texts[one] & texts[other]) / min(len(texts[one]), len(texts[other]))
            sentence = f"{shared:.0%} of the shorter text's phrases ({RUN} words in a row) are in both"
            sentence = sentence.replace("%", " %")
        students = first if one == other else first + second
        sentence += "; they are rare in the class and not in the published answer."
        yield students, float(score), sentence


def _runs(text: str) -> frozenset[str]:
    """Every run of RUN words, without case, punctuation and accents' encodings."""
    text = unicodedata.normalize("NFKC", text[: 20 * MAX_WORDS]).casefold()
    words = re.findall(r"\w+", text)[:MAX_WORDS]
    return frozenset(" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1))
