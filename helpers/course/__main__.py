"""`python -m helpers.course COMMAND`: one small module of this package per command.

A command's module offers `add_arguments(parser)` and `main(args) -> int`, the exit status. Only the module of
the chosen command is imported, so that `doctor` still runs where half of the packages are missing.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "labs": "copy the labs that are not there yet into work/",
    "submit": "check your notebook of a lab and make the file to hand in",
    "grade": "grade what students handed in",
    "doctor": "check Python, packages, memory, disk, data and network for the labs",
    "refresh": "run solutions/ and store the outputs that the tests compare",
    "release": "write labs/ from solutions/",
    "variant": "make an exam with one network per student, and grade it",
    "standins": "train the small networks that stand in for ImageNet weights",
    "bench": "measure speed and memory against the goals of the course",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command named first in `arguments` and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m helpers.course", description="Keep the course in order.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    module = None
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose.capitalize() + ".")
        if list(arguments[:1]) == [name]:
            module = importlib.import_module(f"helpers.course.{name}")
            module.add_arguments(command)
    args = parser.parse_args(arguments)
    return module.main(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
