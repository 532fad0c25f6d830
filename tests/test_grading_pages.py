"""The pages that grading writes: what they say, and that nothing from a submission becomes part of them.

The tests in the browser need Playwright (the extra "browser") and Chromium. Without them they are skipped, or
with CI=true fail.
"""

import os
import re
from html.parser import HTMLParser
from typing import get_args

import pytest

from helpers.course.grading import pages
from helpers.course.grading.alike import Likeness
from helpers.course.grading.pages import feedback_page, summary_page
from helpers.course.grading.report import Answer, FreeText, Report, Verdict
from tests.test_browser import CHROMIUM, CHROMIUM_FLAGS, missing

LAB = "01_numpy_saliency"

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "event-handler": '<img src=x onerror="alert(1)">',
    "attribute": '" onmouseover="alert(1)" x="',
    "single-quotes": "' onfocus='alert(1)' autofocus='",
    "javascript-link": "[x](javascript:alert(1)) <a href=javascript:alert(1)>x</a>",
    "closing-style": "</style><style>* { display: none; background: url(http://127.0.0.1:9/) }",
    "closing-title": "</title></head><body onload=alert(1)>",
    "closing-pre": "</pre></details></article></main><h1>100 of 100</h1>",
    "css": "x; } body { display: none } @import 'http://127.0.0.1:9/a.css';",
    "comment": "<!-- hides the rest",
    "cdata": "<![CDATA[ <svg onload=alert(1)> ]]>",
    "entities": "&lt;script&gt;&#x3c;script>&quot;",
    "frame": '<iframe srcdoc="<script>parent.alert(1)</script>"></iframe>',
    "refresh": '<meta http-equiv="refresh" content="0;url=http://127.0.0.1:9/">',
    "template": "{{ 7 * 7 }}{% raw %}{{ cycler.__init__ }}",
    "nul": "<scr\x00ipt>alert(1)</script>\x00",
    "surrogate": "\ud800<script\udfff>alert(1)</script>",
    "bidi": "\u202etxet\u202c \u2066x\u2069 \u200f",
    "controls": "\x1b[31mred\x1b[0m\x08\x0c\x7f\x85\u2028\ufeff",
}


def answer(text="x", verdict="right", **changes):
    fields = {
        "key": text, "grade_id": text, "title": text, "points": 2, "score": 1, "verdict": verdict,
        "notes": (text, f"2 {text}"), "mistake": text, "partial": text, "source": text,
    }  # fmt: skip
    return Answer(**fields | changes)


def report(text="x", **changes):
    """A report in which every text is `text`."""
    fields = {
        "student": text, "lab": text, "file": text, "sha256": text, "release": text,
        "answers": tuple(answer(text, verdict) for verdict in get_args(Verdict)),
        "free_texts": (
            FreeText(text, text, 2, "markdown", text, True),
            FreeText(text + "b", text, 2, "code", text, True),
            FreeText(text + "c", text, 2, "markdown", text, False),
        ),
        "tampering": (text, text), "remarks": (text,),
    }  # fmt: skip
    return Report(**fields | changes)


def both_pages(text):
    """A feedback page and a summary in which every text is `text`."""
    mine = report(text)
    other = report(text, student=text + "2")
    likeness = Likeness((text, text + "2"), text, text, 0.9, text)
    return (
        feedback_page([mine], manual={(text, text): (1.5, text)}, late={text: text}),
        summary_page(
            [mine, other],
            problems=[text],
            alike=[likeness, likeness],
            manual_left=[(text, text, text), (text + "2", text, text)],
            feedback={text: f"feedback/{text[:100]}.html"},
        ),
    )


INLINE = {"a", "b", "bdi", "code"}


