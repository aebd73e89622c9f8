"""A module of a namespace package."""


def marked(rows):
    return "\n".join(f"* {row}" for row in rows)
