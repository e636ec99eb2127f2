"""A broker and a Redis for the demo and fast tests, on loopback. Never for a guarantee."""
