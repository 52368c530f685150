"""How exactly a network computes. Apart from it, so that who only names one imports nothing heavy."""

from typing import Literal

Precision = Literal["float32", "int8"]
"""`int8`: word embeddings and dense weights, with a scale for each row, and what is multiplied with them, with a scale for each token."""


def named(name: str, precision: Precision) -> str:
    """Of a model in this precision, and this way to quantise: what it says is not quite the same."""
    return name if precision == "float32" else f"{name}+{precision}-rows"


def in_float32(name: str) -> str:
    """The name of the same model in float32."""
    return name.partition("+")[0]