class Skeleton(HTMLParser):
    """Elements and attributes of a page, in order, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.others = [], "", []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.text += "" if tag in INLINE else " "
        self.tags.append((tag, [(name, _place(value)) for name, value in attrs]))

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.others.append(data)

    unknown_decl = handle_pi = handle_comment


def _place(value):
    """An attribute's value, without the name of a feedback page's file."""
    return re.sub(r"^\./feedback/[\w.~%/-]+\.html$", "./feedback/", value or "")


@pytest.fixture(params=["feedback", "summary"])
def page(request):
    """One of the two kinds of page, as a function of the text that stands everywhere in it."""
    return lambda text: both_pages(text)[request.param == "summary"]


# What came from a submission stays text --------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_element_or_attribute_comes_from_a_submission(text, page):
    found, wanted = Skeleton(page(text)), Skeleton(page("harmless"))
    assert found.tags == wanted.tags
    assert found.others == []


def test_the_check_above_would_notice_an_element(page):
    assert Skeleton(page("harmless").replace("harmless", "<b>", 1)).tags != Skeleton(page("harmless")).tags


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_pages_can_be_written_and_hide_nothing(text, page):
    written = page(text).encode("utf-8").decode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", written)


def test_hidden_characters_are_named(page):
    text = Skeleton(page("a\x00b\u202ec\ud800d")).text
    assert "a[U+0000]b[U+202E]c[U+D800]d" in text


def test_names_in_any_script_stay_as_they_are():
    for name in ("Zoë Müller", "محمد بن موسى", "陈省身", "O'Neil & Söhne <3", "👩🏽‍🔬"):
        assert f"Feedback for {name}" in Skeleton(feedback_page([report(student=name)])).text
        assert name in Skeleton(summary_page([report(student=name)])).text


def test_scripts_and_requests_are_forbidden(page):
    text = page("x")
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    tags = [tag for tag in Skeleton(text).tags if not isinstance(tag, str)]
    policy = next(
        i for i, (_, attributes) in enumerate(tags) if ("http-equiv", "Content-Security-Policy") in attributes
    )
    assert [name for name, _ in tags[:policy]] == ["html", "head", "meta"]
    names = {name for name, _ in tags}
    assert not names & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "svg", "video"}
    addresses = [value for _, attributes in tags for name, value in attributes if name in ("href", "src")]
    assert [a for a in addresses if not a.startswith(("#", "./"))] == []
    assert not re.search(r"url\(|@import", text)


def test_a_link_to_a_feedback_page_never_has_a_scheme():
    text = summary_page([report(student="Ada")], feedback={"Ada": 'javascript:alert(1)//"><b>'})
    links = [
        dict(a)["href"]
        for tag in Skeleton(text).tags
        if not isinstance(tag, str)
        for a in [tag[1]]
        if tag[0] == "a"
    ]
    assert [link for link in links if "alert" in link] == [
        "./javascript%3Aalert%281%29//%22%3E%3Cb%3E"
    ] * sum("alert" in link for link in links)
    assert any("alert" in link for link in links)


# Length ----------------------------------------------------------------------------------------------------


def test_ten_megabytes_make_no_ten_megabyte_page(page):
    text = page("<" * 10_000_000)
    assert len(text) < 2_000_000
    assert "more characters are left out" in text


def test_what_was_cut_is_counted():
    text = feedback_page([report(answers=(answer(source="y" * (pages.MAX_TEXT + 1234)),))])
    assert "[1,234 more characters are left out]" in text
    assert "y" * pages.MAX_TEXT in text


def test_long_lists_are_cut_and_counted():
    many = tuple(f"sentence {i}" for i in range(1000))
    text = Skeleton(feedback_page([report(answers=(answer(notes=many, mistake=""),), tampering=many)])).text
    assert f"… and {1000 - pages.MAX_ITEMS} more remarks." in text
    assert f"… and {1000 - pages.MAX_ITEMS} more." in text
    text = Skeleton(summary_page([report(remarks=many)], problems=many)).text
    assert f"… and {1000 - pages.MAX_ROWS} more." in text


# What the feedback page says -------------------------------------------------------------------------------


def text_of(page):
    return " ".join(Skeleton(page).text.split())


WORDS = {
    "right": "✓ Right 1 of 1",
    "known mistake": "✗ Not right yet 0 of 1",
    "not right": "✗ Not right yet 0 of 1",
    "not attempted": "○ Not attempted 0 of 1",
    "error": "✗ Raised an error 0 of 1",
    "timeout": "■ Ran out of time 0 of 1",
    "dead": "■ Ended early 0 of 1",
    "flood": "■ Too much output 0 of 1",
    "unreadable": "■ Could not be read 0 of 1",
}


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_every_verdict_has_words_and_a_sentence(verdict):
    score = 1 if verdict == "right" else 0
    given = Answer("1.3", "verdict-1-3", "Class saliency", 1, score, verdict, mistake="")
    text = text_of(feedback_page([report(answers=(given,))]))
    assert f"1.3 Class saliency {WORDS[verdict]}" in text
    if verdict not in ("right", "known mistake"):  # those always come with sentences
        assert pages.MEANINGS[verdict].replace("`", "") in text


def test_a_known_mistake_is_said_once_and_partial_credit_has_its_reason():
    mistake = "You average over the channels: use `.max(axis=1)`."
    given = answer(
        "z",
        "known mistake",
        points=2,
        score=0.5,
        mistake=mistake,
        notes=(mistake,),
        partial="The sign is right.",
    )
    page = feedback_page([report(answers=(given,))])
    assert page.count("You average over the channels: use <code>.max(axis=1)</code>.") == 1
    assert "◐ Partly right 0.5 of 2" in text_of(page)
    assert "Why 0.5 of 2: The sign is right." in text_of(page)


def test_free_answers_wait_until_a_person_has_read_them():
    texts = (
        FreeText("discuss-1", "**Why?**", 2, "markdown", "Because.", True),
        FreeText("discuss-2", "# And?", 3, "markdown", "So.", True),
        FreeText("discuss-3", "", 4, "markdown", "YOUR ANSWER HERE", False),
    )
    given = {(LAB, "discuss-2"): (2.5, "Which number?"), ("02_other", "discuss-1"): (2, "of another lab")}
    mine = report(lab=LAB, answers=(), free_texts=texts)
    text = text_of(feedback_page([mine], manual=given))
    assert (
        "Free answer: discuss-1 … A person will read this 2 possible The question Why? Your answer Because."
        in text
    )
    assert "Free answer: discuss-2 ✎ Read by a person 2.5 of 3 Which number? The question And?" in text
    assert "Free answer: discuss-3 ○ Not attempted 0 of 4" in text
    assert "YOUR ANSWER HERE" not in text and "of another lab" not in text
    assert "Free answers: 2.5 of 9 points, 1 still to be read." in text


def test_a_score_set_by_a_person_counts_for_an_exercise():
    given = Answer("1.3", "verdict-1-3", "Class saliency", 2, 0, "not right")
    text = text_of(
        feedback_page(
            [report(lab=LAB, answers=(given,))], manual={(LAB, "verdict-1-3"): (2, "You are right.")}
        )
    )
    assert "1.3 Class saliency ✗ Not right yet 2 of 2" in text
    assert "A person has set this score; the automatic one was 0 of 2. You are right." in text
    assert "Exercises: 2 of 2 points." in text


def test_lateness_edits_and_appeals_are_told():
    mine = report(lab=LAB, tampering=("The check of exercise 1.2 was edited.",))
    text = text_of(feedback_page([mine], late={LAB: "One day late: 10 % less."}))
    assert "One day late: 10 % less." in text
    assert "This can happen by accident." in text and "The check of exercise 1.2 was edited." in text
    assert "If you think that a score is wrong Tell your instructor" in text
    assert "differ from the lab" not in text_of(feedback_page([report(lab=LAB, tampering=())]))


def test_all_labs_of_a_student_are_on_one_page_in_order():
    labs = ("03_cats_vs_dogs_gradcam", "01_numpy_saliency")
    text = text_of(feedback_page([report(lab=lab) for lab in labs]))
    first, second = (
        text.rindex(f"Lab {words}") for words in ("01: numpy saliency", "03: cats vs dogs gradcam")
    )
    assert first < second


def test_a_notebook_without_anything_in_it_is_explained():
    text = text_of(feedback_page([report(answers=(), free_texts=())]))
    assert "Nothing in this file could be graded." in text


@pytest.mark.parametrize("students", [[], ["Ada", "Ben"]], ids=["nobody", "two"])
def test_a_page_is_for_one_student(students):
    with pytest.raises(ValueError, match="one student"):
        feedback_page([report(student=student) for student in students])


def test_remarks_for_the_instructor_are_not_for_the_student():
    mine = report(remarks=("The kernel tried to read the gradebook.",))
    assert "gradebook" not in feedback_page([mine])
    assert "The kernel tried to read the gradebook." in summary_page([mine])


# What the summary says -------------------------------------------------------------------------------------


def class_of_three():
    """Ada made a mistake that Ben makes, too; Cleo is right, and her process died once."""

    def graded(student, *answers, **changes):
        return report(
            student=student,
            lab=LAB,
            **{"tampering": (), "remarks": (), "free_texts": ()} | changes,
            answers=answers,
        )

    def pooling(verdict, mistake=""):
        score = float(verdict == "right")
        return Answer("1.10", "verdict-1-10", "Pooling", 1, score, verdict, mistake=mistake)

    def convolution(verdict, mistake="", notes=()):
        score = float(verdict == "right")
        return Answer("1.9", "verdict-1-9", "Convolution", 1, score, verdict, notes, mistake)

    return [
        graded("Ben", pooling("known mistake", "Use `max`."), convolution("right")),
        graded("Ada", pooling("known mistake", "Use `max`."), convolution("known mistake", "Flip it.")),
        graded("Cleo", pooling("right"), convolution("dead", notes=("It took 9 GB.",))),
    ]


def test_the_summary_has_scores_and_mistakes():
    text = text_of(summary_page(class_of_three()))
    assert "Student Lab 01 Sum Ada 0 of 2 0 of 2 Ben 1 of 2 1 of 2 Cleo 1 of 2 1 of 2" in text
    assert "90 to 100 % 0" in text and "50 to 60 % 2" in text and "0 to 10 % 1" in text
    assert "1.9 Convolution 33 % right right: 1 known mistake: 1 dead: 1 1 × Flip it." in text
    assert "1.10 Pooling 33 % right right: 1 known mistake: 2 2 × Use max." in text
    assert text.index("1.9 Convolution") < text.index("1.10 Pooling")
    assert "Cleo 1.9, dead: It took 9 GB." in text


def test_the_summary_names_what_needs_a_person():
    free = (
        FreeText("discuss-1", "?", 2, "markdown", "So.", True),
        FreeText("discuss-2", "?", 2, "markdown", "", False),
    )
    reports = [report(student=name, lab=LAB, free_texts=free) for name in ("Ada", "Ben")]
    assert "Lab 01: numpy saliency, discuss-1 (2): Ada, Ben" in text_of(summary_page(reports))
    left = text_of(summary_page(reports, manual_left=[("Ben", LAB, "discuss-1")]))
    assert "Lab 01: numpy saliency, discuss-1 (1): Ben" in left
    assert "Nothing waits." in text_of(summary_page(reports, manual_left=[]))
    assert "discuss-2" not in left


def test_the_summary_lists_problems_edits_and_likenesses():
    reports = class_of_three()
    reports.append(report(student="Dan", lab=LAB, tampering=("The check of exercise 1.2 was edited.",)))
    pairs = [Likeness(("Ada", "Ben"), LAB, key, 0.87, "Equal up to names.") for key in ("1.9", "discuss-1")]
    text = text_of(summary_page(reports, problems=["`x.ipynb` carries no name."], alike=pairs))
    assert "x.ipynb carries no name." in text
    assert "Dan Lab 01: numpy saliency, x The check of exercise 1.2 was edited." in text
    assert "Ada and Ben: 2 answers" in text
    assert "Lab 01: 1.9 Ada, Ben Equal up to names. 0.87" in text
    assert "no proof" in text


def test_an_empty_summary_says_so():
    text = text_of(summary_page([]))
    assert "No notebook was graded." in text and "Every file was understood." in text


# For every reader ------------------------------------------------------------------------------------------


def test_headings_come_in_order(page):
    levels = [int(tag[0][1]) for tag in Skeleton(page("x")).tags if re.fullmatch(r"h\d", tag[0])]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))


def test_language_ids_and_labels(page):
    tags = [(tag[0], dict(tag[1])) for tag in Skeleton(page("x")).tags if not isinstance(tag, str)]
    assert ("html", {"lang": "en"}) in tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [a["aria-labelledby"] for _, a in tags if "aria-labelledby" in a]
    links = [a["href"][1:] for _, a in tags if a.get("href", "").startswith("#")]
    assert named and set(named) | set(links) <= set(ids)


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out(theme):
    """WCAG's 4.5 : 1, for every colour of text on every background that it can stand on."""
    colours = dict(re.findall(r"--(\w+): (#\w{6})", pages._STYLE.split(":root {")[1 + theme]))
    text = {"text", "quiet", "right", "partly", "wrong", "stopped", "blank", "link"}
    assert text < set(colours)
    for name in text:
        for behind in ("page", "card", "code"):
            one, other = sorted((_luminance(colours[name]), _luminance(colours[behind])))
            assert (other + 0.05) / (one + 0.05) >= 4.5, f"{name} on {behind}"


