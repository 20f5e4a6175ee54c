"""Object detection: one base, and a file for each published detector."""
