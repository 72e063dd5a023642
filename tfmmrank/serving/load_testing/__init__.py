"""Load tests that do not flatter."""
