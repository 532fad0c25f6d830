"""From what an instructor has, a folder or a zip, to submissions: who handed in what, and when.

Understood are a folder per student, files that carry a name, downloads from Moodle and Canvas (packed or
unpacked), nbgrader's `submitted/`, what `submit` makes, and folders of all these. Whose a file is, the
outermost name decides: what a student can write (a name inside an archive, a notebook's metadata) never beats
the platform's name or the instructor's folder. What is unclear becomes a problem, not a guess; a mapping file
(CSV: file,student and, if wanted, received) settles it.

Nothing is unpacked to disk and no link is followed. Limits are counted on what is really read, not on what an
archive says of itself, and each student has a budget of their own, so that a file costs only itself.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any, BinaryIO

from helpers.course import notebooks
from helpers.course.notebooks import CourseError
from helpers.course.submit import Stamp, slug, stamp_of

MEGABYTE = 1_000_000
FILE_LIMIT = 20 * MEGABYTE
STUDENT_LIMIT = 100 * MEGABYTE  # everything of one student, unpacked
TOTAL_LIMIT = 4000 * MEGABYTE  # everything, since it is held in memory
ARCHIVE_ENTRIES = 100_000  # of a platform's archive
STUDENT_ENTRIES = 2_000  # of one student, all archives together
NESTING = 3  # archives in a student's archive
DEPTH = 20  # folders in folders
MAX_NAME = 500  # letters
LEADS_OUT = "has a name that leads out of its archive"

JUNK = {".ds_store", "__macosx", "thumbs.db", "desktop.ini", ".ipynb_checkpoints", "__pycache__"}
NO_ZIP = (".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")
NOTEBOOK = re.compile(r"\.ipynb(\.txt|\.json)?$", re.IGNORECASE)  # some browsers add an ending

# What platforms call things. Moodle's number is of a person in one assignment, Canvas's of a person.
MOODLE = re.compile(r"(?P<name>.+)_(?P<id>\d+)_assignsubmission_(?P<kind>[a-z]+)_?(?P<rest>.*)")
CANVAS = re.compile(r"(?P<name>[^\W_]+)(?P<late>_LATE)?_(?P<id>\d+)_(?P<file>\d+)_(?P<rest>.+)")
# Words of a file name that name no person; where one stays beside a name, the name is not clear.
GENERIC = set(
    "lab labs exercise exercises assignment assignments homework hw ps task submission submissions submitted "
    "submit handin hand in solution solutions final new old copy kopie copie version draft attempt try "
    "download downloads export all students notebook notebooks untitled late group gradcam saliency work my "
    "mine done ok backup fixed corrected test".split()
)
ATTEMPT = re.compile(r"(attempt|try|version|v|submission|final|old|new|first|second|third|\d|[\W_])+", re.I)


@dataclass(frozen=True)
class Submission:
    """One notebook of one student, as it was handed in."""

    student: str  #: "ada_lovelace": lower case, no spaces
    lab: str  #: stem of the lab's file: "01_numpy_saliency"
    file: str  #: where it came from, as the instructor would recognise it
    content: bytes  #: b"" where it could not be read; a problem then says why
    received: datetime | None  #: UTC
    attempt: int = 1  #: from 1, in the order of time
    clock: str = ""  #: who says so: "mapping", "platform", "submit" (student's own), "nbgrader", "file", ""
    late: bool = False  #: Canvas wrote LATE into the file's name
    readable: bool = True  #: whether the content is JSON at all
    name: str = ""  #: as the platform, the folder or the file has it: "Ada Lovelace"


@dataclass(frozen=True)
class Intake:
    """Everything that was found."""

    submissions: list[Submission]
    problems: list[str]  #: what could not be understood or read; each is for the instructor to settle
    notes: list[str]  #: what was left aside, and what looks odd but was understood


def find_submissions(path: Path, *, mapping: Path | None = None, labs: Path = notebooks.LABS) -> Intake:
    """Everything handed in under `path`, a folder, an archive or a notebook.

    mapping: a CSV file with the columns file, student and, if wanted, received; a file is a path as the
    problems name it, in which * and ? stand for anything within one folder. labs: the notebooks as released.
    Raises CourseError where nothing can be read at all, or the mapping is malformed.
    """
    path = Path(path)
    stems = [lab.stem for lab in sorted(Path(labs).glob("*.ipynb"))]
    if not stems:
        raise CourseError(f"There is no lab in {labs}; run this in a checkout of the course.")
    try:
        resolved = path.resolve(strict=True)  # the instructor may well have named a link
    except (OSError, RuntimeError) as error:
        raise CourseError(f"{path} cannot be opened; name a folder, a zip archive or a notebook.") from error
    reader = _Reader(_Labs(stems), _Mapping.read(mapping))
    root = _on_disk(resolved, "", path.name or resolved.name)
    if root.is_folder:
        if (resolved / "submitted").is_dir() and (resolved / "source").is_dir():
            root = _on_disk(resolved / "submitted", "", "submitted")
            reader.notes.append(f"{path.name} is an nbgrader course; only submitted/ in it was read.")
        reader.collection(root)
    else:
        root.path = root.name
        if root.is_zip:
            try:
                opened = _unpacked(root, None)
                reader.collection(opened)
                opened.close()
            except _Unreadable as error:
                raise CourseError(f"{path} cannot be read: it {error}; download it again.") from error
        elif NOTEBOOK.search(root.name):
            reader.entry(root, root)
        else:
            raise CourseError(f"{path} is neither a folder nor a zip archive nor a notebook; name one.")
    return reader.finish()


def latest(submissions: Iterable[Submission]) -> list[Submission]:
    """Of each student and lab the one that counts: the last that is readable, else the last."""
    counts: dict[tuple[str, str], Submission] = {}
    for submission in sorted(submissions, key=lambda s: (s.student, s.lab, s.readable, s.attempt)):
        counts[submission.student, submission.lab] = submission
    return list(counts.values())


# --------------------------------------------------------------------------- files, in folders and archives


class _Unreadable(Exception):
    """Why a file cannot be read, as the rest of a sentence that begins with "it"."""


class _TooLarge(_Unreadable):
    """It is larger than the limit."""


@dataclass
class _Budget:
    """What may still be unpacked and kept of one student."""

    size: int = field(default_factory=lambda: STUDENT_LIMIT)
    entries: int = field(default_factory=lambda: STUDENT_ENTRIES)


@dataclass
class _Node:
    """A file or folder, on disk or in an archive."""

    name: str
    path: str  #: as the instructor knows it, with "/"
    open: Callable[[], BinaryIO]  #: raises OSError and whatever zipfile raises
    inside: Callable[[], list[_Node]] | None = None  #: of a folder: what is in it
    time: datetime | None = None
    packed: bool = False
    refused: str = ""  #: why it must not be opened, as the rest of a sentence that begins with "it"
    close: Callable[[], None] | None = None  #: of an opened archive

    @property
    def is_folder(self) -> bool:
        return self.inside is not None

    @property
    def is_zip(self) -> bool:
        return not self.is_folder and self.name.lower().endswith(".zip")

    def children(self) -> list[_Node]:
        """What is in a folder, without the files that systems leave there. Raises _Unreadable."""
        try:
            nodes = self.inside() if self.inside and not self.refused else []
        except OSError as error:
            raise _Unreadable(f"cannot be read ({error.strerror})") from error
        kept = [node for node in nodes if node.name.lower() not in JUNK and not node.name.startswith("._")]
        return sorted(kept, key=lambda node: (node.name.casefold(), node.name))

    def read(self, limit: int) -> bytes:
        """The content, of at most `limit` bytes. Raises _Unreadable."""
        if self.refused:
            raise _Unreadable(self.refused)
        try:
            chunks, size = [], 0
            with self.open() as file:  # in pieces: zipfile would hold several times what is asked for
                while size <= limit and (chunk := file.read(min(MEGABYTE, limit + 1 - size))):
                    chunks.append(chunk)
                    size += len(chunk)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error) as error:
            raise _Unreadable("is damaged in its archive") from error
        except (OSError, RuntimeError, ValueError) as error:
            raise _Unreadable(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if size > limit:
            raise _TooLarge(f"is larger than {limit // MEGABYTE} MB")
        return b"".join(chunks)


def _on_disk(file: Path, path: str, name: str = "") -> _Node:
    """The node of a file or folder on disk; links, pipes and devices are refused."""
    node = _Node(name or _clean(file.name), path, lambda: _open(file))
    try:
        found = os.lstat(file)
    except OSError as error:
        node.refused = f"cannot be read ({error.strerror})"
        return node
    node.time = datetime.fromtimestamp(found.st_mtime, UTC)
    if stat.S_ISLNK(found.st_mode) or getattr(file, "is_junction", bool)():
        node.refused = "is a link, and links are not followed"
    elif stat.S_ISDIR(found.st_mode):

        def inside() -> list[_Node]:
            return [_on_disk(Path(item.path), _joined(path, _clean(item.name))) for item in os.scandir(file)]

        node.inside = inside
    elif not stat.S_ISREG(found.st_mode):
        node.refused = "is a pipe or a device, not a file"
    return node


def _open(file: Path) -> BinaryIO:
    """Open a file that is no link and no pipe, even if it has become one a moment ago."""
    flags = os.O_RDONLY
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # the last on Windows, the others elsewhere
        flags |= getattr(os, name, 0)
    descriptor = os.open(file, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "it is no file")
    return os.fdopen(descriptor, "rb")


def _unpacked(node: _Node, budget: _Budget | None) -> _Node:
    """An archive as a folder. budget: of the student whose it is, None if it is a platform's.

    A platform's archive is read where it lies, if it lies on disk. Raises _Unreadable.
    """
    if node.refused:
        raise _Unreadable(node.refused)
    if budget is None and not node.packed:
        try:
            file = node.open()
        except OSError as error:
            raise _Unreadable(f"cannot be read ({error.strerror})") from error
    else:
        limit = STUDENT_LIMIT if budget is None else budget.size
        try:
            content = node.read(limit)
        except _TooLarge as error:
            whose = "is larger than what is left of" if budget else "is larger than"
            raise _Unreadable(f"{whose} {STUDENT_LIMIT // MEGABYTE} MB") from error
        if budget:
            budget.size -= len(content)
        file = io.BytesIO(content)
    allowed = ARCHIVE_ENTRIES if budget is None else budget.entries
    try:
        entries = _count_entries(file)
        if entries > allowed:  # counted before zipfile builds an object for each
            raise _Unreadable(f"holds more than {allowed} files")
        if budget:
            budget.entries -= entries
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, struct.error, NotImplementedError, EOFError) as error:
        file.close()
        raise _Unreadable("is no zip archive that can be opened") from error
    except _Unreadable:
        file.close()
        raise
    opened = _tree(archive, node)
    opened.close = file.close
    return opened


def _count_entries(file: BinaryIO) -> int:
    """An upper limit on the entries of a zip archive: how often the mark of an entry occurs in it."""
    mark, count, tail = b"PK\x01\x02", 0, b""
    file.seek(0)
    while chunk := file.read(1 << 20):
        count += (tail + chunk).count(mark)
        tail = chunk[-3:]
    file.seek(0)
    return count


def _tree(archive: zipfile.ZipFile, node: _Node) -> _Node:
    """Folders and files of an archive. What must not be opened stays in it as a refused file."""
    root: dict[str, Any] = {}
    refused: list[tuple[list[str], _Node]] = []
    files: list[tuple[list[str], zipfile.ZipInfo]] = []
    for info in archive.infolist():
        name = _name_of(info)
        parts = name.replace("\\", "/").split("/")
        is_folder = parts[-1] == ""
        parts = [_clean(part) for part in (parts[:-1] if is_folder else parts)]
        if not parts:
            continue  # a folder without a name
        if reason := _refusal(info, parts):
            if any(part.lower() in JUNK for part in parts):
                continue
            if reason == LEADS_OUT:
                parts = [part for part in parts if part not in ("", ".", "..")][-1:] or ["?"]
            parts = parts[:DEPTH]
            path = _joined(node.path, _clean(name)[:MAX_NAME])
            refused.append((parts, _Node(parts[-1], path, _never, None, _time_of(info), True, reason)))
        elif is_folder:
            _folder(root, parts)
        else:
            files.append((parts, info))
    result = _Node(node.name, node.path, _never, packed=True, time=node.time)
    for parts, entry in [*files, *refused]:
        _folder(root, parts[:-1]).setdefault("", []).append((parts[-1], entry))
    result.inside = lambda: _members(archive, root, node.path)
    return result


def _folder(root: dict[str, Any], parts: list[str]) -> dict[str, Any]:
    """The entry of a folder in a nested dict, in which "" leads to the files."""
    for part in parts:
        root = root.setdefault(part, {})
    return root


def _members(archive: zipfile.ZipFile, folder: dict[str, Any], path: str) -> list[_Node]:
    nodes = []
    for name, inner in folder.items():
        if name:
            where = _joined(path, name)
            inside = partial(_members, archive, inner, where)
            nodes.append(_Node(name, where, _never, inside, packed=True))
    for name, entry in folder.get("", []):
        if isinstance(entry, _Node):
            nodes.append(entry)
        else:
            where, opened = _joined(path, name), partial(archive.open, entry)
            nodes.append(_Node(name, where, opened, None, _time_of(entry), packed=True))
    return nodes


def _refusal(info: zipfile.ZipInfo, parts: list[str]) -> str:
    """Why an entry must not be opened, "" if it may."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if ".." in parts or "" in parts or "." in parts or re.fullmatch("[A-Za-z]:", parts[0] if parts else ""):
        return LEADS_OUT
    if sum(map(len, parts)) > MAX_NAME:
        return f"has a name of more than {MAX_NAME} letters"
    if len(parts) > DEPTH:
        return f"lies more than {DEPTH} folders deep"
    if kind == stat.S_IFLNK:
        return "is a link, and links are not followed"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a pipe or a device, not a file"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an unusual way, not as zip usually does"  # and LZMA could claim 4 GB
    return ""


