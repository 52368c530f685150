"""Keys and the tenants that they are of: what they may do, where that is kept, and how each ingress knows of it."""
