"""Images: where they are, which parts, how they are read, changed and batched."""