def _never() -> BinaryIO:
    raise OSError(0, "it is no file")


def _name_of(info: zipfile.ZipInfo) -> str:
    """A name in an archive. Without a mark it is in code page 437, says the format; macOS writes UTF-8."""
    name = getattr(info, "orig_filename", info.filename).partition("\0")[0]
    if not info.flag_bits & 0x800:
        try:
            name = name.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return name


def _time_of(info: zipfile.ZipInfo) -> datetime | None:
    """When an entry was last changed; in this machine's time zone, if the archive does not say UTC."""
    extra = info.extra
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 0x5455 and size >= 5 and len(extra) >= 9 and extra[4] & 1:
            return datetime.fromtimestamp(struct.unpack("<i", extra[5:9])[0], UTC)
        extra = extra[4 + size :]
    try:
        local = datetime(*info.date_time)
        return None if local.year <= 1980 else local.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _clean(name: str) -> str:
    """A name as it can be shown: valid text, composed, without characters that control or turn a line."""
    if any("\ud800" <= c <= "\udfff" for c in name):
        raw = name.encode("utf-8", "surrogateescape" if os.name == "posix" else "replace")
        name = raw.decode("cp1252", "replace")
    name = unicodedata.normalize("NFC", name)
    return "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") else c for c in name)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


# --------------------------------------------------------------------------- names and labs


