"""The word lists of `words/`, as read. Lines starting with # are comments."""

from collections.abc import Iterator
from importlib.resources import files


def lines(name: str) -> Iterator[str]:
    """The lines of one list that say something."""
    text = files("cache.guards").joinpath("words", f"{name}.txt").read_text(encoding="utf-8")
    return (line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def bag(line: str) -> frozenset[str]:
    """A set of words, written as one line."""
    return frozenset(line.split())


def row(line: str) -> list[str]:
    """Words in an order, written as one line."""
    return line.split()


def words(name: str) -> Iterator[str]:
    """A list of single words, divided by white space."""
    return (word for line in lines(name) for word in line.split())


def groups(name: str) -> Iterator[list[str]]:
    """A list of groups, one for each line, divided by commas."""
    return ([entry.strip() for entry in line.split(",")] for line in lines(name))


def opposites(name: str) -> Iterator[tuple[list[str], list[str]]]:
    """A list of pairs of groups: `x, x2 / y, y2`."""
    for line in lines(name):
        left, right = line.split("/")
        yield [entry.strip() for entry in left.split(",")], [entry.strip() for entry in right.split(",")]


def sections(name: str) -> Iterator[tuple[str, list[str]]]:
    """A list with headings: (heading, the names of one thing)."""
    heading = ""
    for line in lines(name):
        if line.startswith("["):
            heading = line.strip("[]")
        else:
            for entry in line.split(","):
                yield heading, [other.strip() for other in entry.split("=")]
