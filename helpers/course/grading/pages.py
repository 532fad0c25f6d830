"""The feedback page of a student and the instructor's summary: single HTML files that load and run nothing.

Whatever a submission brings (names, code, prose, messages, file names) may be hostile. Three things guard the
reader, each on its own: the template engine escapes every value; before that, `_clean` makes visible what
would hide or reorder text; and the page's security policy forbids scripts and requests. Long values are cut.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from urllib.parse import quote

from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup, escape

from helpers.course.grading.alike import Likeness
from helpers.course.grading.report import Answer, FreeText, Report

MAX_SENTENCE, MAX_NAME, MAX_TEXT = 1_500, 120, 12_000  # characters
MAX_ITEMS = 30  # of a list in a feedback page
MAX_ROWS = 300  # of a list in the summary; the table of scores is never cut
MAX_MISTAKES = 5  # per exercise
TOGETHER = 2  # so many likenesses of two students are worth a line of their own

LABELS = {
    "right": "Right",
    "known mistake": "Not right yet",
    "not right": "Not right yet",
    "not attempted": "Not attempted",
    "error": "Raised an error",
    "timeout": "Ran out of time",
    "dead": "Ended early",
    "flood": "Too much output",
    "unreadable": "Could not be read",
}
STOPPED = ("timeout", "dead", "flood", "unreadable")
MEANINGS = {  # where a report has no sentence of its own
    "not right": "The results differ from what was wanted.",
    "not attempted": "The cell still holds what it held in the lab.",
    "error": "Your function, or its cell, raised an error.",
    "timeout": "Your function had not finished when its time was up. Look for a loop that never ends.",
    "dead": "The Python process ended while your function ran. Often it has used too much memory.",
    "flood": "Your function wrote more than can be read. Remove the `print` calls inside loops.",
    "unreadable": "This exercise was not found in the notebook. Its cell may have been deleted.",
}


def feedback_page(
    reports: Iterable[Report],
    *,
    manual: Mapping[tuple[str, str], tuple[float | None, str]] | None = None,
    late: Mapping[str, str] | None = None,
) -> str:
    """The page for one student, all labs. `reports` are of one student.

    manual: (lab, grade_id) -> (score, comment) as a person gave them, None for no score yet; also for
    exercises, where it stands in place of the automatic score. late: lab -> a sentence.
    """
    reports = sorted(reports, key=lambda report: report.lab)
    if len({report.student for report in reports}) != 1:
        raise ValueError("A feedback page is for one student; pass the reports of one.")
    labs = [_Lab(report, manual or {}, (late or {}).get(report.lab, "")) for report in reports]
    return _render("feedback", student=reports[0].student, labs=labs)


def summary_page(
    reports: Iterable[Report],
    *,
    problems: Iterable[str] = (),
    alike: Iterable[Likeness] = (),
    manual_left: Iterable[tuple[str, str, str]] | None = None,
    feedback: Mapping[str, str] | None = None,
) -> str:
    """The instructor's page.

    problems: sentences about what could not be taken in. manual_left: (student, lab, grade_id) of what waits
    for a person; by default every free answer that was attempted. feedback: student -> path of the feedback
    page, relative to the summary.
    """
    reports = sorted(reports, key=lambda report: (report.student.casefold(), report.student, report.lab))
    if manual_left is None:
        manual_left = [(r.student, r.lab, t.grade_id) for r in reports for t in r.free_texts if t.attempted]
    waiting: dict[tuple[str, str], list[str]] = defaultdict(list)
    for student, lab, grade_id in manual_left:
        waiting[lab, grade_id].append(student)
    alike = list(alike)
    links = {name: "./" + quote(path.encode("utf-8", "replace")) for name, path in (feedback or {}).items()}
    stopped = [(r, a) for r in reports for a in r.answers if a.verdict in STOPPED]
    return _render(
        "summary",
        labs=sorted({report.lab for report in reports}),
        students=_students(reports),
        links=links,
        histograms=_histograms(reports),
        exercises=_exercises(reports),
        tampered=[report for report in reports if report.tampering],
        stopped=stopped,
        remarks=[report for report in reports if report.remarks],
        problems=list(problems),
        waiting=sorted(waiting.items()),
        waiting_count=sum(map(len, waiting.values())),
        alike=alike,
        together=_together(alike),
    )


# What a feedback page shows --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Lab:
    """One lab of one student."""

    report: Report
    manual: Mapping[tuple[str, str], tuple[float | None, str]]
    late: str

    def by_hand(self, item: Answer | FreeText) -> tuple[float | None, str]:
        """What a person gave: score and comment."""
        return self.manual.get((self.report.lab, item.grade_id), (None, ""))

    def score(self, item: Answer | FreeText) -> float:
        """What counts now."""
        by_hand, _ = self.by_hand(item)
        if by_hand is not None:
            return by_hand
        return item.score if isinstance(item, Answer) else 0

    def waits(self, text: FreeText) -> bool:
        return text.attempted and self.by_hand(text)[0] is None

    @property
    def exercises_score(self) -> float:
        return sum(map(self.score, self.report.answers))

    @property
    def texts_score(self) -> float:
        return sum(map(self.score, self.report.free_texts))

    @property
    def texts_points(self) -> float:
        return sum(text.points for text in self.report.free_texts)

    @property
    def waiting(self) -> int:
        return sum(map(self.waits, self.report.free_texts))


def _sentences(answer: Answer) -> list[str]:
    """What a student reads below a verdict, each sentence once."""
    found = list(dict.fromkeys(filter(None, (answer.mistake, *answer.notes))))
    return found or list(filter(None, [MEANINGS.get(answer.verdict)]))


def _look(answer: Answer) -> str:
    """Which of the page's five looks a verdict has; the word beside it says the same."""
    if answer.verdict == "right":
        return "right"
    if 0 < answer.score < answer.points:
        return "partly"
    if answer.verdict in ("not attempted", "error"):
        return {"not attempted": "blank", "error": "wrong"}[answer.verdict]
    return "stopped" if answer.verdict in STOPPED else "wrong"