class _Labs:
    """The labs of the course, and what they are called in names of files."""

    def __init__(self, stems: list[str]) -> None:
        self.stems = stems
        self.by_number = {int(stem.partition("_")[0]): stem for stem in stems if re.match(r"\d+(_|$)", stem)}

    def of_notebook(self, notebook: Any, name: str) -> tuple[str, str]:
        """The lab of a notebook, "" if it is not clear, and an odd thing to note about it, "" if none."""
        by_name, _ = self.split(name)
        number = _course(notebook).get("lab")
        if number is not None:
            lab = self.by_number.get(_whole(number), "") or (number if number in self.stems else "")
            if lab and by_name and lab != by_name:
                return lab, f"its name says {by_name}, but it is {lab}"
            if lab:
                return lab, ""
            if by_name:
                return by_name, "its metadata names a lab that the course has not, so its name was believed"
        if by_name:
            return by_name, ""
        keys = re.findall(r"""^@exercise\(\s*["'](\d{1,4})\.""", _sources(notebook), re.MULTILINE)
        found = {self.by_number.get(int(key), "") for key in keys}
        return (found.pop() if len(found) == 1 else ""), ""

    def split(self, name: str) -> tuple[str, str]:
        """The lab in a name, "" if none, and what else the name says, without copies' marks and times."""
        stem = re.sub(r"(\.ipynb|\.txt|\.json|\.zip)+$", "", name, flags=re.IGNORECASE)
        stem = re.sub(r"\(\d{1,3}\)", " ", stem)  # a browser's second download
        stem = re.sub(r"[-_ ]\d{8}T\d{4,6}Z?(-\d{1,3})?(?=$|[-_ .])", " ", stem)  # what `submit` writes
        stem = re.sub(r"(?i)[-_ ]LATE(?=$|[-_ ])", " ", stem)
        for lab in sorted(self.stems, key=len, reverse=True):
            pattern = r"(?<![^\W_])" + re.sub(r"[_\W]+", r"[\\W_]*", lab) + r"(?![^\W_])(-\d{1,2}(?=\s*$))?"
            if found := re.search(pattern, stem, re.IGNORECASE):
                return lab, _trimmed(stem[: found.start()] + "_" + stem[found.end() :])
        pattern = r"(?i)(?<![^\W_])lab[ _-]*0*(\d{1,3})(?![^\W_])|^0(\d)(?![^\W_])|(?<=[ _])0(\d)$"
        found = re.search(pattern, stem)
        if found and (lab := self.by_number.get(int(found[1] or found[2] or found[3]))):
            return lab, _trimmed(stem[: found.start()] + "_" + stem[found.end() :])
        return "", _trimmed(stem)

    def person(self, name: str, with_lab: bool = True) -> str:
        """The person that a file is named after, "" if that is not clear.

        with_lab: the name has to name a lab, too; "my work.ipynb" would be a person otherwise.
        """
        lab, rest = self.split(name)
        return rest if _is_person(rest) and (lab or not with_lab) else ""

    def is_none(self, name: str) -> bool:
        """Whether a folder or archive is named after a lab or nothing in particular, so after no person."""
        _, rest = self.split(name)
        words = re.findall(r"[^\W_]+", rest.casefold())
        return all(word in GENERIC or re.fullmatch(r"[0-9]{1,2}|(19|20)[0-9]{2}", word) for word in words)


