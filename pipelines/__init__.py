"""Pipelines: rules, runners, the lineage store and what can be asked of it."""
