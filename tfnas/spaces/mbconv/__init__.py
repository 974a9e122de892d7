"""Search spaces of MBConv blocks, described in YAML."""
