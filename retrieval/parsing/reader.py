"""Reads a file: what could be hostile in a process of its own, within limits."""

import json
import os
import subprocess
import sys
from pathlib import Path

from retrieval.config import FilesConfig
from retrieval.errors import ParseError
from retrieval.parsing.kinds import HEAD_BYTES, Kind, kind_of
from retrieval.parsing.markdown import read_markdown
from retrieval.parsing.text import decode, require_text, too_long
from retrieval.parsing.worker import Task

ROOT = Path(__file__).parents[2]
"""Where this package is imported from."""
GRACE_S = 5.0
"""The process ends itself; this is for one that does not."""


def read_file(path: Path, name: str, config: FilesConfig) -> str:
    """The text of the file, at most `config.max_text_bytes` of it in UTF-8. Raises `ParseError`, `OSError`."""
    with path.open("rb") as file:
        kind = kind_of(name, file.read(HEAD_BYTES))
    if kind in ("html", "pdf"):
        return _apart(path, kind, config)
    if path.stat().st_size > 2 * config.max_text_bytes + 3:  # in UTF-16, ASCII takes twice what it takes in UTF-8
        raise too_long(config.max_text_bytes)
    text = decode(path.read_bytes())
    return require_text(read_markdown(text) if kind == "markdown" else text, config.max_text_bytes)


def _apart(path: Path, kind: Kind, config: FilesConfig) -> str:
    seconds = int(config.parse_timeout_s)
    task = Task(str(path), kind, config.max_text_bytes, config.max_pages, seconds, config.parse_memory_bytes)
    command = [sys.executable, "-m", "retrieval.parsing.worker", json.dumps(task)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    nothing = subprocess.DEVNULL
    try:
        done = subprocess.run(
            command,
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=nothing,
            check=False,
            timeout=seconds + GRACE_S,
            env=environment,
            cwd=ROOT,
        )
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # it was ended by a limit, or has died
        raise ParseError("the file could not be read within the limits of time and memory") from None
    if "text" in answer:
        text: str = answer["text"]
        return text
    raise ParseError(answer["error"], answer["code"])
