"""What is committed: outputs fit for nbval, labs without answers, alt text, links, colours, times."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from helpers.course import notebooks, refresh, release

ROOT = notebooks.ROOT
SOLUTIONS = sorted(notebooks.SOLUTIONS.glob("*.ipynb"))
LABS = sorted(notebooks.LABS.glob("*.ipynb"))
PROSE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md")]
MAX_BYTES = 500_000

UNFIT_FOR_NBVAL = {
    "clear_output": "nbval keeps what was cleared",
    "display_id": "nbval ignores updates of a display",
    "tqdm.auto": "it stores the state of a widget; use plain tqdm",
    "tqdm.notebook": "it stores the state of a widget; use plain tqdm",
    "os.system": "its output arrives at any time",
    "%time": "it prints times, which differ from run to run",
}
UNFIT_TO_STORE = {
    r"\b0x[0-9a-fA-F]{6,}": "an address in memory",
    r"(?:/[\w.+-]+){3,}|[A-Z]:\\": "a path of this machine",
    r"~ ?(?:nan|[-+]?inf)": "a live number that is none",
    r"\d ?(?:it/s|s/it|ms|µs)\b": "a time without a tilde",
}


USES_JET = re.compile(r"""(["'])jet(?:_r)?\1|\.jet\b""")


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# The checks: each yields a sentence per fault.


def unfit_outputs(notebook: NotebookNode) -> Iterator[str]:
    """What keeps nbval from comparing the notebook, or makes the comparison depend on the machine."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "the cells were not run in order from the top; run `make solutions`"
    for cell in code:
        where = f"cell [{cell.execution_count}]"
        if cell.source.rstrip().endswith(";"):
            yield f"{where}: nbval shows the value in spite of the semicolon at the end; assign it to a name"
        yield from (f"{where}: {word}: {why}" for word, why in UNFIT_FOR_NBVAL.items() if word in cell.source)
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"{where} stores an error or a warning"
            text = output.get("text", "") + output.get("data", {}).get("text/plain", "")
            text = re.sub(r"~ ?\d[\d.,]*", "~", text)  # masked by nbval_settings.py
            yield from (
                f"{where} stores {what}" for regex, what in UNFIT_TO_STORE.items() if re.search(regex, text)
            )


class _Images(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.alts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.alts.append(dict(attributes).get("alt") or "")


def undescribed_figures(notebook: NotebookNode) -> Iterator[str]:
    """Pictures without a sentence that says what is to be seen, and widgets, which nothing describes."""
    for number, cell in enumerate(notebook.cells, 1):
        alts = re.findall(r"!\[(.*?)\]\(", cell.source) if cell.cell_type == "markdown" else []
        html = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            bare = [kind for kind in data if kind.startswith("image/") or "widget" in kind]
            yield from (f"cell {number} shows a bare {kind}; use helpers.overlay.show" for kind in bare)
            html.append(data.get("text/html", ""))
        alts += [alt for text in html for alt in _Images(text).alts]
        for alt in alts:
            if len(alt.split()) < 4 or not alt.rstrip().endswith("."):
                yield f"cell {number}: alt text {alt!r} is not a sentence"


def dead_links(text: str, folder: Path) -> Iterator[str]:
    """Links in Markdown that cannot work: no target, not https, or a file that is not there."""
    text = re.sub(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$", "", text, flags=re.DOTALL)
    yield from (
        f"space inside the link {found!r}" for found in re.findall(r"\[[^\]\n]+\] \(http[^)]*\)?", text)
    )
    for target in re.findall(r"\]\(([^)]*)\)", text):
        address = target.split(' "')[0].strip("<>")
        if re.match(r"[a-z]+:", address):
            if not re.fullmatch(r"(https://[\w.-]+\.\w+(/\S*)?|mailto:\S+@\S+|attachment:\S+)", address):
                yield f"the address {address!r} is not https"
        elif address.startswith("#"):
            continue  # JupyterLab and the forge make different anchors of one heading
        elif not address or not (folder / address.split("#")[0]).exists():
            yield f"the file {address!r} is not there"


def markdown_of(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def code_of(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def leaked_answers(solution: NotebookNode, lab: NotebookNode) -> Iterator[str]:
    """Solutions, model answers and marking schemes of `solution` that can be read in `lab`."""
    visible = "\n\n".join(cell.source for cell in lab.cells)
    for marker in (notebooks.BEGIN, notebooks.END, "MARK SCHEME", "HIDDEN TESTS"):
        if marker in visible:
            yield f"the marker {marker}"
    unindented = re.sub(r"(?m)^\s+", "", visible)
    for number, cell in enumerate(solution.cells, 1):
        if cell.metadata.get("nbgrader", {}).get("solution"):
            _, begin, rest = cell.source.partition(notebooks.BEGIN)
            answer = rest.partition(notebooks.END)[0] if begin else cell.source
            lines = [line.strip() for line in answer.split("\n") if line.strip()]
            if "\n".join(lines) in unindented or (not begin and any(line in visible for line in lines)):
                yield f"the answer of cell {number}"


# The checks applied to what is committed.


def test_there_are_labs_and_they_are_in_step():
    from helpers.exercises import registry

    assert release.differences(notebooks.SOLUTIONS, notebooks.LABS, registry) == []


@pytest.mark.parametrize("path", SOLUTIONS + LABS, ids=named)
def test_notebook_is_small_and_carries_no_traces(path):
    notebook = notebooks.read(path)
    assert path.stat().st_size < MAX_BYTES
    assert notebook.metadata["kernelspec"] == notebooks.KERNELSPEC
    assert set(notebook.metadata) <= {"kernelspec", "language_info", "course"}
    assert not {key for cell in notebook.cells for key in cell.metadata} - notebooks.CELL_METADATA


@pytest.mark.parametrize("path", SOLUTIONS, ids=named)
def test_stored_outputs_can_be_compared(path):
    assert list(unfit_outputs(notebooks.read(path))) == []


@pytest.mark.parametrize("path", SOLUTIONS + LABS, ids=named)
def test_figures_are_described(path):
    assert list(undescribed_figures(notebooks.read(path))) == []


@pytest.mark.parametrize("path", SOLUTIONS + LABS, ids=named)
def test_colour_maps_are_readable_for_everyone(path):
    """`jet` is neither even nor readable for colour-blind people: once, to show that, and never else."""
    assert len(USES_JET.findall(code_of(notebooks.read(path)))) <= 1


@pytest.mark.parametrize("path", LABS, ids=named)
def test_labs_give_no_answer_away(path):
    assert list(leaked_answers(notebooks.read(notebooks.SOLUTIONS / path.name), notebooks.read(path))) == []


@pytest.mark.parametrize("path", SOLUTIONS + LABS + PROSE, ids=named)
def test_links(path):
    text = markdown_of(notebooks.read(path)) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")
    assert list(dead_links(text, path.parent)) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=named)
def test_stated_times_are_the_measured_ones(path):
    """What `refresh --times` measured stands in the metadata, the lab's opening and the README's table."""
    notebook = notebooks.read(path)
    course = notebook.metadata["course"]
    assert refresh.times_line(course) in markdown_of(notebook).split("\n")
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("\n")
    (row,) = [line for line in readme if line.startswith("|") and path.stem in line]
    assert refresh.spoken_minutes(course["minutes_cpu"]) in row


# The checks notice what they are there for.


def html_output(text: str) -> NotebookNode:
    return new_output("display_data", {"text/html": text, "text/plain": "Figure"})


def printed(text: str) -> NotebookNode:
    return new_output("stream", text=text)


@pytest.mark.parametrize(
    "source, output, complaint",
    [
        ("x", printed("<Net object at 0x7f84817ec720>"), "an address"),
        ("x", printed("saved to /home/me/labs/a.png"), "a path"),
        ("x", printed("loss ~nan"), "a live number that is none"),
        ("x", printed("took 12.5 ms"), "a time without a tilde"),
        ("x", new_output("stream", name="stderr", text="oh"), "an error or a warning"),
        ("x", new_output("error", ename="ValueError", evalue="oh"), "an error or a warning"),
        ("plt.plot();", printed(""), "semicolon"),
        ("from tqdm.auto import tqdm", printed(""), "use plain tqdm"),
    ],
)
def test_unfit_outputs_are_noticed(source, output, complaint, sample):
    sample.cells = [new_code_cell(source, outputs=[output], execution_count=1)]
    (found,) = unfit_outputs(sample)
    assert complaint in found


def test_fit_outputs_pass(sample):
    fine = [printed("took ~12.5 ms; shape (2, 3), 1/2/3 of them, accuracy at least 75 %: True")]
    sample.cells = [new_code_cell("x", outputs=fine, execution_count=1)]
    assert list(unfit_outputs(sample)) == []
    sample.cells[0].execution_count = 3
    assert len(list(unfit_outputs(sample))) == 1


@pytest.mark.parametrize(
    "cell, faults",
    [
        (new_markdown_cell("![](a.png)"), 1),
        (new_markdown_cell('<img src="a.png">'), 1),
        (new_markdown_cell("![The map covers the ear of the cat.](a.png)"), 0),
        (new_code_cell("", outputs=[html_output('<img alt="heatmap" src="data:,">')]), 1),
        (new_code_cell("", outputs=[html_output('<img alt="The map covers the ear." src="data:,">')]), 0),
        (new_code_cell("", outputs=[html_output("<b>no picture</b>")]), 0),
        (new_code_cell("", outputs=[new_output("display_data", {"image/png": "aaaa"})]), 1),
        (
            new_code_cell(
                "", outputs=[new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}})]
            ),
            1,
        ),
    ],
)
def test_undescribed_figures_are_noticed(cell, faults, sample):
    sample.cells = [cell]
    assert len(list(undescribed_figures(sample))) == faults


@pytest.mark.parametrize(
    "text, faults",
    [
        ("[here](https://example.org/a?b=1#c) and [there](../data.txt#top) and [above](#goals)", 0),
        ("[plain](http://example.org)", 1),
        ("[no host](https://)", 1),
        ("[gone](missing.md)", 1),
        ("[empty]()", 1),
        ("[apart] (https://example.org)", 1),
        ("`a[0](x)` and $f[0](x)$", 0),
    ],
)
def test_dead_links_are_noticed(text, faults, tmp_path):
    (tmp_path / "data.txt").touch()
    (tmp_path / "labs").mkdir()
    assert len(list(dead_links(text, tmp_path / "labs"))) == faults


def test_leaked_answers_are_noticed(sample, registry, tmp_path):
    path = tmp_path / "00_sample.ipynb"
    nbformat.write(sample, path)
    lab = nbformat.reads(release.released(path, registry), as_version=4)
    assert list(leaked_answers(sample, lab)) == []
    lab.cells += [
        new_markdown_cell("Because.\n### END MARK SCHEME"),
        new_code_cell("def g(x):\n        return 2 * x"),
    ]
    leaked = list(leaked_answers(sample, lab))
    assert leaked == ["the marker MARK SCHEME", "the answer of cell 3", "the answer of cell 8"]


@pytest.mark.parametrize(
    "code, uses",
    [
        ('plt.imshow(x, cmap="jet")', 1),
        ("plt.cm.jet(x)", 1),
        ("plt.get_cmap('jet_r')", 1),
        ("plt.jet()", 1),
        ('show(figure, "A ramp in jet and in inferno.")', 0),
    ],
)
def test_uses_of_jet_are_noticed(code, uses):
    assert len(USES_JET.findall(code)) == uses
