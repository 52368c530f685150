"""Content rules: what may not stand in prompts and answers, by words, patterns, and a moderation model."""
