"""A Kafka-Connect-compatible sink worker. It knows nothing of heartbeats: its plugin arrives by entry point."""