def _label(answer: Answer) -> str:
    return "Partly right" if _look(answer) == "partly" else LABELS[answer.verdict]


# What the summary shows ------------------------------------------------------------------------------------


def _students(reports: list[Report]) -> list[tuple[str, dict[str, Report], float, float]]:
    """Per student the name, the reports by lab, the score and the points."""
    rows: dict[str, dict[str, Report]] = defaultdict(dict)
    for report in reports:
        rows[report.student][report.lab] = report
    return [
        (name, labs, sum(r.score for r in labs.values()), sum(r.points for r in labs.values()))
        for name, labs in rows.items()
    ]


def _histograms(reports: list[Report]) -> dict[str, list[tuple[str, int, float]]]:
    """Per lab ten lines from the best to the worst: what share of the points, how many, width in per cent."""
    counts: dict[str, Counter[int]] = defaultdict(Counter)
    for report in reports:
        if report.points:
            share = min(max(report.score / report.points, 0), 1)
            counts[report.lab][min(int(share * 10 + 1e-9), 9)] += 1
    found = {}
    for lab, bins in sorted(counts.items()):
        most = max(bins.values())
        found[lab] = [
            (f"{i * 10} to {i * 10 + 10} %", bins[i], 100 * bins[i] / most) for i in reversed(range(10))
        ]
    return found


@dataclass(frozen=True)
class _Exercise:
    """What a class did with one exercise."""

    lab: str
    key: str
    title: str
    count: int
    verdicts: list[tuple[str, int]]
    right: float  #: per cent
    mistakes: list[tuple[str, int]]
    more: int  #: other mistakes, which are not listed


