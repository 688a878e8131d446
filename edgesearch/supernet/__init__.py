"""The weight-sharing supernet and its subnets."""
