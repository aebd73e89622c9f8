"""What a component is given by path."""

from losses import loss


def run_fn(rows):
    return f"{loss(rows)}\n"
