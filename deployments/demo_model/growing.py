"""Widens a trained model, and sets some attention heads of the new part by hand, so that it copies from its context before any training.

Gradient descent finds the circuit that copies only after very many tokens: a head that looks at the token before, and a later one that
looks for the same token's last occurrence and repeats what followed (Olsson et al., "In-context Learning and Induction Heads", 2022).
Here it is written down. The new dimensions of the residual stream hold constants and codes: of the token (`WORD` is shared by tokens
that differ in capitals or a space before them, `FORM` is its own), of the token before it, of the first piece of the label over the
document that it is in, and the like for the document in which a question's words are found. The rest is trained.

Old weights do not read the new dimensions, nor write to them, so what the model knew it still knows, but for a longer rotary base.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from deployments.demo_model.tokenizer import USER

OLD_WIDTH, WIDTH = 256, 384
OLD_HEADS, HEADS, HEAD_DIM = 4, 6, 64
PAIRS = HEAD_DIM // 2
THETA = 50_000.0
LAYERS = (None, 0, 1, 2, 3)
"""Which old layer each layer is; None is a new one."""


class Part(NamedTuple):
    """Dimensions of the residual stream, and the length of what stands there. After a norm it is about 1."""

    start: int
    stop: int
    amplitude: float

    @property
    def at(self) -> slice:
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


ONE, WORD, FORM = Part(256, 257, 0.3), Part(257, 283, 0.25), Part(283, 303, 0.15)
BEFORE, LABEL, CHOSEN = Part(303, 329, 0.3), Part(329, 353, 0.3), Part(353, 377, 0.3)
EVEN = Part(377, 378, 0.3)
"""Another constant. Embeddings differ in length, and this is proportional to it: behind the first norm it is the same for all tokens."""
NOWHERE = Part(378, 379, 0.3)
"""Set for the token that begins a user's turn alone, which has no other code: where a head looks when it finds nothing."""
PARTS = (ONE, EVEN, NOWHERE, WORD, FORM, BEFORE, LABEL, CHOSEN)
INPUT_NORMS = {"input": (1.0, 31.8, 34.6, 39.2), "post": (2.3, 31.5, 36.6, 39.4), "final": 43.0}
"""Lengths of the old model's residual stream, measured on its own answers."""
SLOW = tuple(range(18, 32))
"""Rotary pairs that hardly turn within a prompt: what is compared there is compared at any distance."""
STEADY = [*SLOW, *(pair + PAIRS for pair in SLOW)]
FIRST = 4
"""The first head that is new in an old layer."""
COPY_GAIN, COPY_LOGIT = 4.0, 12.0


def grown(old: Any, tokenizer: Any) -> Any:
    """A wider and deeper model in float32 that answers as `old` does and can copy. Draws from torch's random numbers."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "layer_types", "rope_parameters", "dtype")
    kept = {key: value for key, value in old.config.to_dict().items() if key not in names}
    config = LlamaConfig(
        **kept,
        hidden_size=WIDTH,
        num_hidden_layers=len(LAYERS),
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )
    new = LlamaForCausalLM(config).float()
    with torch.no_grad():
        codes = token_codes(tokenizer)
        _widen(new.model.embed_tokens.weight, old.model.embed_tokens.weight)
        new.model.embed_tokens.weight[:, ONE.at] = ONE.amplitude
        lengths = old.model.embed_tokens.weight.norm(dim=1, keepdim=True)
        new.model.embed_tokens.weight[:, EVEN.at] = EVEN.amplitude * lengths
        new.model.embed_tokens.weight[:, WORD.at] = WORD.amplitude * lengths.sqrt() * codes["word"]
        new.model.embed_tokens.weight[:, FORM.at] = FORM.amplitude * lengths.sqrt() * codes["form"]
        nowhere = tokenizer.convert_tokens_to_ids(USER)
        new.model.embed_tokens.weight[nowhere, WORD.start : FORM.stop] = 0.0
        new.model.embed_tokens.weight[nowhere, NOWHERE.at] = NOWHERE.amplitude
        new.tie_weights()
        for place, source in enumerate(LAYERS):
            _fill_layer(new.model.layers[place], None if source is None else old.model.layers[source], place)
        _fill_norm(new.model.norm, old.model.norm, float(INPUT_NORMS["final"]))  # type: ignore[arg-type]
        new.model.norm.weight[OLD_WIDTH:] = 0.0
        written = COPY_GAIN * (WORD.amplitude**2 + FORM.amplitude**2)
        new.model.norm.weight[WORD.start : FORM.stop] = COPY_LOGIT / written * float(INPUT_NORMS["final"]) / math.sqrt(WIDTH)  # type: ignore[arg-type]
        _set_heads(new, codes, tokenizer)
    return new


def token_codes(tokenizer: Any) -> dict[str, Any]:
    """Unit vectors, pushed apart, for each token: by its word and by its form."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    words = {word: number for number, word in enumerate(dict.fromkeys(map(_word, tokens)))}
    of_words = _spread(len(words), len(WORD))
    of_tokens = of_words[[words[_word(token)] for token in tokens]]
    # A bracket within a line does not begin a document.
    inline = tokenizer.convert_tokens_to_ids("Ġ[")
    of_tokens[inline] = torch.nn.functional.normalize(of_tokens[inline] + _spread(2, len(WORD))[0], dim=0)
    return {"word": of_tokens, "form": _spread(len(tokens), len(FORM))}


