"""Anthropic's messages API: its requests, its errors, and its routes."""
