"""What the daemon tells about itself: redaction now, metrics and traces with their features."""
