"""Documents and what is kept of them: collections, search, prompt assembly."""
