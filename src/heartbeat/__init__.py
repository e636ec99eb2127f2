"""Kafka beats kept alive in Redis: a Kafka-Connect-compatible sink worker without a JVM."""

__version__ = "0.1.0"
