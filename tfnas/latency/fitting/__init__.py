"""Architectures fitted to a latency."""
