"""Side by side with peers, in one run: `python -m benchmarks` and `make bench`."""
