"""Timing workloads fairly, on this machine or elsewhere."""
