"""Sweeps: a grid over any fields of a scenario, its points in parallel, each on disk the moment it is done."""

from simulator.sweeps.sweeping import sweep

__all__ = ["sweep"]
