"""Measurements on real data and at scale. ``python -m benchmarks`` runs the example recipes."""
