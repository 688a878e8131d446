"""Shared weights, and subnets taken out of them."""
