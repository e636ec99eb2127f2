"""The domain: what a beat is, how it becomes a Redis key, and the one plugin that does so."""
