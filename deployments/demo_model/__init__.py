"""The language model that ships with the project: tiny, trained from scratch on `data/`, and described in README.md here."""

from pathlib import Path

MODEL_DIR: Path = Path(__file__).parent / "model"
"""A model directory in Hugging Face's format, for vLLM and transformers."""

QUESTIONS: Path = Path(__file__).parent / "questions.jsonl"
"""Questions that the model answers word for word under greedy decoding: lines of `{"id", "question", "answer"}`."""

DOCUMENTS: Path = Path(__file__).parent / "documents" / "project.jsonl"
"""Short documents, each with a question that it answers, which training never sees: lines of `{"id", "text", "question"}`."""
