"""Files of every kind, as they should be and as somebody hostile would make them."""

import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.config import FilesConfig
from retrieval.errors import ParseError
from retrieval.parsing.html import read_html
from retrieval.parsing.kinds import kind_of
from retrieval.parsing.markdown import read_markdown
from retrieval.parsing.pdf import read_pdf
from retrieval.parsing.reader import read_file
from retrieval.parsing.text import decode
from tests.retrieval.pdfs import assembled, encrypted, pdf, pdf_of

CONFIG = FilesConfig(max_text_bytes=100_000, max_pages=50, parse_timeout_s=3, parse_memory_bytes=2**29)
HTML = b"<!doctype html><title>T</title><p>text"


def read(directory: Path, content: bytes, name: str = "a.txt", config: FilesConfig = CONFIG) -> str:
    path = directory / "content"
    path.write_bytes(content)
    return read_file(path, name, config)


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("a.txt", b"text", "text"),
        ("a.py", b"import this", "text"),
        ("Makefile", b"all:", "text"),
        ("a.txt", HTML, "text"),
        ("A.MD", b"# x", "markdown"),
        ("a.htm", HTML, "html"),
        ("page", b"\xef\xbb\xbf <!-- x --> <HTML>", "html"),
        ("a.pdf", b"%PDF-1.4", "pdf"),
        ("a.pdf", b"junk before\n%PDF-1.4", "pdf"),
        ("paper", b"%PDF-1.4", "pdf"),
        ("a.txt", b"a file that speaks of %PDF-1.4", "text"),
    ],
)
def test_what_a_file_is(name: str, head: bytes, kind: str) -> None:
    assert kind_of(name, head) == kind


def test_a_row_of_comments_takes_no_time() -> None:
    comments = b"<!--a-->" * 26
    began = time.process_time()
    assert kind_of("page", comments + b"x") == "text"
    assert kind_of("page", comments + b"<html>") == "html"
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("name", "head", "code"),
    [
        ("a.pdf", b"text", "invalid_file"),
        ("a.txt", b"%PDF-1.4", "invalid_file"),
        ("a.html", b"%PDF-1.4", "invalid_file"),
        ("a.docx", b"text", "unsupported_file"),
        ("a.txt", b"PK\x03\x04", "unsupported_file"),
        ("a.md", b"\x89PNG", "unsupported_file"),
        ("a", b"\x7fELF", "unsupported_file"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(name: str, head: bytes, code: str) -> None:
    with pytest.raises(ParseError) as refused:
        kind_of(name, head)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("é\r\nb\rc".encode(), "é\nb\nc"),
        (b"\xef\xbb\xbfx", "x"),
        ("é𝄞".encode("utf-16"), "é𝄞"),
        (b"\xfe\xff" + "é".encode("utf-16-be"), "é"),
        (b"a\x1b[0mb\f", "a [0mb\f"),
    ],
)
def test_encodings(raw: bytes, text: str) -> None:
    assert decode(raw) == text


@pytest.mark.parametrize("raw", [b"\xff", "é".encode("latin-1"), b"\xff\xfea", "x".encode("utf-32"), b"a\0b", b"\xff\xfe\x00\xd8"])
def test_what_is_no_text(raw: bytes) -> None:
    with pytest.raises(ParseError):
        decode(raw)


@given(st.text())
def test_any_text_is_read_as_it_is_but_for_line_ends_and_controls(text: str) -> None:
    if "\0" in text or text.startswith("\ufeff"):
        return
    encoded = text.encode("utf-8", "replace")
    assert [char for char in decode(encoded) if char.isprintable() and char != " "] == [
        char for char in encoded.decode() if char.isprintable() and char != " "
    ]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("---\ntitle: x\n---\n# H\nt\n## I", "\f# H\nt\n\f## I"),
        ("+++\na = 1\n+++\nt", "t"),
        ('---\n"a-b.c" :\n  - x\n\n# comment\n---\nt', "t"),
        ("\n---\n---\nt", "t"),
        ("+++\n+++\nt", "t"),
        ("---\n\nno end", "---\n\nno end"),
        ("---\n\n# One\n\ntext\n\n---\n\n# Two", "---\n\n\f# One\n\ntext\n\n---\n\n\f# Two"),
        ("---\n# One\ntext\n---\nt", "---\n\f# One\ntext\n---\nt"),
        ("---\nA sentence: text.\n---\nt", "---\nA sentence: text.\n---\nt"),
        ("---\nhttps://x.org\n---\nt", "---\nhttps://x.org\n---\nt"),
        ("+++\nmore\n+++\nt", "+++\nmore\n+++\nt"),
        ("text\n---\nmore\n---\n", "text\n---\nmore\n---\n"),
        ("```\n# code\n```\n# H", "```\n# code\n```\n\f# H"),
        ("~~~~\n```\n# code\n~~~~\n# H", "~~~~\n```\n# code\n~~~~\n\f# H"),
        ("#no\n    # code\n####### no", "#no\n    # code\n####### no"),
    ],
)
def test_markdown(raw: str, text: str) -> None:
    assert read_markdown(raw) == text


