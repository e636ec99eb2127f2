"""Tests against real parts: Kafka brokers from Maven's jars, Debian's Redis, a JVM Connect worker, and our worker as a user starts it."""
