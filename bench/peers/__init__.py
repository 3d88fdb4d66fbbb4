"""What a user might pick instead: other ways to run the same ops and networks."""

PACKAGES = ("onnx", "onnxruntime", "openvino", "ncnn", "pnnx", "tensorrt")
"""Packages that peers need, besides torch."""
