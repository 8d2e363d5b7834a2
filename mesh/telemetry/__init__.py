"""TELL people: metrics, logs and explanations."""
