"""Monitoring: a model in production is watched, and retrained when it is due."""