def _word(token: str) -> str:
    return token.removeprefix("Ġ").lower() or token


def _spread(count: int, dimensions: int) -> Any:
    """Random unit vectors after some steps that push close ones apart."""
    vectors = torch.nn.functional.normalize(torch.randn(count, dimensions), dim=1)
    for _ in range(40):
        push = torch.exp(12 * (vectors @ vectors.T - 1)).fill_diagonal_(0) @ vectors
        vectors = torch.nn.functional.normalize(vectors - 0.5 * torch.nn.functional.normalize(push, dim=1) * 0.3, dim=1)
    return vectors


def _widen(target: Any, source: Any) -> None:
    target.zero_()
    target[: source.shape[0], : source.shape[1]] = source


def _fill_layer(layer: Any, old: Any, place: int) -> None:
    attention, mlp = layer.self_attn, layer.mlp
    source = LAYERS[place]
    # The new one is the first: what it reads, behind its attention too, are embeddings.
    lengths = [1.0, 1.0] if source is None else [float(INPUT_NORMS[kind][source]) for kind in ("input", "post")]  # type: ignore[index]
    _fill_norm(layer.input_layernorm, old and old.input_layernorm, lengths[0])
    _fill_norm(layer.post_attention_layernorm, old and old.post_attention_layernorm, lengths[1])
    if old is None:
        torch.nn.init.zeros_(attention.o_proj.weight)
        torch.nn.init.zeros_(mlp.down_proj.weight)
        return
    for name in ("q_proj", "k_proj", "v_proj"):
        fresh = getattr(attention, name).weight[OLD_HEADS * HEAD_DIM :].clone()
        _widen(getattr(attention, name).weight, getattr(old.self_attn, name).weight)
        getattr(attention, name).weight[OLD_HEADS * HEAD_DIM :] = fresh
    _widen(attention.o_proj.weight, old.self_attn.o_proj.weight)
    for name in ("gate_proj", "up_proj", "down_proj"):
        _widen(getattr(mlp, name).weight, getattr(old.mlp, name).weight)


def _fill_norm(norm: Any, old: Any, length: float) -> None:
    """The old part comes out as before, each new part with length 1."""
    added = ONE.amplitude**2 + EVEN.amplitude**2 + WORD.amplitude**2 + FORM.amplitude**2
    scale = math.sqrt(OLD_WIDTH / WIDTH * (1 + added / length**2))
    norm.weight[:OLD_WIDTH] = scale * (1.0 if old is None else old.weight)
    rms = math.sqrt((length**2 + added) / WIDTH)
    norm.weight[OLD_WIDTH:] = 0.0
    for part in PARTS:
        norm.weight[part.at] = rms / part.amplitude


