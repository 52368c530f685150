"""The command `mygo`."""

import argparse
import sys
from pathlib import Path

from serve_app.doctor import check_file


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 when all is well, 1 when something was found, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="mygo", description="Tools for MyGO Serve.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    doctor = commands.add_parser("doctor", help="check a configuration file strictly, before anything starts")
    doctor.add_argument("config", type=Path, help="the file that `serve run` gets, for example config.yaml")
    options = parser.parse_args(arguments)
    return _doctor(options.config)


def _doctor(path: Path) -> int:
    problems = check_file(path)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    sys.stdout.write(f"{path}: {f'{len(problems)} problem(s)' if problems else 'ok'}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
