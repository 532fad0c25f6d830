"""What grading one notebook found: plain data that travels between workers, and lies on disk, as JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Literal

Verdict = Literal[
    "right",
    "known mistake",
    "not right",
    "not attempted",
    "error",  # the student's function, or its cell, raised an exception
    "timeout",
    "dead",  # the process ended by itself or was killed
    "flood",  # it wrote more than a grader should read
    "unreadable",  # no such cell in the notebook, or no notebook that can be read
]


@dataclass(frozen=True)
class Answer:
    """The judgement on one exercise."""

    key: str  #: "1.3"
    grade_id: str  #: of the verdict's cell, which carries the points: "verdict-1-3"
    title: str
    points: float  #: at most
    score: float  #: from 0 to `points`
    verdict: Verdict
    notes: tuple[str, ...] = ()  #: sentences that the student reads
    mistake: str = ""  #: of a known mistake, its sentence, which is also its name
    partial: str = ""  #: why the score lies between 0 and `points`, else ""
    source: str = ""  #: the student's cell as it was handed in, "" if there was none


@dataclass(frozen=True)
class FreeText:
    """An answer that a person grades: prose, or the code of a transfer task."""

    grade_id: str  #: "discuss-1", "transfer"
    question: str  #: the text of the cell above it, Markdown
    points: float  #: at most
    kind: Literal["markdown", "code"]
    source: str  #: as handed in, "" if there was none
    attempted: bool  #: whether it differs from the empty cell of the release


@dataclass(frozen=True)
class Report:
    """Everything that is known about one submitted notebook."""

    student: str
    lab: str  #: stem of the notebook's name: "01_numpy_saliency"
    file: str  #: where it came from, as the instructor would recognise it: "ada.zip/01_numpy_saliency.ipynb"
    sha256: str  #: of the file's bytes
    release: str  #: the release id that the notebook carries, "" if none
    answers: tuple[Answer, ...] = ()
    free_texts: tuple[FreeText, ...] = ()
    tampering: tuple[str, ...] = ()  #: what was edited, deleted or duplicated that should have stayed
    remarks: tuple[str, ...] = ()  #: for the instructor: what else went on while it was graded
    seconds: float = 0.0  #: of grading it, all in all
    starting: float = 0.0  #: of those, for starting sandboxes and importing what the lab needs

    @property
    def score(self) -> float:
        """What the exercises earn; free texts are not in it."""
        return sum(answer.score for answer in self.answers)

    @property
    def points(self) -> float:
        """What the exercises could earn."""
        return sum(answer.points for answer in self.answers)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)  # ASCII: a text may hold half a surrogate pair

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what `to_json` wrote. Raises ValueError, KeyError or TypeError for anything else."""
        fields = json.loads(text)
        answers = [_tupled(Answer, item) for item in fields.pop("answers")]
        texts = [FreeText(**item) for item in fields.pop("free_texts")]
        return _tupled(cls, {**fields, "answers": answers, "free_texts": texts})


def _tupled(kind: type, fields: dict) -> object:
    """An instance of a dataclass; JSON knows lists only."""
    return kind(**{k: tuple(value) if isinstance(value, list) else value for k, value in fields.items()})
