"""The router: sends every request to one version, and tells what came of it.

Nothing in it imports TensorFlow.
"""
