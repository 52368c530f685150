"""Questions about documents on real engines: two vLLM replicas, with documents in the planned order and in the order of their ranks.

    python -m benchmarks.rag_vllm

200 documents in subjects of five: a question is about one aspect of one subject, and most of what is found for it are documents of that
subject, in an order of its own. Few subjects get most questions. Both rows are the same application, with the same routing by what replicas
hold, and take turns: in each of three rounds, each gets the same questions under a salt of its own, first some that fill the caches.

The packaged encoder reads 256 tokens of a chunk. Usual chunks are longer, so documents are found by hashed words (`--encoder fake`) unless
another encoder is named; then `--words` must be what it can read.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from benchmarks import report
from benchmarks.report import Row, say
from benchmarks.routing_vllm import ANSWER_TOKENS, MODEL, WORDS, Asked, row_of, start, streamed

SYSTEMS = {"ours": True, "retrieval_order": False}
"""And whether documents may be put in another order."""
ASPECTS = ("history", "climate", "trade", "food", "roads")
WORDINGS = (
    "What is known about the {aspect} of {subject}?",
    "Tell me about {aspect} in {subject}.",
    "{subject}: how about its {aspect}?",
    "I would like to read of the {aspect} that {subject} has.",
)
SYLLABLES = ["ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu", "bra", "cle", "dri", "flo", "gru"]


def main() -> None:
    parser = report.parser("rag_vllm", "Time to the first token and cached tokens on two vLLM replicas, by order of documents.")
    parser.add_argument("--subjects", type=int, default=40, help="of five documents each")
    parser.add_argument("--words", type=int, default=250, help="of one document")
    parser.add_argument("--encoder", default="fake", help="as `embedding.source` in the configuration")
    parser.add_argument("--questions", type=int, default=300, help="of a round, after the caches were filled")
    parser.add_argument("--filling", type=int, default=100, help="questions that fill the caches")
    parser.add_argument("--k", type=int, default=3, help="documents of a question")
    parser.add_argument("--rate", type=float, default=5.0, help="questions a second, of a Poisson process")
    parser.add_argument("--kv-tokens", type=int, default=40_960, help="that one replica holds")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.quick:
        options.subjects, options.questions, options.filling, options.rounds = 8, 24, 12, 1
    sections = {
        "embedding": {"source": options.encoder},
        "retrieval": {"chunk_tokens": 1024 if options.encoder == "fake" else 250, "chunk_overlap_tokens": 0},
    }
    with tempfile.TemporaryDirectory() as directory, start("ours", options, Path(directory), sections) as application:
        application.wait_ready()
        say(f"ready after {application.ready_after_s:.0f} s")
        rows = asyncio.run(measure(application.url, options))
    report.show("rag_vllm", options, rows)


async def measure(url: str, options: argparse.Namespace) -> list[Row]:
    chance = random.Random(options.seed)
    subjects = ["".join(chance.sample(SYLLABLES, 3)).capitalize() for _ in range(options.subjects)]
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=httpx.Limits(max_connections=None)) as client:
        store = await filled_store(client, chance, subjects, options.words)
        rounds = []
        for number in range(options.rounds):
            questions = list(make_questions(random.Random(f"{options.seed}/{number}"), subjects, options.filling + options.questions))
            rows = [await run(client, store, system, questions, options, f"{system}-{number}") for system in SYSTEMS]
            say(f"round {number + 1}: {rows}")
            rounds.append(rows)
    return report.merged(rounds, added=("requests", "errors"))


async def filled_store(client: httpx.AsyncClient, chance: random.Random, subjects: Sequence[str], words: int) -> str:
    store: str = (await client.post("/v1/vector_stores", json={"name": "benchmark"})).raise_for_status().json()["id"]
    documents = [
        {"id": f"{subject}-{aspect}", "text": text_of(chance, subject, aspect, words)} for subject in subjects for aspect in ASPECTS
    ]
    began = time.perf_counter()
    for at in range(0, len(documents), 50):
        await client.post(f"/v1/vector_stores/{store}/documents", json={"documents": documents[at : at + 50]})
    say(f"{len(documents)} documents in {time.perf_counter() - began:.0f} s")
    return store


def text_of(chance: random.Random, subject: str, aspect: str, words: int) -> str:
    sentences, length = [f"The {aspect} of {subject}."], 4
    while length < words:
        some = chance.choices(WORDS, k=10)
        sentences.append(f"In {subject} the {aspect} {' '.join(some)}, {subject}.")
        length += 15
    return " ".join(sentences)


def make_questions(chance: random.Random, subjects: Sequence[str], count: int) -> list[str]:
    """Subjects are as popular as Zipf's law with exponent 1 says."""
    weights = [1 / (rank + 1) for rank in range(len(subjects))]
    return [
        chance.choice(WORDINGS).format(subject=subject, aspect=chance.choice(ASPECTS))
        for subject in chance.choices(subjects, weights, k=count)
    ]


async def run(client: httpx.AsyncClient, store: str, system: str, questions: Sequence[str], options: argparse.Namespace, salt: str) -> Row:
    filling, measured = questions[: options.filling], questions[options.filling :]
    await ask_all(client, store, system, filling, options, salt)
    began = time.perf_counter()
    asked = await ask_all(client, store, system, measured, options, salt)
    return row_of(system, asked, time.perf_counter() - began)


async def ask_all(
    client: httpx.AsyncClient, store: str, system: str, questions: Sequence[str], options: argparse.Namespace, salt: str
) -> list[Asked]:
    """Both systems get the same questions at the same times."""
    chance = random.Random(len(questions))
    tasks = []
    at_s = time.perf_counter()
    for question in questions:
        at_s += chance.expovariate(options.rate)
        await asyncio.sleep(at_s - time.perf_counter())
        tasks.append(asyncio.ensure_future(ask(client, store, system, question, options.k, salt)))
    return list(await asyncio.gather(*tasks))


async def ask(client: httpx.AsyncClient, store: str, system: str, question: str, k: int, salt: str) -> Asked:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": ANSWER_TOKENS,
        "min_tokens": ANSWER_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache": {"mode": "off"},
        "cache_salt": salt,
        "retrieval": {"vector_store_ids": [store], "top_k": k, "reorder": SYSTEMS[system]},
    }
    return await streamed(client, body)


if __name__ == "__main__":
    main()
