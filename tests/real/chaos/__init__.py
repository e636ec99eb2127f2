"""The monitor held to the truth: a randomised run judged by a pure oracle, and each promise alone, on real parts."""