def _trimmed(text: str) -> str:
    return re.sub(r"[\s_]+", lambda found: "_" if "_" in found[0] else " ", text).strip(" _-.,")


def _is_person(rest: str) -> bool:
    """Whether what is left of a file's name can only be a person: words, or a number of a student."""
    words = re.findall(r"[^\W_]+", rest.casefold())
    if not words or any(word in GENERIC for word in words) or "\ufffd" in rest:
        return False
    if any(re.search(r"\d", word) and not re.fullmatch(r"[a-z]{0,3}\d{4,}", word) for word in words):
        return False  # ada2: a second copy, or a second Ada?
    return sum(len(word) for word in words) >= 2


def _course(notebook: Any) -> Mapping[str, Any]:
    try:
        course = notebook["metadata"]["course"]
    except (KeyError, TypeError, IndexError):
        return {}
    return course if isinstance(course, dict) else {}


def _whole(number: Any) -> int:
    text = str(number)
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else -1


def _sources(notebook: Any) -> str:
    """All code of a notebook of any format, as far as it has the shape of one."""
    found = []
    try:
        cells = notebook.get("cells") or [c for sheet in notebook["worksheets"] for c in sheet["cells"]]
        for cell in cells:
            source = cell.get("source", cell.get("input", "")) if cell.get("cell_type") == "code" else ""
            found.append(source if isinstance(source, str) else "".join(source))
    except (KeyError, TypeError, AttributeError):
        pass
    return "\n".join(found)


def _parsed(content: bytes) -> dict[str, Any] | None:
    """A notebook as JSON, None if it is not. What kind of notebook it is, the judge says."""
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError, MemoryError):
        return None
    return found if isinstance(found, dict) else None


# --------------------------------------------------------------------------- the mapping


@dataclass
class _Line:
    number: int
    pattern: str
    student: str
    received: datetime | None
    used: bool = False


