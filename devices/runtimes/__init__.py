"""Runtimes: compiling ONNX files to engines, loading them and running them."""
