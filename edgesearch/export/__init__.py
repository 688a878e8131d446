"""Export of subnets as ONNX files and engines, with verification and manifest."""
