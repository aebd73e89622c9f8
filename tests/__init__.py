"""The tests, a package: some library on the path may have one of that name, too."""
