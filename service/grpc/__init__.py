"""The Open Inference Protocol over gRPC, whose packages need not be installed: it is imported where a port is set."""
