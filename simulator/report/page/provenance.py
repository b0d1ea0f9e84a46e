"""Where a result comes from, so that it can be had again."""

from typing import Any


def provenance_rows(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what made a result and how it was simulated, each with its name in words."""
    provenance, simulation = summary["provenance"], summary["simulation"]
    solved, reused = simulation["collectives_solved"], simulation["collectives_reused"]
    return [
        ("Version of railplane", provenance["version"]),
        ("Seed", str(provenance["seed"])),
        ("SHA-256 of the scenario", provenance["scenario_sha256"]),
        (
            "Flows",
            f"{simulation['flows']:,}; {simulation['flows_rerouted']:,} times on another route by a fault",
        ),
        ("Rates solved", f"at {simulation['solves']:,} instants"),
        ("Collectives", f"{solved:,} solved, {reused:,} reused; reuse {simulation['reuse']}"),
    ]
