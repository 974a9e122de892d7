"""Zero-shot scores, one file each."""