@dataclass
class _Mapping:
    """What the instructor says about whose a file is."""

    lines: list[_Line] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path | None) -> _Mapping:
        if path is None:
            return cls()
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
        except OSError as error:
            reason = f"The mapping {path} cannot be read ({error.strerror}); check its name."
            raise CourseError(reason) from error
        except UnicodeDecodeError as error:
            raise CourseError(f"The mapping {path} is not UTF-8 text; save it as CSV UTF-8.") from error
        header = text.partition("\n")[0]
        delimiter = ";" if ";" in header else "\t" if "\t" in header else ","
        rows = csv.DictReader(io.StringIO(text), delimiter=delimiter)
        columns = [(name or "").strip().lower() for name in rows.fieldnames or []]
        if not {"file", "student"} <= set(columns):
            raise CourseError(f"The mapping {path} must begin with the line: file,student")
        rows.fieldnames = columns
        lines: dict[str, _Line] = {}
        for row in rows:
            where = f"The mapping {path}, line {rows.line_num}"
            file, student = (str(row[name] or "").strip() for name in ("file", "student"))
            if not file and not student:
                continue
            pattern = unicodedata.normalize("NFC", file).replace("\\", "/").removeprefix("./").strip("/")
            if not pattern or not slug(student):
                raise CourseError(f"{where}: it needs a file and a student; complete it.")
            received = cls._time(str(row.get("received") or "").strip(), where)
            line = _Line(rows.line_num, pattern, student, received)
            other = lines.setdefault(pattern, line)
            if slug(other.student) != slug(student):
                raise CourseError(f"{where}: line {other.number} gives {pattern} to another; delete one.")
        return cls(list(lines.values()))

    @staticmethod
    def _time(text: str, where: str) -> datetime | None:
        try:
            return datetime.fromisoformat(text).astimezone(UTC) if text else None
        except ValueError as error:
            advice = "write it like 2026-11-20T23:59+01:00"
            raise CourseError(f"{where}: {text!r} is no time; {advice}.") from error

    def of(self, path: str) -> _Line | None:
        """The line for a path: that which names it, else the first whose pattern fits."""
        found = next((line for line in self.lines if line.pattern == path), None)
        found = found or next((line for line in self.lines if _fits(path, line.pattern)), None)
        if found:
            found.used = True
        return found


def _fits(path: str, pattern: str) -> bool:
    """Whether a path fits a pattern, folder by folder: a * never reaches into what a student has named."""
    names, patterns = path.split("/"), pattern.split("/")
    return len(names) == len(patterns) and all(map(fnmatch.fnmatchcase, names, patterns))


def _mapping_line(path: str, student: str = "STUDENT") -> str:
    """A line for the mapping, as CSV wants it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([path, student])
    return out.getvalue()


# --------------------------------------------------------------------------- whose is it?


@dataclass
class _Owner:
    """Whose everything below an entry is."""

    name: str  #: as found: "Ada Lovelace"
    source: str  #: "mapping", "moodle", "canvas", "folder", "archive", "file"
    identity: tuple[str, ...]  #: two owners with one name and different identities are two people
    entry: str  #: the path that a line of the mapping would name
    budget: _Budget = field(default_factory=_Budget)
    received: datetime | None = None
    late: bool = False

    @property
    def student(self) -> str:
        return slug(self.name)


@dataclass
class _Found:
    """A submission, and what is needed to tell whether it is this student's."""

    submission: Submission
    owner: _Owner
    claims: frozenset[str]  #: students that names below the owner's own speak of
    order: tuple


