"""Mutants that may live: those that no test can tell from the code, each with the reason."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Survivors:
    """The list.

    reasons: why a mutant lives, by module, function or class, and the lines before and after
    """

    reasons: dict[Key, str]

    @classmethod
    def listed(cls, path: Path) -> "Survivors":
        """Read survivors.toml: tables `[[alike]]` of a reason, and of mutants as [module, where, before, after]."""
        groups = tomllib.loads(path.read_text("utf-8"))["alike"]
        return cls({tuple(mutant): group["reason"] for group in groups for mutant in group["mutants"]})

    def differences(self, lived: list[Key], modules: list[Path]) -> list[str]:
        """Return in words how the list and the mutants of some modules that live differ."""
        here = {str(path) for path in modules}
        listed = {key for key in self.reasons if key[0] in here}
        return [
            *(f"lives, and is not listed: {list(key)}" for key in sorted(set(lived) - listed)),
            *(f"is listed, and does not live: {list(key)}" for key in sorted(listed - set(lived))),
        ]
