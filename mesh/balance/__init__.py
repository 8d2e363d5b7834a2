"""CHOOSE a task: policies over the endpoints that may be used now. Pure: clock and chance are arguments."""