class _Reader:
    """Goes through everything once and collects."""

    def __init__(self, labs: _Labs, mapping: _Mapping) -> None:
        self.labs = labs
        self.mapping = mapping
        self.found: list[_Found] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.aside: dict[str, list[str]] = {}
        self.owners: list[tuple[_Owner, bool]] = []  # and whether they handed in any notebook
        self.stamped: list[tuple[str, str, str]] = []  # student, the name that `submit` was told, path
        self.left = TOTAL_LIMIT

    # The instructor's level: names here are the platform's or the instructor's own

    def collection(self, folder: _Node, depth: int = 0) -> None:
        """A folder or archive of several students' things."""
        if depth > DEPTH:
            self.problems.append(f"{folder.path} lies more than {DEPTH} folders deep; it was left aside.")
            return
        children = self._children(folder)
        groups, others = [], []
        for child in children:
            opened = self._as_group(child)
            (groups if opened else others).append((child, opened))
        # Beside single students' folders, one that looks like a whole class may be a student's invention.
        persons = [child for child, _ in others if child.is_folder or child.is_zip]
        for child, opened in groups:
            if persons:
                self.problems.append(
                    f"{child.path} looks like a whole class's, but lies beside single students' "
                    f"({persons[0].name}); grade it by itself or, if it is one student's, add to the mapping "
                    f"file: {_mapping_line(child.path)}"
                )
            else:
                self.collection(opened, depth + 1)
            if opened.close:
                opened.close()
        for child, _ in others:
            self.entry(child, folder)

    def _children(self, folder: _Node) -> list[_Node]:
        try:
            return folder.children()
        except _Unreadable as error:
            self.problems.append(f"{folder.path or folder.name} was left aside: it {error}.")
            return []

    def _as_group(self, node: _Node) -> _Node | None:
        """The folder to go on with, if this is a whole class's; None if it is one person's, or a file."""
        if node.refused or not (node.is_folder or node.is_zip):
            return None
        if self.mapping.of(node.path) or _platform(node.name) or NOTEBOOK.search(node.name):
            return None
        try:
            opened = _unpacked(node, None) if node.is_zip else node
            children = opened.children()
        except _Unreadable:
            return None  # told when it is read as somebody's
        if any(_platform(child.name) for child in children) or self.labs.is_none(node.name):
            return opened
        if opened.close:
            opened.close()
        return None

    def entry(self, node: _Node, folder: _Node) -> None:
        """Something in a collection that belongs to one person."""
        owner = self._owner_of(node, folder)
        content = None
        if owner is None and NOTEBOOK.search(node.name) and not node.is_folder:
            owner, content = self._owner_by_content(node)
        if owner is None:
            if NOTEBOOK.search(node.name) or node.is_zip:
                why = f" (it {node.refused})" if node.refused else ""
                why += "; if it is a whole class's, grade it by itself" if node.is_zip else ""
                self.problems.append(
                    f"{node.path}: its name does not say clearly whose it is; add a line to the mapping "
                    f"file: {_mapping_line(node.path)}{why}"
                )
            elif node.refused or node.name.lower().endswith(NO_ZIP):
                self.problems.append(f"{node.path} was left aside: it {node.refused or 'is no zip archive'}.")
            else:
                self._aside("", node)
            return
        before = len(self.found)
        self._belongings(node, owner, (), content=content, top=True)
        self.owners.append((owner, len(self.found) > before))

    def _owner_of(self, node: _Node, folder: _Node) -> _Owner | None:
        if line := self.mapping.of(node.path):
            return self._mapped(line, node)
        if found := _platform(node.name):
            platform, match = found
            place = folder.path if platform == "moodle" else ""
            late = platform == "canvas" and bool(match["late"])
            identity = (platform, place, match["id"])
            return _Owner(match["name"].strip(), platform, identity, node.path, late=late)
        if node.is_folder and not NOTEBOOK.search(node.name) and slug(node.name):
            return _Owner(node.name, "folder", ("folder", folder.path, node.name), node.path)
        if not (node.is_zip or NOTEBOOK.search(node.name)):
            return None
        name = self.labs.person(node.name, with_lab=not node.is_zip)
        return _Owner(name, "archive" if node.is_zip else "file", (), node.path) if name else None

    def _owner_by_content(self, node: _Node) -> tuple[_Owner | None, bytes | None]:
        """Whose a notebook in a collection is, when its name does not say but `submit` made it."""
        try:
            content = node.read(FILE_LIMIT)
        except _Unreadable:
            return None, None
        stamp = _stamp(_parsed(content))
        if stamp and stamp.intact and slug(stamp.name):
            return _Owner(_clean(stamp.name), "file", (), node.path), content
        return None, content

    def _mapped(self, line: _Line, node: _Node, budget: _Budget | None = None) -> _Owner:
        owner = _Owner(line.student, "mapping", (), node.path, budget or _Budget(), line.received)
        if match := CANVAS.fullmatch(node.name):
            owner.late = bool(match["late"])
        return owner

    # A student's level: names here are the student's

    def _belongings(
        self,
        node: _Node,
        owner: _Owner,
        below: tuple[str, ...],
        content: bytes | None = None,
        nesting: int = 0,
        top: bool = False,
        packed_at: datetime | None = None,
    ) -> None:
        """Everything in `node` is the owner's.

        below: the names that lead from the owner's entry to the node; nesting: how many of them are archives;
        packed_at: the time of the outermost archive.
        """
        if not top and (line := self.mapping.of(node.path)):
            owner, below, top = self._mapped(line, node, owner.budget), (), True
        name = node.name
        if top and (found := _platform(name)) and not node.is_folder:
            name = found[1]["rest"] or name
        here = below if top else (*below, node.name)
        if NOTEBOOK.search(name):
            self._notebook(node, name, owner, below, content, packed_at)
        elif node.is_folder or (node.is_zip and not node.refused):
            self._inside(node, owner, here, nesting, packed_at)
        elif node.refused or name.lower().endswith(NO_ZIP):
            reason = node.refused or "is no zip archive; ask for the notebook itself"
            self.problems.append(f"{node.path} was left aside: it {reason}.")
        else:
            self._aside(owner.student, node)

    def _inside(
        self, node: _Node, owner: _Owner, here: tuple[str, ...], nesting: int, packed_at: datetime | None
    ) -> None:
        try:
            if len(here) > DEPTH:
                raise _Unreadable(f"lies more than {DEPTH} folders deep")
            if node.is_zip:
                if nesting >= NESTING:
                    raise _Unreadable(f"is nested in more than {NESTING} archives")
                packed_at = packed_at or node.time
                node, nesting = _unpacked(node, owner.budget), nesting + 1
            children = node.children()
        except _Unreadable as error:
            lab, _ = self.labs.split(node.name)
            self._unreadable(node, owner, lab, here, str(error), packed_at)
            return
        stamp_file = next((child for child in children if child.name == "timestamp.txt"), None)
        when = None
        if stamp_file and owner.source == "folder" and not nesting:
            when = _nbgrader_time(stamp_file)
            children = [child for child in children if child is not stamp_file or when is None]
        for child in children:
            inner = replace(owner, received=when) if when and owner.received is None else owner
            self._belongings(child, inner, here, nesting=nesting, packed_at=packed_at)

    def _notebook(
        self,
        node: _Node,
        name: str,
        owner: _Owner,
        below: tuple[str, ...],
        content: bytes | None,
        packed_at: datetime | None,
    ) -> None:
        by_name = next((lab for part in (name, *reversed(below)) if (lab := self.labs.split(part)[0])), "")
        try:
            if node.is_folder:
                raise _Unreadable("is a folder, not a notebook")
            if content is None:
                content = node.read(FILE_LIMIT)
            if len(content) > owner.budget.size:
                raise _Unreadable(f"goes beyond {STUDENT_LIMIT // MEGABYTE} MB for one student")
            if len(content) > self.left:
                raise _Unreadable(f"goes beyond {TOTAL_LIMIT // MEGABYTE} MB altogether; grade it by itself")
        except _Unreadable as error:
            self._unreadable(node, owner, by_name, below, str(error), packed_at)
            return
        owner.budget.size -= len(content)
        self.left -= len(content)
        notebook = _parsed(content)
        lab, odd = self.labs.of_notebook(notebook, name)
        lab = lab or by_name
        if not lab:
            self.problems.append(
                f"{node.path}: it is not clear which lab this is; give it the lab's name "
                f"(such as {self.labs.stems[0]}.ipynb)."
            )
            return
        if odd:
            self.notes.append(f"{node.path}: {odd}.")
        stamp = _stamp(notebook)
        received, clock = self._time(packed_at or node.time, node.packed, owner, stamp)
        claims = self._claims(name, below, stamp if stamp and stamp.intact else None)
        if stamp and stamp.intact:
            self.stamped.append((owner.student, slug(stamp.name), node.path))
        if stamp and not stamp.intact:
            self.notes.append(f"{node.path} was edited after `submit` made it; the time in it is ignored.")
        self._add(
            Submission(
                owner.student,
                lab,
                node.path,
                content,
                received,
                clock=clock,
                late=owner.late,
                readable=notebook is not None,
                name=owner.name,
            ),
            owner,
            claims,
            node.time,
        )

    def _unreadable(
        self,
        node: _Node,
        owner: _Owner,
        lab: str,
        below: tuple[str, ...],
        reason: str,
        packed_at: datetime | None,
    ) -> None:
        """Hand on what cannot be read, if it is clear which lab it was; it is a problem in any case."""
        if lab:
            received, clock = self._time(packed_at or node.time, node.packed, owner, None)
            submission = Submission(
                owner.student,
                lab,
                node.path,
                b"",
                received,
                clock=clock,
                late=owner.late,
                readable=False,
                name=owner.name,
            )
            self._add(submission, owner, self._claims(node.name, below, None), node.time)
            self.problems.append(f"{node.path} counts as unreadable: it {reason}.")
        else:
            self.problems.append(f"{node.path} was left aside: it {reason}.")

    def _add(
        self, submission: Submission, owner: _Owner, claims: frozenset[str], changed: datetime | None
    ) -> None:
        early = datetime.min.replace(tzinfo=UTC)
        # Canvas's and the browser's numbers of copies, "-1" and "(1)"; the first has none
        copy = re.search(r"[-(](\d{1,3})\)?\.ipynb", submission.file)
        numbers = [int(number) for number in re.findall(r"\d{1,15}", submission.file)]
        order = (submission.received or early, changed or early, int(copy[1]) if copy else 0, numbers)
        self.found.append(_Found(submission, owner, claims, (*order, submission.file)))

    def _claims(self, name: str, below: tuple[str, ...], stamp: Stamp | None) -> frozenset[str]:
        """The students that names below the owner's entry speak of: several, and it is a whole class's."""
        names = [part for part in below if not self.labs.is_none(part) and not ATTEMPT.fullmatch(part)]
        names = [self.labs.split(part)[1] for part in names]
        names += [self.labs.person(name), stamp.name if stamp else ""]
        return frozenset(student for part in names if (student := slug(part)))

    def _time(
        self, changed: datetime | None, packed: bool, owner: _Owner, stamp: Stamp | None
    ) -> tuple[datetime | None, str]:
        """When it was handed in, and who says so. changed: of the outermost thing that the owner made.

        Moodle dates the files in its archives itself; Canvas dates them by the download, so not at all. A
        file on disk has the time of its last copy. There the time that `submit` wrote is the better one.
        """
        if owner.received:
            return owner.received, "mapping" if owner.source == "mapping" else "nbgrader"
        platform = _platform(owner.entry.rpartition("/")[2])
        if platform and platform[0] == "moodle" and packed and changed:
            return changed, "platform"
        if stamp and stamp.intact and (changed is None or stamp.time <= changed + timedelta(days=1)):
            return stamp.time, "submit"
        if changed is None or (platform and platform[0] == "canvas"):
            return None, ""
        return changed, "file"

    def _aside(self, student: str, node: _Node) -> None:
        self.aside.setdefault(student, []).append(node.path)

    # The end

    def finish(self) -> Intake:
        self._withhold_namesakes()
        self._withhold_classes()
        for owner, any_notebook in self.owners:
            files = self.aside.get(owner.student, [])
            told = any(owner.entry in problem for problem in self.problems)
            has_other = any(item.owner.student == owner.student for item in self.found)
            if not any_notebook and not told and not has_other:
                what = f" (only {_some(files)})" if files else ""
                self.problems.append(f"{owner.entry} holds no notebook{what}; ask {owner.student} for it.")
        for student, files in sorted(self.aside.items()):
            whose = f" of {student}" if student else ""
            self.notes.append(f"Left aside{whose}, because they are no notebooks: {_some(files)}.")
        for line in self.mapping.lines:
            if not line.used:
                self.problems.append(
                    f"Line {line.number} of the mapping fits no file ({line.pattern}); correct or delete it."
                )
        self._note_look_alikes()
        self._note_others_files()
        attempts: dict[tuple[str, str], int] = {}
        submissions = []
        for item in sorted(self.found, key=lambda item: item.order):
            where = item.submission.student, item.submission.lab
            attempts[where] = attempts.get(where, 0) + 1
            submissions.append(replace(item.submission, attempt=attempts[where]))
        submissions.sort(key=lambda s: (s.student, s.lab, s.attempt))
        return Intake(submissions, list(dict.fromkeys(self.problems)), list(dict.fromkeys(self.notes)))

    def _withhold_namesakes(self) -> None:
        """Two people with one name: nobody's grade may move to the other."""
        people: dict[str, dict[tuple[str, ...], set[str]]] = {}
        for owner, _ in self.owners:
            if owner.identity:
                *place, number = owner.identity
                people.setdefault(owner.student, {}).setdefault(tuple(place), set()).add(number)
        doubled = {name for name, places in people.items() if any(len(ids) > 1 for ids in places.values())}
        for student in sorted(doubled):
            entries = {
                owner.entry: owner.identity
                for owner, _ in self.owners
                if owner.student == student and owner.source != "mapping"
            }
            numbers = {identity: n for n, identity in enumerate(dict.fromkeys(entries.values()), 1)}
            lines = [_mapping_line(entry, f"{student}_{numbers[entries[entry]]}") for entry in entries]
            self.problems.append(
                f"Several people are called {student}, so nothing of them is graded yet; tell them apart in "
                f"the mapping file: {' / '.join(lines)}"
            )
        self.found = [
            item for item in self.found if item.owner.student not in doubled or item.owner.source == "mapping"
        ]

    def _withhold_classes(self) -> None:
        """What was taken for one student's, though names in it speak of several: a folder of a group?"""
        groups: dict[str, list[_Found]] = {}
        for item in self.found:
            if item.owner.source in ("folder", "archive"):
                groups.setdefault(item.owner.entry, []).append(item)
        for entry, items in groups.items():
            claims: dict[str, set[str]] = {}
            for item in items:
                claims.setdefault(item.submission.lab, set()).update(item.claims)
            names = sorted(next((c for c in claims.values() if _different(c)), ()))
            if names:
                self.problems.append(
                    f"{entry} holds one lab under several names ({', '.join(names[:5])}), so nothing of it "
                    "is graded yet; if these are several students, grade it by itself, if one, add to "
                    f"the mapping file: {_mapping_line(entry)}"
                )
                self.found = [item for item in self.found if item.owner.entry != entry]

    def _note_look_alikes(self) -> None:
        students = sorted({item.owner.student for item in self.found})
        keys: dict[str, list[str]] = {}
        for student in students:
            keys.setdefault("".join(sorted(re.sub(r"[\W_]+", "", student))), []).append(student)
        for group in keys.values():
            for i, one in enumerate(group):
                for other in group[i + 1 :]:
                    if _same_person(one, other):
                        self.notes.append(
                            f"{one} and {other} may be one person; if so, map both to one name."
                        )

    def _note_others_files(self) -> None:
        """A file that `submit` made for one student, handed in by another."""
        students = {item.owner.student for item in self.found}
        for student, name, path in self.stamped:
            whose = {other for other in students - {student} if _same_person(other, name)}
            whose |= {other for other, stamp, _ in self.stamped if stamp == name and other != student}
            if whose and not _same_person(student, name):
                self.notes.append(
                    f"{path} was made by `submit` for {name}, which may be {' or '.join(sorted(whose))}; it "
                    f"is graded as {student}'s."
                )


