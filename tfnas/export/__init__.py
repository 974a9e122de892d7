"""Files to ship: ONNX and torch.export, checked and timed after they are written."""
