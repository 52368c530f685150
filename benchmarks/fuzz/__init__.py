"""Damaged requests against the whole application: it answers or refuses each, tells nobody another's secrets, and stays well."""
