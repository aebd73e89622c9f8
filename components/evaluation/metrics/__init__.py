"""The metrics that are computed in columns, by the names that TFMA gives them.

Each module adds its own to `registry.METRICS`; a metric that none has is left to TFMA.
"""
