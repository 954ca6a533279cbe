"""What a sabotage is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sabotage:
    """One way to break money silently.

    Attributes:
        name, what: What it does.
        test: Test file (or node id) that must go red within 20 seconds.
        edits: (file below ai_budget_callbacks/, text that stands there exactly once, replacement).
    """

    name: str
    what: str
    test: str
    edits: tuple[tuple[str, str, str], ...]

    def apply(self, tree: Path) -> None:
        for name, old, new in self.edits:
            path = tree / "ai_budget_callbacks" / name
            text = path.read_text()
            assert text.count(old) == 1, (
                f"{self.name}: {old!r} stands {text.count(old)} times in {name}; mend the patch"
            )
            path.write_text(text.replace(old, new))
