"""Quality over time: metrics window by window, with or without labels.

Its arithmetic needs numpy and scipy only; evaluation is loaded where rows are measured.
"""
