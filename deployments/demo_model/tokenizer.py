"""The tokenizer: byte-level BPE learnt from the data, and a plain chat template."""

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, END, SYSTEM, USER, ASSISTANT, TOOL = SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
MAX_LENGTH = 8192

# The developer role is the system role by another name. Content is a string, null, or a list of parts: then their texts
# are joined by a line feed, as servers do for templates that take only strings.
CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}
{{- content -}}
{%- elif content -%}
{%- set ns = namespace(first=true) -%}
{%- for part in content -%}
{%- if part.text is defined -%}
{{- part.text if ns.first else '\\n' + part.text -}}
{%- set ns.first = false -%}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
{%- set role = 'system' if message.role == 'developer' else message.role -%}
{%- if role not in ['system', 'user', 'assistant', 'tool'] -%}
{{- raise_exception('unknown role') -}}
{%- endif -%}
{{- '<|' + role + '|>\\n' + text(message.content) + '<|end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>\\n' -}}
{%- endif -%}
"""


def render(messages: Iterable[dict[str, str]], *, add_generation_prompt: bool = False) -> str:
    """The chat template in Python, for training: the same text as the Jinja one gives."""
    parts = (f"<|{'system' if message['role'] == 'developer' else message['role']}|>\n{message['content']}{END}\n" for message in messages)
    return "".join(parts) + (f"{ASSISTANT}\n" if add_generation_prompt else "")


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A fast tokenizer of transformers. It starts from all 256 bytes, so any Unicode text survives encoding and decoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT, TOOL],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="left",
    )
