"""Timing on a device, here or elsewhere: runtimes, workers, building and checking tables."""
