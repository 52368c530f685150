"""The prefix tier: which replica holds the KV of a prompt's beginning, and what it costs to compute the rest where.

    engine's events ── reader ── mirror ──(keys)── index ┐
                                                         ├─ router ── a ranked list of replicas
    requests under way ── ledger ── profile (seconds) ───┘

Nothing here knows of Ray, sockets or HTTP; the clock is injected.

- `keys.py`     names of blocks that both ends can compute from tokens
- `events.py`   KV events in the engine's wire form
- `reader.py`   the order of event batches: gaps, restarts
- `mirror.py`   an engine's cache, seen through its events (beside the engine)
- `index.py`    which replica holds which block (in every ingress)
- `pending.py`  blocks that requests under way will leave there
- `profile.py`  seconds of a prefill, learnt from what engines took
- `ledger.py`   what is under way on a replica
- `heat.py`     how often prefixes were asked for lately
- `router.py`   the decision
- `drift.py`    whether its predictions can be believed
"""
