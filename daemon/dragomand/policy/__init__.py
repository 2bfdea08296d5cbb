"""Pure state machines of admission: no clock, no randomness, no tasks. Time and chance are arguments."""
