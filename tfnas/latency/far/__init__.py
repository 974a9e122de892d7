"""Measuring on another device, by a worker that needs Python, numpy and onnxruntime only."""
