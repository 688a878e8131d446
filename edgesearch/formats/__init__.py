"""Networks and blocks as ONNX files, in each precision."""
