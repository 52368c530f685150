"""k-means on GPUs, where FAISS has been built for them and finds some.

What takes minutes in a large index is k-means. The index that comes of it is the same kind of file, and searches, which take milliseconds,
stay on the CPU.
"""

import logging
from typing import Any

log = logging.getLogger(__name__)


def clustering_index(faiss: Any, dimension: int) -> Any | None:
    """What k-means is to find the nearest centroids with, on all GPUs; None without any."""
    if not getattr(faiss, "get_num_gpus", int)():
        return None
    try:
        return faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(dimension))
    except Exception as error:  # no memory left there, or a driver that does not fit
        log.warning("FAISS could not use the GPUs, so centroids are computed on the CPU: %s", error)
        return None
