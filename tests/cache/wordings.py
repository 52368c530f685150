"""Texts for embedders."""

TEXTS = ["How do I reset my password?", "The cat sat on the mat.", "Wie geht es dir?", "今天天气怎么样?"]
ODD_TEXTS = ["🙂", "a" * 20_000, "word " * 3_000, "\0"]
RESET, FORGOT, CELL = TEXTS[0], "I forgot my password, how can I change it?", "Mitochondria are the powerhouse of the cell."
