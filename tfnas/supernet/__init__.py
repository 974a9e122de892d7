"""The weight-sharing supernet: it knows neither how paths are sampled nor what they cost."""
