"""What the outside sees: application builder, configuration, ingress, pipeline, command line."""
