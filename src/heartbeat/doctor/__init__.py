"""``heartbeat doctor``: looks at every part that a verdict rests on, and says of each finding what it means and what to type."""