class Head:
    """One attention head, to be set. Scores are in nats."""

    def __init__(self, layer: Any, number: int) -> None:
        rows = slice(number * HEAD_DIM, (number + 1) * HEAD_DIM)
        attention = layer.self_attn
        self.q, self.k, self.v = (getattr(attention, name).weight[rows] for name in ("q_proj", "k_proj", "v_proj"))
        self.o = attention.o_proj.weight[:, rows]
        for weight in (self.q, self.k, self.v, self.o):
            weight.zero_()

    def look_back(self, distance: int, pairs: range, score: float, one: Part = ONE) -> None:
        """`score` for each pair at exactly this distance, less at others; negative: keep away from it."""
        size = math.sqrt(8 * abs(score))
        for pair in pairs:
            angle = distance * THETA ** (-pair / PAIRS)
            self.q[pair, one.at] = math.copysign(size, score) * math.cos(angle)
            self.q[pair + PAIRS, one.at] = -math.copysign(size, score) * math.sin(angle)
            self.k[pair, one.at] = size

    def compare(self, query: Part, key: Part, rows: list[int], score: float) -> None:
        """`score` where the query's part equals the key's."""
        for place, row in enumerate(rows):
            self.q[row, query.start + place] = math.sqrt(8 * score)
            self.k[row, key.start + place] = math.sqrt(8 * score)

    def favour(self, key: Part, code: Any, row: int, score: float, one: Part = ONE) -> None:
        """`score` for tokens of whose part this is the code."""
        self.q[row, one.at] = math.sqrt(8 * score)
        self.k[row, key.at] = math.sqrt(8 * score) * code

    def carry(self, source: Part, target: Part, gain: float, first: int = 0) -> None:
        """The weighted mean of a part is added to another part."""
        for place in range(min(len(source), len(target))):
            self.v[first + place, source.start + place] = 1.0
            self.o[target.start + place, first + place] = gain * target.amplitude


def _set_heads(model: Any, codes: dict[str, Any], tokenizer: Any) -> None:
    layers = model.model.layers
    bracket, documents, line = (codes["word"][tokenizer.convert_tokens_to_ids(token)] for token in ("[", "Documents", "Ċ"))
    nowhere = torch.ones(1)
    before = Head(layers[0], 0)
    before.look_back(1, range(9), 24.0, EVEN)
    before.carry(WORD, BEFORE, 1.0)
    # Which document a token is in; from the line that begins with "Documents" on there is none.
    label = Head(layers[1], FIRST)
    label.look_back(0, range(10, 16), 4.0, EVEN)
    label.favour(BEFORE, bracket, 31, 80.0, EVEN)
    label.favour(WORD, documents, 30, 32.0, EVEN)
    label.favour(BEFORE, line, 29, 32.0, EVEN)
    label.favour(NOWHERE, nowhere, 28, 34.0, EVEN)
    label.carry(WORD, LABEL, 1.0)
    # In which document the same word stands, but not at the word itself.
    same = Head(layers[2], FIRST)
    same.look_back(0, range(10), -4.0)
    same.compare(WORD, WORD, STEADY[: len(WORD)], 45.0)
    same.favour(NOWHERE, nowhere, STEADY[-1], 26.0)
    same.carry(LABEL, CHOSEN, 0.8)
    gather = Head(layers[3], FIRST)
    gather.look_back(0, range(8, 14), 2.0)
    gather.carry(CHOSEN, CHOSEN, 0.8)
    repeat = Head(layers[4], FIRST)
    repeat.compare(WORD, BEFORE, STEADY[:18], 40.0)
    repeat.compare(CHOSEN, LABEL, STEADY[18:27], 80.0)
    repeat.favour(NOWHERE, nowhere, STEADY[27], 38.0)
    repeat.carry(WORD, WORD, COPY_GAIN)
    repeat.carry(FORM, FORM, COPY_GAIN, first=len(WORD))


HELD = {
    (2, FIRST): ("q_proj", "k_proj", "v_proj"),
    (3, FIRST): ("v_proj",),
    (4, FIRST): ("v_proj",),
}
"""By layer and head: the same word is found as set; what is chosen and repeated may be learnt."""


def hold(model: Any) -> None:
    """Keeps training from embeddings and the first two layers, from what heads set by hand read, and from writing more to the new dimensions.

    What stands there is small beside the old part: a few steps of an optimizer that normalises gradients would bury it.
    """
    model.model.embed_tokens.requires_grad_(False)
    model.model.layers[:2].requires_grad_(False)
    for layer in model.model.layers[2:]:
        for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            weight.register_hook(_without(slice(OLD_WIDTH, WIDTH)))
    for (place, head), names in HELD.items():
        for name in names:
            weight = getattr(model.model.layers[place].self_attn, name).weight
            weight.register_hook(_without(slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)))


def _without(rows: slice) -> Callable[[Any], Any]:
    def masked(gradient: Any) -> Any:
        gradient = gradient.clone()
        gradient[rows] = 0.0
        return gradient

    return masked
