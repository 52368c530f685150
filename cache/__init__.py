"""The shared cache tier as a library: plain Python, with clock, stores and embedder injected."""
