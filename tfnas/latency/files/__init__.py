"""Tables as files: our JSON, and the TF-NAS authors' pickles."""
