"""Monitoring: profiles of what a model saw, drift, quality over time, and what follows.

Its arithmetic needs numpy and scipy only; nothing here loads TensorFlow by itself.
"""
