"""TF-NAS: differentiable search by a weight-sharing supernet."""
