"""Property tests have no deadline: on shared cores a single example may take any time."""

from hypothesis import settings

settings.register_profile("shared_cores", deadline=None)
settings.load_profile("shared_cores")
