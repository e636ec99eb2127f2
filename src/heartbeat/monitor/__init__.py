"""The monitor: who has stopped, with proof, told once."""
