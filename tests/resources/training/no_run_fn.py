"""A module file whose function is named wrongly."""


def run_func(fn_args):
    """Do nothing."""


def helper():
    """Do nothing."""
