"""The verified decision: whether what is known is enough to serve a kept answer, under an error budget.

The rule is vCache's (Schroeder et al., "vCache: Verified Semantic Prompt Caching", arXiv 2502.03771), from its equations: with a
lower bound on the probability that the answer is right, the cache is passed over just so often that errors stay below the budget.
What differs here, and why, stands in `belief.py` (who learns from whom) and `policy.py` (the bound).
"""
