"""The verbs of penstock: components, one folder per capability."""
