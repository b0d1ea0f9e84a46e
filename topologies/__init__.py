"""Devices and cables: nodes, networks between them, and the graph vocabulary that they share."""
