"""Pairwise verifiers: whether one answer serves two questions, judged from both texts together."""
