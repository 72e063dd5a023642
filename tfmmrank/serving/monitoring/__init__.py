"""What is seen of a served model: metrics, logged requests, drift."""