def _exercises(reports: list[Report]) -> list[_Exercise]:
    """One entry per exercise, in the labs' order."""
    answers: dict[tuple[str, str], list[Answer]] = defaultdict(list)
    for report in reports:
        for answer in report.answers:
            answers[report.lab, answer.key].append(answer)
    found = []
    order = list(LABELS)
    for (lab, key), given in sorted(answers.items(), key=lambda item: (item[0][0], _natural(item[0][1]))):
        verdicts = Counter(answer.verdict for answer in given)
        mistakes = Counter(answer.mistake for answer in given if answer.mistake).most_common()
        found.append(
            _Exercise(
                lab,
                key,
                given[0].title,
                len(given),
                sorted(verdicts.items(), key=lambda item: order.index(item[0])),
                100 * verdicts["right"] / len(given),
                mistakes[:MAX_MISTAKES],
                len(mistakes[MAX_MISTAKES:]),
            )
        )
    return found


def _natural(key: str) -> list[tuple[int, str]]:
    """1.10 comes after 1.9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in key.split(".")]


def _together(alike: list[Likeness]) -> list[tuple[tuple[str, str], int]]:
    """Which two students are alike most often."""
    few = [like.students for like in alike if len(like.students) <= 10]
    pairs = Counter(pair for students in few for pair in combinations(students, 2))
    return [(pair, count) for pair, count in pairs.most_common(MAX_ROWS) if count >= TOGETHER]


# From values to HTML ---------------------------------------------------------------------------------------

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc\ufffe\uffff"
    "\U000e0000-\U000e0fff\ud800-\udfff]"
)


def _clean(text: str) -> str:
    """`text` with every character that hides, or reorders its neighbours, shown by its number."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _HIDDEN.sub(lambda found: f"[U+{ord(found[0]):04X}]", text)


def _short(text: str, limit: int) -> str:
    """`text` cleaned and, when too long, cut, with a remark that says so."""
    rest = len(text) - limit
    return _clean(text) if rest <= 0 else f"{_clean(text[:limit])} … [{rest:,} more characters are left out]"


