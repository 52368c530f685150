"""Markdown: text already, but for what stands before it, and its headings are good places to cut."""

import re

_KEY = r"[\"']?\w[\w.-]*[\"']?[ \t]*"
_FRONT_MATTER = re.compile(
    rf"\A\s*^(?=---[ \t]*\n(?:{_KEY}:\s|---[ \t]*$)|\+\+\+[ \t]*\n(?:{_KEY}=|\+\+\+[ \t]*$))"
    r"(---|\+\+\+)[ \t]*\n(?:(?!\1[ \t]*$).*\n)*?\1[ \t]*(?:\n|\Z)",
    re.MULTILINE,
)
"""It begins with a key, or is empty: `---` is also a rule across the page, and what stands between two of them is text."""
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
