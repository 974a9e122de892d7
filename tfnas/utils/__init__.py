"""Files, text, statistics, devices, safe readers: what knows nothing of architecture search."""