def _finalize(value: object) -> object:
    """What stands in every `{{ }}`: HTML of our own, a number, or text to be escaped."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return f"{round(value, 2):g}"
    return _short(value, MAX_SENTENCE) if isinstance(value, str) else value


def _name(text: str) -> Markup:
    """Names and file names: short, and apart from the text around them where they run from right to left."""
    return Markup("<bdi>{}</bdi>").format(_short(text, MAX_NAME))


def _with_code(text: str) -> Markup:
    """A sentence whose `words in backticks` become code."""
    escaped = str(escape(_short(text, MAX_SENTENCE)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))


def _source(text: str) -> Markup:
    """Code or prose, as it was written."""
    return Markup('<pre class="source">{}</pre>').format(_short(text, MAX_TEXT))


def _question(text: str) -> Markup:
    """The text of a Markdown cell, without the marks of headings and of bold type."""
    text = re.sub(r"^#+ +", "", _short(text, MAX_SENTENCE * 2), flags=re.MULTILINE)
    escaped = str(escape(re.sub(r"\*\*(.+?)\*\*", r"\1", text)))
    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", escaped))


def _lab_name(stem: str) -> str:
    """ "01_numpy_saliency" -> "Lab 01: numpy saliency"."""
    number, _, words = stem.partition("_")
    return f"Lab {number}: {words.replace('_', ' ')}" if number.isdecimal() and words else stem


def _points(score: float, points: float) -> str:
    return f"{_finalize(float(score))} of {_finalize(float(points))}"


def _render(page: str, **values: object) -> str:
    return _PAGES.get_template(page).render(**values)


_STYLE = """
:root {
  color-scheme: light dark;
  --page: #f7f6f3; --card: #ffffff; --text: #1f2428; --quiet: #57606a; --line: #d9d7d0; --code: #f2f1ed;
  --right: #17692f; --partly: #7a4d00; --wrong: #a4402a; --stopped: #8a2b5c; --blank: #57606a; --bar: #3c6e91;
  --link: #1f5f8b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1c2024; --text: #e4e6e8; --quiet: #a3abb3; --line: #353b41; --code: #262b30;
    --right: #6fd08c; --partly: #e6b95c; --wrong: #f0947e; --stopped: #ea8fc0; --blank: #a3abb3;
    --bar: #76a9cc; --link: #86bde2;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; padding: 2rem 1rem 4rem; background: var(--page); color: var(--text);
  font: 1rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere;
}
main, header, footer { max-width: 46rem; margin: 0 auto; }
.wide main, .wide header, .wide footer { max-width: 64rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.6rem 0 .6rem; }
h3 { font-size: 1.02rem; line-height: 1.4; margin: 0; }
p { margin: .5rem 0; }
ul { margin: .5rem 0; padding-left: 1.3rem; }
.quiet { color: var(--quiet); }
.small { font-size: .875rem; }
a { color: var(--link); }
code, pre {
  font-family: ui-monospace, "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace; font-size: .86em;
}
code { background: var(--code); border-radius: 3px; padding: .08em .3em; }
pre {
  background: var(--code); border-radius: 6px; padding: .8rem 1rem; margin: .5rem 0 0; line-height: 1.5;
  white-space: pre-wrap; overflow: hidden; tab-size: 4; unicode-bidi: isolate;
}
.prose pre { font: inherit; font-size: .95rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.2rem 0 0; padding: 0; }
.tiles div {
  flex: 1 1 9rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .7rem 1rem;
}
.tiles dt { color: var(--quiet); font-size: .875rem; }
.tiles dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.card {
  background: var(--card); border: 1px solid var(--line); border-left: 4px solid var(--look, var(--line));
  border-radius: 8px; padding: .9rem 1.1rem; margin: .75rem 0;
}
.right { --look: var(--right); } .partly { --look: var(--partly); } .wrong { --look: var(--wrong); }
.stopped { --look: var(--stopped); } .blank { --look: var(--blank); }
.head { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; }
.head h3 { flex: 1 1 12rem; }
.verdict { color: var(--look); font-weight: 600; }
.verdict span { display: inline-block; min-width: 1.2em; }
.points { font-variant-numeric: tabular-nums; color: var(--quiet); }
.partial { border-top: 1px solid var(--line); margin-top: .7rem; padding-top: .5rem; }
details { margin-top: .6rem; }
summary { cursor: pointer; color: var(--quiet); font-size: .9rem; }
.question { white-space: pre-line; border-left: 3px solid var(--line); padding-left: .9rem; margin: .5rem 0; }
.comment { border-left: 3px solid var(--right); padding-left: .9rem; white-space: pre-line; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; background: var(--card); }
caption { text-align: left; padding: .3rem 0; color: var(--quiet); }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border: 1px solid var(--line); }
thead th { background: var(--code); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.scores th, .scores td { overflow-wrap: normal; }
.scores tbody th { min-width: 9rem; overflow-wrap: anywhere; font-weight: 400; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)); gap: 1rem; }
.grid .card { margin: 0; }
.bars { list-style: none; padding: 0; margin: .5rem 0 0; font-size: .875rem; }
.bars li { display: grid; grid-template-columns: 6.4rem 1fr 2.4rem; gap: .5rem; align-items: center; }
.bars .count { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: block; height: .7rem; background: var(--bar); border-radius: 2px; }
.track { background: var(--code); border-radius: 2px; margin: .4rem 0; }
.track .bar { background: var(--right); height: .4rem; }
.counts { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; padding: 0; list-style: none; margin: .3rem 0; }
ol.mistakes { margin: .4rem 0 0; padding: 0; list-style: none; }
ol.mistakes li { display: grid; grid-template-columns: 3.2rem 1fr; gap: .4rem; margin: .3rem 0; }
ol.mistakes b { text-align: right; font-variant-numeric: tabular-nums; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none; padding: 0; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem; }
@media (max-width: 30rem) {
  body { padding: 1.2rem .75rem 3rem; }
  h1 { font-size: 1.4rem; }
  .card { padding: .8rem .85rem; }
  .head h3 { flex-basis: 100%; }
  .head .verdict { flex: 1; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --text: #000; --quiet: #444; --line: #bbb; --code: #fff; --bar: #555;
    --right: #17692f; --partly: #7a4d00; --wrong: #a4402a; --stopped: #8a2b5c; --blank: #444;
  }
  body { padding: 0; font-size: 10pt; }
  main, header, footer, .wide main, .wide header, .wide footer { max-width: none; }
  h2, h3, .head { break-after: avoid; }
  .tiles div, tr, li { break-inside: avoid; }
  pre { border: 1px solid #bbb; }
  nav { display: none; }
  .bar { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { display: block; content-visibility: visible; height: auto; }
}
"""

_BASE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<meta name="robots" content="noindex">
<title>{% block title %}{% endblock %}</title>
<style>{{ style }}</style>
</head>
{% block body %}{% endblock %}
</html>
"""

_FEEDBACK = """{% extends "base" %}
{% block title %}Feedback for {{ student | short }}{% endblock %}
{% block body %}
<body>
<header>
<p class="quiet small">Where Does It Look?</p>
<h1>Feedback for {{ student | name }}</h1>
<dl class="tiles">
<div><dt>Exercises</dt>
<dd>{{ points(labs | sum("exercises_score"), labs | sum("report.points")) }}</dd></div>
<div><dt>Free answers</dt><dd>{{ points(labs | sum("texts_score"), labs | sum("texts_points")) }}</dd></div>
{% if labs | sum("waiting") %}
<div><dt>Waiting for a reader</dt><dd>{{ labs | sum("waiting") }}</dd></div>
{% endif %}
</dl>
{% if labs | length > 1 %}
<nav aria-label="Labs"><ul>
{% for lab in labs %}
<li><a href="#lab-{{ loop.index }}">{{ lab.report.lab | lab_name | name }}</a></li>
{% endfor %}
</ul></nav>
{% endif %}
</header>
<main>
{% for lab in labs %}
{% set report = lab.report %}
<section aria-labelledby="lab-{{ loop.index }}">
<h2 id="lab-{{ loop.index }}">{{ report.lab | lab_name | name }}</h2>
<p>Exercises: {{ points(lab.exercises_score, report.points) }} points.
{% if report.free_texts %}
Free answers: {{ points(lab.texts_score, lab.texts_points) }} points
{%- if lab.waiting %}, {{ lab.waiting }} still to be read{% endif %}.
{% endif %}
</p>
{% if lab.late %}<p>{{ lab.late | with_code }}</p>{% endif %}
<p class="quiet small">Handed in as {{ report.file | name }}{% if report.release %}, \
release {{ report.release | name }}{% endif %}, fingerprint {{ report.sha256[:12] }}.</p>
{% if report.tampering %}
<div class="card">
<h3>Parts of the notebook that differ from the lab</h3>
<p>This can happen by accident. Grading uses the course's own checks and points, so it changes no score by \
itself.</p>
<ul>
{% for sentence in report.tampering[:max_items] %}<li>{{ sentence | with_code }}</li>{% endfor %}
{{ more(report.tampering | length - max_items) }}
</ul>
</div>
{% endif %}
{% for answer in report.answers %}
{% set by_hand, comment = lab.by_hand(answer) %}
<article class="card {{ look(answer) }}">
<div class="head">
<h3>{{ answer.key | name }} {{ answer.title | short }}</h3>
<span class="verdict"><span aria-hidden="true">{{ symbols[look(answer)] }}</span> {{ label(answer) }}</span>
<span class="points">{{ points(lab.score(answer), answer.points) }}</span>
</div>
{% for sentence in sentences(answer)[:max_items] %}
<p>{{ sentence | with_code }}</p>
{% endfor %}
{% set hidden = sentences(answer) | length - max_items %}
{% if hidden > 0 %}<p class="quiet">… and {{ hidden }} more remarks.</p>{% endif %}
{% if answer.partial %}
<p class="partial"><b>Why {{ points(answer.score, answer.points) }}:</b> {{ answer.partial | with_code }}</p>
{% endif %}
{% if by_hand is not none %}
<p class="partial">A person has set this score; the automatic one was \
{{ points(answer.score, answer.points) }}.</p>
{% endif %}
{% if comment %}<p class="comment">{{ comment | long }}</p>{% endif %}
{% if answer.source and answer.verdict != "not attempted" %}
<details{% if answer.verdict != "right" %} open{% endif %}><summary>Your code</summary>
{{ answer.source | source }}</details>
{% endif %}
</article>
{% endfor %}
{% for text in report.free_texts %}
{% set by_hand, comment = lab.by_hand(text) %}
<article class="card{{ " right" if by_hand is not none else " blank" }}">
<div class="head">
<h3>{{ "Free task" if text.kind == "code" else "Free answer" }}: {{ text.grade_id | name }}</h3>
{% if by_hand is not none %}
<span class="verdict"><span aria-hidden="true">✎</span> Read by a person</span>
<span class="points">{{ points(by_hand, text.points) }}</span>
{% elif text.attempted %}
<span class="verdict"><span aria-hidden="true">…</span> A person will read this</span>
<span class="points">{{ text.points | number }} possible</span>
{% else %}
<span class="verdict"><span aria-hidden="true">○</span> Not attempted</span>
<span class="points">{{ points(0, text.points) }}</span>
{% endif %}
</div>
{% if comment %}<p class="comment">{{ comment | long }}</p>{% endif %}
{% if text.question %}
<details><summary>The question</summary><div class="question">{{ text.question | question }}</div></details>
{% endif %}
{% if text.attempted and text.source %}
<details open{% if text.kind == "markdown" %} class="prose"{% endif %}><summary>Your answer</summary>
{{ text.source | source }}</details>
{% endif %}
</article>
{% endfor %}
{% if not report.answers and not report.free_texts %}
<p>Nothing in this file could be graded. Open it in JupyterLab, see that it runs, and hand it in again, or \
ask your instructor.</p>
{% endif %}
</section>
{% endfor %}
</main>
<footer>
<h2>If you think that a score is wrong</h2>
<p>Tell your instructor which exercise it is and why you think so, with the fingerprint of the lab above. A \
person will look at it, and can grade the notebook again. Code that works in another way than ours should \
score the same.</p>
<p class="quiet small">The exercises were checked with inputs drawn for you, so numbers may differ from \
those that you saw in the lab.</p>
</footer>
</body>
{% endblock %}
"""

_SUMMARY = """{% extends "base" %}
{% block title %}Summary of grading{% endblock %}
{% macro student(who) %}
{% if who in links %}<a href="{{ links[who] | address }}">{{ who | name }}</a>{% else %}{{ who | name }}\
{% endif %}
{% endmacro %}
{% block body %}
<body class="wide">
<header>
<p class="quiet small">Where Does It Look?</p>
<h1>Summary of grading</h1>
<dl class="tiles">
<div><dt>Students</dt><dd>{{ students | length }}</dd></div>
<div><dt>Notebooks</dt><dd>{{ students | sum_notebooks }}</dd></div>
<div><dt>Answers for a person</dt><dd>{{ waiting_count }}</dd></div>
<div><dt>Files not taken in</dt><dd>{{ problems | length }}</dd></div>
</dl>
<nav aria-label="Sections"><ul>
<li><a href="#scores">Scores</a></li>
<li><a href="#exercises">Exercises and mistakes</a></li>
<li><a href="#by-hand">For a person to grade</a></li>
<li><a href="#problems">Files not taken in</a></li>
<li><a href="#stopped">Stopped or unreadable</a></li>
<li><a href="#tampering">Edited parts</a></li>
<li><a href="#alike">Answers that are alike</a></li>
<li><a href="#remarks">Remarks</a></li>
</ul></nav>
</header>
<main>
<section aria-labelledby="scores">
<h2 id="scores">Scores</h2>
<p>Of the exercises alone: free answers, late deductions and scores set by hand stand in the gradebook.</p>
{% if not students %}<p>No notebook was graded.</p>{% else %}
<div class="grid">
{% for lab, bins in histograms.items() %}
<div class="card"><h3>{{ lab | lab_name | name }}</h3>
<p class="quiet small">Students by share of the points</p>
<ul class="bars">
{% for label, count, width in bins %}
<li><span>{{ label }}</span><span class="bar" style="width: {{ width | number }}%"></span>\
<span class="count">{{ count }}</span></li>
{% endfor %}
</ul></div>
{% endfor %}
</div>
<div class="scroll" role="region" aria-label="Table of scores" tabindex="0">
<table class="scores">
<caption>Points per student and lab; – where nothing was handed in.</caption>
<thead><tr><th scope="col">Student</th>
{% for lab in labs %}<th scope="col" class="number">{{ lab | lab_number | name }}</th>{% endfor %}
<th scope="col" class="number">Sum</th></tr></thead>
<tbody>
{% for who, by_lab, score, possible in students %}
<tr><th scope="row">{{ student(who) }}</th>
{% for lab in labs %}
<td class="number">{% if lab in by_lab %}{{ points(by_lab[lab].score, by_lab[lab].points) }}{% else %}–\
{% endif %}</td>
{% endfor %}
<td class="number"><b>{{ points(score, possible) }}</b></td></tr>
{% endfor %}
</tbody></table></div>
{% endif %}
</section>

<section aria-labelledby="exercises">
<h2 id="exercises">Exercises and mistakes</h2>
{% for exercise in exercises %}
<article class="card">
<div class="head"><h3>{{ exercise.key | name }} {{ exercise.title | short }}</h3>
<span class="points">{{ exercise.right | round | int }} % right</span></div>
<div class="track" aria-hidden="true"><span class="bar" style="width: {{ exercise.right | number }}%">\
</span></div>
<ul class="counts small quiet">
{% for verdict, count in exercise.verdicts %}<li>{{ verdict }}: {{ count }}</li>{% endfor %}
</ul>
{% if exercise.mistakes %}
<ol class="mistakes">
{% for sentence, count in exercise.mistakes %}
<li><b>{{ count }} ×</b><span>{{ sentence | with_code }}</span></li>
{% endfor %}
</ol>
{% if exercise.more %}<p class="quiet small">… and {{ exercise.more }} other mistakes.</p>{% endif %}
{% endif %}
</article>
{% else %}<p>None.</p>
{% endfor %}
</section>

<section aria-labelledby="by-hand">
<h2 id="by-hand">For a person to grade</h2>
{% if waiting %}
<ul>
{% for (lab, grade_id), who in waiting %}
<li><b>{{ lab | lab_name | name }}, {{ grade_id | name }}</b> ({{ who | length }}):
{% for name in who[:max_rows] %}{{ student(name) | trim }}{{ ", " if not loop.last }}{% endfor %}
{%- if who | length > max_rows %} … and {{ who | length - max_rows }} more{% endif %}</li>
{% endfor %}
</ul>
{% else %}<p>Nothing waits.</p>{% endif %}
</section>

<section aria-labelledby="problems">
<h2 id="problems">Files not taken in</h2>
{% if problems %}
<ul>
{% for sentence in problems[:max_rows] %}<li>{{ sentence | with_code }}</li>{% endfor %}
{{ more(problems | length - max_rows) }}
</ul>
{% else %}<p>Every file was understood.</p>{% endif %}
</section>

<section aria-labelledby="stopped">
<h2 id="stopped">Stopped or unreadable</h2>
{% if stopped %}
<ul>
{% for report, answer in stopped[:max_rows] %}
<li>{{ student(report.student) }} {{ answer.key | name }}, {{ answer.verdict }}
{%- for sentence in answer.notes[:2] %}{{ ": " if loop.first else " " }}{{ sentence | with_code }}
{%- endfor %}</li>
{% endfor %}
{{ more(stopped | length - max_rows) }}
</ul>
{% else %}<p>Every answer ran to its end.</p>{% endif %}
</section>

<section aria-labelledby="tampering">
<h2 id="tampering">Edited parts</h2>
<p>Cells that belong to the course and differ from the release. Most are accidents; none changes a score by \
itself.</p>
{% if tampered %}
<ul>
{% for report in tampered[:max_rows] %}
<li>{{ student(report.student) }} {{ report.lab | lab_name | name }}, {{ report.file | name }}
<ul>{% for sentence in report.tampering[:max_items] %}<li>{{ sentence | with_code }}</li>{% endfor %}
{{ more(report.tampering | length - max_items) }}</ul></li>
{% endfor %}
{{ more(tampered | length - max_rows) }}
</ul>
{% else %}<p>None.</p>{% endif %}
</section>

<section aria-labelledby="alike">
<h2 id="alike">Answers that are alike</h2>
<p>A reason to talk with the students, no proof: they may have worked side by side, or read the same page.</p>
{% if alike %}
{% if together %}
<p>Together most often:</p>
<ul>
{% for pair, count in together %}
<li>{{ student(pair[0]) }} and {{ student(pair[1]) }}: {{ count }} answers</li>
{% endfor %}
</ul>
{% endif %}
<div class="scroll" role="region" aria-label="Answers that are alike" tabindex="0">
<table>
<thead><tr><th scope="col">Answer</th><th scope="col">Students</th><th scope="col">What was found</th>
<th scope="col" class="number">Score</th></tr></thead>
<tbody>
{% for like in alike[:max_rows] %}
<tr><td>{{ like.lab | lab_number | name }}: {{ like.key | name }}</td>
<td>{% for name in like.students[:max_items] %}{{ student(name) | trim }}{{ ", " if not loop.last }}
{%- endfor %}
{%- if like.students | length > max_items %} … and {{ like.students | length - max_items }} more
{%- endif %}</td>
<td>{{ like.sentence | with_code }}</td><td class="number">{{ "%.2f" | format(like.score) }}</td></tr>
{% endfor %}
</tbody></table></div>
{% if alike | length > max_rows %}<p>… and {{ alike | length - max_rows }} more.</p>{% endif %}
{% else %}<p>None was found.</p>{% endif %}
</section>

<section aria-labelledby="remarks">
<h2 id="remarks">Remarks</h2>
{% if remarks %}
<ul>
{% for report in remarks[:max_rows] %}
<li>{{ student(report.student) }} {{ report.lab | lab_name | name }}
<ul>{% for sentence in report.remarks[:max_items] %}<li>{{ sentence | with_code }}</li>{% endfor %}
{{ more(report.remarks | length - max_items) }}</ul></li>
{% endfor %}
{{ more(remarks | length - max_rows) }}
</ul>
{% else %}<p>None.</p>{% endif %}
</section>
</main>
</body>
{% endblock %}
"""


def _more(count: int) -> Markup:
    """The last line of a list that was cut."""
    return Markup("<li>… and {} more.</li>").format(count) if count > 0 else Markup("")


_PAGES = Environment(
    loader=DictLoader({"base": _BASE, "feedback": _FEEDBACK, "summary": _SUMMARY}),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
)
_PAGES.filters |= {
    "address": Markup,  # quoted already
    "lab_name": _lab_name,
    "lab_number": lambda lab: _lab_name(lab).partition(":")[0],
    "long": lambda text: escape(_short(text, MAX_TEXT)),
    "name": _name,
    "number": float,
    "question": _question,
    "short": lambda text: _short(text, MAX_NAME),
    "source": _source,
    "sum_notebooks": lambda students: sum(len(row[1]) for row in students),
    "with_code": _with_code,
}
_PAGES.globals |= {
    "label": _label,
    "look": _look,
    "max_items": MAX_ITEMS,
    "max_rows": MAX_ROWS,
    "more": _more,
    "points": _points,
    "sentences": _sentences,
    "style": Markup(_STYLE),
    "symbols": {"right": "✓", "partly": "◐", "wrong": "✗", "stopped": "■", "blank": "○"},
}
