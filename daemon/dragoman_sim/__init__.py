"""A loopback server that speaks the Messages API, with faults: for the demo, the tests and load."""
