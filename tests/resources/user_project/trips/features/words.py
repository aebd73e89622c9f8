"""Words."""

try:
    from fastwords import strip
except ImportError:
    from .slowwords import strip

SPACES = ["_", "-"]


def tidy(word: str) -> str:
    """Return a word without what surrounds it."""
    found = strip(word)
    for mark in SPACES:
        found = found.replace(mark, " ")
    return found


if __name__ == "__main__":
    print(tidy("a_word"))
