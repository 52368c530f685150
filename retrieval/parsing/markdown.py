"""Markdown: text already, but for what stands before it, and its headings are good places to cut."""

import re

_FRONT_MATTER = re.compile(r"\A\s*^(---|\+\+\+)[ \t]*\n(?:(?!\1[ \t]*$).*\n)*?\1[ \t]*(?:\n|\Z)", re.MULTILINE)
_HEADING = re.compile(r" {0,3}#{1,6}(?:\s|$)")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


def read_markdown(text: str) -> str:
    """Without front matter, with a form feed before each heading outside of code."""
    lines: list[str] = []
    fence = ""
    for line in _FRONT_MATTER.sub("", text, count=1).split("\n"):
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark.group(1)
        elif mark and mark.group(1).startswith(fence) and not line.strip().strip(fence[0]):
            fence = ""
        is_heading = not fence and _HEADING.match(line)
        lines.append(f"\f{line}" if is_heading else line)
    return "\n".join(lines)
