"""The OpenAPI document of the HTTP routes."""
