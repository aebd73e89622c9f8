"""Texts, beside the package."""


def heading(answer):
    return f"The check says {answer}."
