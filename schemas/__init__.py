"""The nouns of penstock: artifact types, verdicts, errors and file layouts."""
