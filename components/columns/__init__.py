"""Columns: Arrow in and out, from CSV, Parquet and TFRecord; the split assignment.

`examples` is the way every other component reads an `Examples` artifact.
"""