def _platform(name: str) -> tuple[str, re.Match[str]] | None:
    """The platform that wrote this name, and its parts."""
    if match := MOODLE.fullmatch(name):
        return "moodle", match
    if match := CANVAS.fullmatch(name):
        return "canvas", match
    return None


def _stamp(notebook: Any) -> Stamp | None:
    return stamp_of(notebook) if isinstance(notebook, dict) else None


def _same_person(one: str, other: str) -> bool:
    """Whether two names are the same words, in any order and run together or not ("lovelaceada")."""
    words = [re.findall(r"[^\W_]+", slug(name)) for name in (one, other)]
    first, second = map(sorted, words)
    if first == second:
        return True
    joined = {"".join(w) for w in words if len(w) == 1}
    return any("".join(order) in joined for w in words if 1 < len(w) <= 5 for order in permutations(w))


def _different(names: set[str]) -> bool:
    """Whether at least two of the names are not the same person's."""
    first, *others = [*sorted(names), ""]
    return any(not _same_person(first, other) for other in others if other)


def _nbgrader_time(node: _Node) -> datetime | None:
    """The content of nbgrader's timestamp.txt: "2026-11-20 22:59:01.123456 UTC"."""
    try:
        text = node.read(200).decode("ascii").strip().removesuffix(" UTC")
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except (_Unreadable, ValueError):
        return None  # a zone of another name: names of zones are ambiguous


def _some(files: list[str]) -> str:
    shown = ", ".join(files[:4])
    return f"{shown} and {len(files) - 4} more" if len(files) > 4 else shown
