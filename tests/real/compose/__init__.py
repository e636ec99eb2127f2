"""Tests of the compose stack and of the original README's commands, on a real Docker engine."""
