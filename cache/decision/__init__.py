"""The verified decision: whether what is known is enough to serve a kept answer, under an error budget.

vCache (Schroeder et al., "vCache: Verified Semantic Prompt Caching", arXiv 2502.03771) is where this begins: answers that are computed
although there is a candidate teach how probably candidates are right. What differs here, and why, stands in `belief.py` (who learns from
whom) and `account.py` (the budget).
"""