def test_markdown_of_any_length_takes_its_time_only_once() -> None:
    for hostile in ("---\na:\n" + "a\n" * 200_000, "---\n" + "a" * 400_000, "#" * 400_000, "`" * 400_000, " " * 400_000 + "\n---\n" * 1000):
        started = time.perf_counter()
        read_markdown(hostile)
        assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>one <b>two</b>three<p>four", "one twothree\n\nfour"),
        ("<title> The \n title </title><h1>Head</h1><p>text", "The title\n\n\fHead\n\ntext"),
        ("<title>Head</title><h1>Head</h1>text", "\fHead\n\ntext"),
        ("a<br>b<ul><li>c<li>d</ul>e", "a\nb\n\nc\nd\n\ne"),
        ("<table><tr><td>1<td>2<tr><td>3</table>", "1\t2\n3"),
        ("<pre>a\n  b</pre>c", "a\n  b\n\nc"),
        ("<script>x</script><style>y</style><nav>z</nav><p hidden>w<div role=navigation>v</div><template>u</template>t", "t"),
        ("<p><!-- x -->a &amp; b &#233;", "a & b é"),
        ("<body><p>a</p>\n\n\n\n<p>b</p></body>", "a\n\nb"),
        ("<p>", ""),
    ],
)
def test_html(html: str, text: str) -> None:
    assert read_html(html, 1000) == text


def test_html_of_spaces_takes_its_time_only_once() -> None:
    began = time.process_time()
    assert read_html(f"<pre>a{' ' * 60_000}b  \nc</pre>", 100_000) == f"a{' ' * 60_000}b\nc"
    assert time.process_time() - began < 1


def test_html_without_tags_is_not_what_its_name_says() -> None:
    with pytest.raises(ParseError, match="no tags"):
        read_html("just text, 1 < 2", 1000)


def test_pdf(tmp_path: Path) -> None:
    assert read(tmp_path, pdf(["One page.", "Another."]), "a.pdf") == "One page.\fAnother."


LOOPING = assembled(
    [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>",
    ]
)
SELF_LENGTH = assembled([b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", b"3 0 R"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pdf", pdf([""]), "no text"),
        ("a.pdf", encrypted(["secret"]), "encrypted"),
        ("a.pdf", b"%PDF-1.4 and nothing", "damaged|no text"),
        ("a.pdf", pdf(["x"])[:-200], "."),
        ("a.pdf", pdf(["x"] * 51), "more than 50 pages"),
        ("a.pdf", pdf_of([b"BT /F1 12 Tf (" + b"x" * 200_000 + b") Tj ET"]), "longer than 100000 bytes"),
        ("a.pdf", pdf_of([b"0" * 200_000_000]), "."),
        ("a.pdf", LOOPING, "."),
        ("a.pdf", SELF_LENGTH, "."),
        ("a.html", b"<div>" * 300_000, "limits|memory|no text"),
        ("a.html", b"<p>" + b"x" * 100_001, "longer"),
        ("a.html", b"<p></p>", "no text"),
        ("a.txt", b"x" * 100_001, "longer"),
        ("a.txt", "é".encode() * 50_001, "longer"),
        ("a.txt", b"x" * 1_000_000, "longer"),
        ("a.txt", b"", "no text"),
        ("a.md", b"---\na: b\n---\n", "no text"),
    ],
    ids=range(17),
)
def test_hostile_files_say_why_and_end_in_time(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ParseError, match=message):
        read(tmp_path, content, name)
    assert time.perf_counter() - started < CONFIG.parse_timeout_s + 10


@given(st.binary(max_size=300))
def test_a_damaged_pdf_is_never_another_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    whole = bytearray(pdf(["Some text."]))
    at = len(noise) * 7 % len(whole)
    whole[at : at + len(noise)] = noise
    path = tmp_path_factory.getbasetemp() / "damaged.pdf"
    path.write_bytes(whole)
    with contextlib.suppress(ParseError):
        assert isinstance(read_pdf(path, 10, 10_000), str)
