"""What every benchmark prints: a table for people, then one line of JSON."""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults of all options that have one, be they explained or not."""

    def add_argument(self, action: argparse.Action) -> None:
        if action.help is None and action.default is not None:
            action.help = "(default: %(default)s)"
        super().add_argument(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """With the options that all benchmarks have."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description, formatter_class=_Help)
    made.add_argument("--quick", action="store_true", help="smaller inputs: under a minute, for tests")
    made.add_argument("--seed", type=int, default=0, help="of all that is drawn by chance")
    return made


def several(kind: type[int | float] | Sequence[str]) -> Callable[[str], str]:
    """The type of an option that has numbers, or some of these names, between commas. It stays a text."""

    def checked(text: str) -> str:
        for each in text.split(","):
            if not isinstance(kind, type):
                if each not in kind:
                    raise argparse.ArgumentTypeError(f"there is no {each or 'empty name'}; choose from {', '.join(kind)}")
                continue
            try:
                kind(each)
            except ValueError:
                numbers = "whole numbers" if kind is int else "numbers"
                raise argparse.ArgumentTypeError(f"{each!r} is no number; give {numbers} between commas") from None
        return text

    return checked


def say(text: str) -> None:
    """Progress, beside the result."""
    sys.stderr.write(f"{text}\n")


def merged(rounds: Sequence[Sequence[Row]], added: Sequence[str] = ()) -> list[Row]:
    """One round's rows for several: of each measured number the median; those that `added` names are counts, and their sum."""
    return [_merged([each[place] for each in rounds], added) for place in range(len(rounds[0]))]


def _merged(rows: Sequence[Row], added: Sequence[str]) -> Row:
    one = dict(rows[0])
    for name, value in one.items():
        if name in added:
            one[name] = sum(row[name] for row in rows)
        elif isinstance(value, float):
            one[name] = statistics.median(row[name] for row in rows)
    return one


def show(name: str, options: argparse.Namespace, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, commit {commit()}")  # noqa: T201
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))  # noqa: T201
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    print(json.dumps({"benchmark": name, "commit": commit(), "args": arguments, "rows": list(rows)}))  # noqa: T201


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def commit() -> str:
    root = Path(__file__).parent.parent
    found = subprocess.run(["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)  # noqa: S607
    return found.stdout.strip() or "unknown"
