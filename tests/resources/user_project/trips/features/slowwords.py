"""Words, slowly."""


def strip(word):
    return word.strip()
