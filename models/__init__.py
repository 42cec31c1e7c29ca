"""Networks, their ONNX export and the one ONNX runtime. No env, no message."""
