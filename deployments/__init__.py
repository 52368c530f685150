"""One file for each Ray Serve deployment, and the engines behind the LLM replica."""
