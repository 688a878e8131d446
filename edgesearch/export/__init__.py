"""Subnets as ONNX files and engines, checked and documented."""
