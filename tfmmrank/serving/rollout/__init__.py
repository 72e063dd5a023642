"""Versions into service and out of it: canary promotion by labels."""