# In a browser ----------------------------------------------------------------------------------------------

OUTLINE = """() => [...document.querySelectorAll('*')].map(element => [
    element.tagName,
    ...[...element.attributes].map(a => a.name + '=' + a.value.replace(/^.[/]feedback.*/, ''))])"""


@pytest.fixture(scope="module")
def chromium():
    if reason := missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def _opened(chromium, path, text, **options):
    """The page with this HTML, and what it did: dialogs, messages of the console, errors, requests."""
    path.write_text(text, encoding="utf-8")
    page, did = chromium.new_page(**options), []
    page.on("dialog", lambda dialog: (did.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda message: did.append(f"console {message.text}"))
    page.on("pageerror", lambda error: did.append(f"error {error}"))
    page.on("request", lambda request: did.append(f"request {request.url}"))
    page.goto(path.as_uri())
    page.wait_for_timeout(100)
    did.remove(f"request {path.as_uri()}")
    return page, did


def test_hostile_texts_do_nothing_in_the_browser(chromium, tmp_path):
    everything = {"everything": " ".join(HOSTILE.values())}
    for kind, (texts, harmless) in enumerate(
        zip((HOSTILE | everything, everything), both_pages("harmless"), strict=True)
    ):
        path = tmp_path / "page.html"
        page, did = _opened(chromium, path, harmless)
        assert did == []
        wanted = page.evaluate(OUTLINE)
        assert len(wanted) > 100
        for name, text in texts.items():
            path.write_text(both_pages(text)[kind], encoding="utf-8")
            page.goto(path.as_uri())
            assert page.evaluate(OUTLINE) == wanted, name
            assert did == [f"request {path.as_uri()}"], name
            did.clear()
        page.wait_for_timeout(200)
        assert did == []
        page.close()


def test_the_policy_alone_stops_a_script_in_the_browser(chromium, tmp_path):
    """Were a text ever not escaped, the page's second guard holds."""
    attack = "<script>window.done = 1</script><img src=x onerror='window.done = 1'>"
    for text in both_pages("harmless"):
        broken = text.replace("</main>", f"{attack}</main>")
        page, did = _opened(chromium, tmp_path / "page.html", broken)
        assert page.evaluate("window.done") is None
        assert [what for what in did if "Content Security Policy" in what]
        page.close()
        unguarded = broken.replace("Content-Security-Policy", "x")
        page, _ = _opened(chromium, tmp_path / "page.html", unguarded)
        assert page.evaluate("window.done") == 1
        page.close()


def test_pages_fit_a_narrow_screen_in_the_browser(chromium, tmp_path):
    for text in ("a few words", "W" * 5000):
        for html in both_pages(text):
            page, _ = _opened(chromium, tmp_path / "page.html", html, viewport={"width": 320, "height": 600})
            page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth") == 320
            page.close()
