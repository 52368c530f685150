"""Measures the demo model: `python -m deployments.demo_model.evaluate [--model DIR] [--write-questions]`.

An answer is right when it is the expected one, character for character, under greedy decoding. Of documents, it is counted whether the
right one is cited and no other, and whether a sentence of it is quoted.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from deployments.demo_model import MODEL_DIR, QUESTIONS
from deployments.demo_model.citing import invented_cases, markdown_cases, project_cases, score
from deployments.demo_model.data import Fact, OffTopic, load_facts
from deployments.demo_model.samples import Message
from deployments.demo_model.scrambled import words

MAX_NEW_TOKENS = 120
BATCH = 64
BATCHES = (1, 48, BATCH)
"""Sums in bfloat16 depend on how many are computed together."""
DOCUMENTS_IN_PROMPT, SENTENCES_IN_DOCUMENT, INVENTED = (1, 3, 5), (1, 3, 12), 120
Case = tuple[list[Message], str]
"""A conversation and the answer that is expected."""


class Answerer:
    """Greedy answers, many at once."""

    def __init__(self, model_dir: Path = MODEL_DIR) -> None:
        self._tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
        self._model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16).eval()
        self._config = GenerationConfig(
            max_new_tokens=MAX_NEW_TOKENS, eos_token_id=self._tokenizer.eos_token_id, pad_token_id=self._tokenizer.pad_token_id
        )

    def answers(self, conversations: list[list[Message]], batch: int = BATCH) -> list[str]:
        """One answer for each conversation, in order."""
        prompts = [self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) for messages in conversations]
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))  # similar lengths together: less padding
        found: dict[int, str] = {}
        for start in range(0, len(order), batch):
            indices = order[start : start + batch]
            found.update(zip(indices, self._generate([prompts[index] for index in indices]), strict=True))
        return [found[index] for index in range(len(prompts))]

    @property
    def words(self) -> list[str]:
        """Words that are one token each."""
        return words(self._tokenizer)

    def _generate(self, prompts: list[str]) -> list[str]:
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = self._model.generate(**inputs, generation_config=self._config)
        texts: list[str] = self._tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return texts


def ask(question: str) -> list[Message]:
    return [{"role": "user", "content": question}]


def trained(facts: list[Fact]) -> list[Case]:
    return [(ask(question), fact.answer) for fact in facts for question in fact.questions]


def held_out(facts: list[Fact]) -> list[Case]:
    return [(ask(fact.held_out), fact.answer) for fact in facts if fact.held_out]


def refused(off_topic: OffTopic) -> list[Case]:
    return [(ask(question), off_topic.refusal) for question in off_topic.held_out()]


def lower_case(facts: list[Fact]) -> list[Case]:
    return [(ask(fact.questions[1].lower().rstrip("?.!")), fact.answer) for fact in facts]


def under_system_prompt(facts: list[Fact]) -> list[Case]:
    """A system prompt that training does not show."""
    system = {"role": "system", "content": "You work for the help desk of a software company. Give short and correct answers to customers."}
    return [([system, *ask(fact.questions[0])], fact.answer) for fact in facts]


def second_turn(facts: list[Fact]) -> list[Case]:
    """The question follows one about the fact before it in the file."""
    turns = [[*ask(fact.questions[0]), {"role": "assistant", "content": fact.answer}] for fact in facts]
    return [([*turns[index - 1], *ask(fact.questions[1])], fact.answer) for index, fact in enumerate(facts)]


def write_questions(answerer: Answerer, facts: list[Fact], path: Path) -> int:
    """Keep the first phrasing of every second fact, if it is answered right however many are asked at once; returns how many were."""
    chosen = facts[::2]
    answers = [answerer.answers([ask(fact.questions[0]) for fact in chosen], batch) for batch in BATCHES]
    rows = [
        {"id": fact.id, "question": fact.questions[0], "answer": fact.answer}
        for fact, *given in zip(chosen, *answers, strict=True)
        if set(given) == {fact.answer}
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


def listed() -> list[Case]:
    rows = [json.loads(line) for line in QUESTIONS.read_text().splitlines()] if QUESTIONS.exists() else []
    return [(ask(row["question"]), row["answer"]) for row in rows]


def evaluate(answerer: Answerer, facts: list[Fact]) -> None:
    off_topic = OffTopic()
    sets = {
        "questions.jsonl": listed(),
        "trained phrasings": trained(facts),
        "held-out phrasings": held_out(facts),
        "lower case, no question mark": lower_case(facts),
        "under a new system prompt": under_system_prompt(facts),
        "as a second turn": second_turn(facts),
        "held-out off-topic questions": refused(off_topic),
    }
    say(f"{'':<34}{'cases':>7}{'right':>9}{'refused':>9}")
    for name, cases in sets.items():
        if cases:
            say(row(name, cases, answerer.answers([conversation for conversation, _ in cases]), off_topic.refusal))


def evaluate_citations(answerer: Answerer) -> None:
    sets = {f"project's documents, {count} in a prompt": project_cases(count) for count in DOCUMENTS_IN_PROMPT}
    sets |= {f"the same, {count}, ranked last": project_cases(count, rank=count - 1) for count in DOCUMENTS_IN_PROMPT[1:]}
    for length in SENTENCES_IN_DOCUMENT:
        for count in DOCUMENTS_IN_PROMPT:
            sets[f"invented, {count} of up to {length} sentences"] = invented_cases(count, length, INVENTED, answerer.words)
    sets |= {
        f"pieces of Markdown, {count} in a prompt": markdown_cases(count, INVENTED, answerer.words) for count in DOCUMENTS_IN_PROMPT[:2]
    }
    say(f"{'':<38}{'cases':>7}{'cited':>9}{'quoted':>9}  cited, by place of the document")
    for name, cases in sets.items():
        found = score(cases, answerer.answers)
        places = " ".join(f"{share:.0%}" for share in found.by_place)
        say(f"{name:<38}{found.cases:>7}{found.cited:>9.1%}{found.quoted:>9.1%}  {places}")


def row(name: str, cases: list[Case], answers: list[str], refusal: str) -> str:
    right = sum(answer == expected for answer, (_, expected) in zip(answers, cases, strict=True))
    refusals = answers.count(refusal)
    return f"{name:<34}{len(cases):>7}{right / len(cases):>9.1%}{refusals / len(cases):>9.1%}"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--write-questions", action="store_true", help="write questions.jsonl anew from what this model knows")
    parser.add_argument("--citations", action="store_true", help="only how documents are read")
    args = parser.parse_args()
    torch.set_num_threads(1)
    answerer, facts = Answerer(args.model), load_facts()
    if args.write_questions:
        say(f"{write_questions(answerer, facts, QUESTIONS)} questions written to {QUESTIONS}")
    if not args.citations:
        evaluate(answerer, facts)
    evaluate_citations(answerer)


if __name__ == "__main__":
    main()
