"""The commands: flags in, one call of the package, messages and exit statuses out."""
