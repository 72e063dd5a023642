"""What serving is judged by: latency, swaps, crashes, malformed requests, a million items, smaller weights."""
