"""Whether a request is taken: what its tenant and its key may have in a minute and at once."""
