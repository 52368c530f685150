"""OpenAI's wire formats without I/O: what a request asks for, what an answer holds, how both look on the wire."""
