"""A model server in Python that behaves as TensorFlow Serving does."""
