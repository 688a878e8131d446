"""Residual networks of elastic width, depth and resolution."""
