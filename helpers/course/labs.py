"""`python -m helpers.course labs`: copy the labs that are not there yet into work/, where students write.

A lab that is there is never touched: neither an update of the course nor a new release can cost an answer.
"""

import argparse
import os
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`labs` takes no arguments."""


def main(args: argparse.Namespace) -> int:
    """Copy, and say in one line per lab what was done. 1 if that was not possible."""
    labs, work = ROOT / "labs", ROOT / "work"
    try:
        copied, kept = copy_missing(labs, work)
    except OSError as error:
        print(f"The labs could not be copied: {error}. Make sure you may write to {work}, then try again.")
        return 1
    if not copied and not kept:
        print(f"There is no lab in {labs}. Get the whole repository, not the package alone.")
        return 1
    for name in copied:
        print(f"work/{name}: new")
    for name in kept:
        print(f"work/{name}: yours, left as it is (for a fresh copy, rename it and start again)")
    return 0


def copy_missing(labs: Path, work: Path) -> tuple[list[str], list[str]]:
    """Copy each notebook of `labs` that `work` has not; return the names of the copied and of the kept ones.

    `work` is made if needed. Raises `OSError` if that or a copy fails; what is half-written has another name.
    """
    work.mkdir(exist_ok=True)
    copied, kept = [], []
    for lab in sorted(labs.glob("*.ipynb")):
        target = work / lab.name
        if os.path.lexists(target):
            kept.append(lab.name)
            continue
        part = target.with_suffix(".part")
        shutil.copyfile(lab, part)
        part.replace(target)
        copied.append(lab.name)
    return copied, kept
