"""Teaches some attention heads directly where to look and what to pass on.

Copying needs a circuit over several layers: a head that looks at the token before, and a later one that looks for the same token's last
occurrence and takes what followed (Olsson et al., "In-context Learning and Induction Heads", 2022). Gradient descent finds it only
after very many tokens. Where such heads have to look is known here for each training text, so it is taught: the loss of a guided head is
the negative logarithm of the attention that falls on the right tokens. What they have to pass on is known, too: it is read from what some
of them write, long before the output (as in deep supervision: Lee et al., "Deeply-Supervised Nets", 2015).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy, log_softmax, pad, scaled_dot_product_attention

from deployments.demo_model.lessons import Guide
from deployments.demo_model.packing import Batch

HEADS = {
    "previous": (0, 0),
    "before_previous": (0, 1),
    "label_first": (1, 0),
    "label_second": (1, 1),
    "sentence": (1, 2),
    "same_word": (2, 0),
    "copy": (2, 1),
    "gather_label": (3, 0),
    "copy_again": (3, 1),
    "gather_sentence": (3, 2),
}
"""Layer and head. What follows a label or the beginning of a sentence carries it along; so a word that is found again tells both."""
READOUTS = {
    "carried_label": ("label_first", "label"),
    "carried_sentence": ("sentence", "sentence"),
    "found_label": ("same_word", "label"),
    "found_sentence": ("same_word", "sentence"),
    "gathered_label": ("gather_label", "output"),
    "gathered_sentence": ("gather_sentence", "output"),
    "copied": ("copy", "output"),
    "copied_again": ("copy_again", "output"),
}
"""From the output of which head, and in which of the turned copies of the embedding."""

EMBEDDING_STD, OUTPUT_STD, READ_STD = 0.5, 0.05, 0.15
"""Embeddings have to stay visible beside what the layers add to them."""
CONSTANT = 4.0
"""Length of what all embeddings have in common. Heads that look by distance alone compare nothing else."""
CARRIED = 0.8
"""Of what a wired head reads and of what it writes, the factor."""


class Guidance:
    """Of one new model, to which it gives its first values. Draws from torch's random numbers.

    The output layer is the embedding, turned: so a token does not say itself. Labels and beginnings of sentences are passed on in two more
    turned copies, where they disturb neither the token's own embedding nor each other. Heads that copy or pass on begin with a projection
    of what they find into the copy where it belongs; queries and keys are left to training.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        width, size = model.config.hidden_size, model.config.head_dim
        basis, output, label, sentence = (torch.linalg.qr(torch.randn(width, width)).Q for _ in range(4))
        self._turns = {"label": label, "sentence": sentence, "output": output}
        first, second = basis[: size // 2], basis[size // 2 : size]
        both = torch.cat((first @ label, second @ sentence))
        with torch.no_grad():
            embeddings = model.model.embed_tokens.weight.normal_(std=EMBEDDING_STD)
            model.lm_head.weight.copy_(embeddings @ output * (OUTPUT_STD / EMBEDDING_STD))
            embeddings.add_(CONSTANT * basis[-1])
            for name, read in (("copy", basis[:size]), ("copy_again", basis[size : 2 * size])):
                self._set(name, read, read @ output)
            self._set("label_first", first, first @ label)
            self._set("sentence", second, second @ sentence)
            self._set("same_word", both, both)
            self._set("gather_label", first @ label, first @ output)
            self._set("gather_sentence", second @ sentence, second @ output)

    def _set(self, name: str, read: Any, written: Any) -> None:
        layer, head = HEADS[name]
        attention, first = self._model.model.layers[layer].self_attn, head * self._model.config.head_dim
        attention.v_proj.weight[first : first + len(read)] = CARRIED * read
        attention.o_proj.weight[:, first : first + len(written)] = CARRIED * written.T

    def forward(self, shown: Batch) -> tuple[Any, dict[str, Any]]:
        """Hidden states behind the last norm, (rows, length, width), and the mean loss of each guided head and of each readout."""
        model, losses = self._model, dict[str, Any]()
        config = model.config
        rows, length = shown.ids.shape
        hidden = model.model.embed_tokens(shown.ids)
        cos, sin = rotary(shown.positions, config.rope_parameters["rope_theta"], config.head_dim)
        for number, layer in enumerate(model.model.layers):
            normed, attention = layer.input_layernorm(hidden), layer.self_attn
            split = (rows, length, config.num_attention_heads, config.head_dim)
            query, key, value = (
                projection(normed).view(split).transpose(1, 2) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            )
            query, key = rotated(query, cos, sin), rotated(key, cos, sin)
            for name, (at, head) in HEADS.items():
                if at == number and name in shown.guides:
                    losses[name] = _looking(query[:, head], key[:, head], shown.mask[:, 0], shown.guides[name])
            mixed = scaled_dot_product_attention(query, key, value, attn_mask=shown.mask).transpose(1, 2)
            for name, (source, copy) in READOUTS.items():
                at, head = HEADS[source]
                if at == number and name in shown.told:
                    written = attention.o_proj.weight[:, head * config.head_dim : (head + 1) * config.head_dim]
                    losses[name] = self._telling(mixed[:, :, head], written, copy, shown.told[name])
            hidden = hidden + attention.o_proj(mixed.reshape(rows, length, -1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return model.model.norm(hidden), losses

    def _telling(self, mixed: Any, written: Any, copy: str, told: Any) -> Any:
        """`mixed`: what a head found, (rows, length, head_dim); `told`: rows, places and tokens, (3, n)."""
        found = mixed[told[0], told[1]] @ written.T
        found = found * torch.rsqrt(found.pow(2).mean(-1, keepdim=True) + 1e-6)
        words = self._model.model.embed_tokens.weight.detach() @ self._turns[copy] * (READ_STD / EMBEDDING_STD)
        return cross_entropy((found @ words.T).float(), told[2])


def rotary(positions: Any, theta: float, head_dim: int) -> tuple[Any, Any]:
    """Cosines and sines, (rows, 1, length, head_dim)."""
    angles = positions[..., None] * theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    both = torch.cat((angles, angles), -1)[:, None]
    return both.cos(), both.sin()


def rotated(vectors: Any, cos: Any, sin: Any) -> Any:
    first, second = vectors.chunk(2, -1)
    return vectors * cos.to(vectors.dtype) + torch.cat((-second, first), -1) * sin.to(vectors.dtype)


def _looking(query: Any, key: Any, mask: Any, guides: Sequence[Sequence[Guide]]) -> Any:
    parts = []
    for number, wanted in enumerate(guides):
        if not wanted:
            continue
        places = torch.tensor([guide.query for guide in wanted])
        most = max(len(guide.targets) for guide in wanted)
        targets = torch.tensor([[*guide.targets, *[-1] * (most - len(guide.targets))] for guide in wanted])
        scores = (query[number, places] @ key[number].T).float() / query.shape[-1] ** 0.5
        shares = log_softmax(scores.masked_fill(~mask[number, places], -1e9), -1)
        # One more key that nothing is given to, for the places of targets that there are not.
        found = pad(shares, (0, 1), value=-1e9).gather(1, targets % (shares.shape[1] + 1))
        parts.append(-found.logsumexp(-1))
    return torch.cat(parts).mean()
