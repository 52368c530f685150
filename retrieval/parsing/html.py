"""HTML: what a reader would see of it, line by line."""

import re

from selectolax.lexbor import LexborHTMLParser, LexborNode

from retrieval.errors import ParseError
from retrieval.parsing.text import too_long

_UNSEEN = "script, style, template, noscript, nav, [role=navigation], svg, math, iframe, object, canvas, audio, video, select, [hidden]"
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
_PARAGRAPHS = _HEADINGS | {
    *("address", "article", "aside", "blockquote", "details", "dialog", "div", "dl", "fieldset", "figure", "footer", "form", "header"),
    *("hr", "main", "ol", "p", "pre", "section", "table", "ul"),
}
_LINES = frozenset(("br", "caption", "dd", "dt", "figcaption", "legend", "li", "option", "summary", "tr"))
_TAG = re.compile(r"<(!doctype|[a-z][a-z0-9-]*[\s/>])", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_TRAILING = re.compile(r"(?<![ \t])[ \t]+\n")  # tried once for each run of spaces
_MANY = re.compile(r"\n{3,}")


def read_html(text: str, max_bytes: int) -> str:
    """The title, then the text: blocks end lines, headings come after a form feed. No scripts, styles, navigation.

    Raises `ParseError` for what is no HTML, or too long.
    """
    if not _TAG.search(text):
        raise ParseError("the file is not what its name says: its name says HTML, its content has no tags")
    tree = LexborHTMLParser(text)
    titles = tree.css("title")
    title = _SPACE.sub(" ", titles[0].text()).strip() if titles else ""
    for node in tree.css(_UNSEEN):
        node.decompose()
    body = tree.body
    pieces = _Pieces(max_bytes)
    if body is not None:
        pieces.walk(body)
    seen = _MANY.sub("\n\n", _TRAILING.sub("\n", "".join(pieces.found))).strip(" \t\n")
    return f"{title}\n\n{seen}" if title and not seen.lstrip("\f").startswith(title) else seen


class _Pieces:
    """Text and line ends, in the order of the document. Without recursion: documents may be nested as deep as they like."""

    def __init__(self, max_bytes: int) -> None:
        self.found: list[str] = []
        self._size = 0
        self._max_bytes = max_bytes

    def walk(self, root: LexborNode) -> None:
        node: LexborNode | None = root
        while node is not None:
            self._enter(node)
            if node.first_child is not None:
                node = node.first_child
                continue
            while node is not None:
                self._leave(node)
                if node.mem_id == root.mem_id:
                    return
                if node.next is not None:
                    node = node.next
                    break
                node = node.parent

    def _enter(self, node: LexborNode) -> None:
        if node.tag == "-text":
            text = node.text_content or ""
            is_verbatim = node.parent is not None and node.parent.tag in ("pre", "textarea")
            self._add(text if is_verbatim else self._flowing(text))
        elif node.tag in _HEADINGS:
            self._add("\n\n\f")
        elif node.tag in _PARAGRAPHS:
            self._add("\n\n")
        elif node.tag in _LINES:
            self._add("\n")
        elif node.tag in ("td", "th") and self._is_within_line:
            self._add("\t")

    def _flowing(self, text: str) -> str:
        """Any spaces are one, and none at the beginning of a line."""
        flowing = _SPACE.sub(" ", text)
        return flowing if self._is_within_line and self.found[-1][-1] not in " \t" else flowing.lstrip(" ")

    @property
    def _is_within_line(self) -> bool:
        return bool(self.found) and self.found[-1][-1] not in "\n\f"

    def _leave(self, node: LexborNode) -> None:
        if node.tag in _PARAGRAPHS:
            self._add("\n\n")

    def _add(self, text: str) -> None:
        if not text:
            return
        self._size += len(text)
        if self._size > 4 * self._max_bytes:
            raise too_long(self._max_bytes)
        self.found.append(text)
