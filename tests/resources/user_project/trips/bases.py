"""What several components have in common."""

from penstock import Component
from penstock.schemas.artifacts import Examples


class Rows(Component):
    """Reads and writes rows of text."""

    def read(self, examples: Examples) -> list[str]:
        return (examples.path / "rows.txt").read_text().splitlines()

    def write(self, examples: Examples, rows: list[str]) -> None:
        (examples.path / "rows.txt").write_text("".join(f"{row}\n" for row in rows))


class Kept(Rows):
    """Reads rows that are worth keeping."""

    def read(self, examples: Examples) -> list[str]:
        return [row for row in super().read(examples) if row]
