"""The Open Inference Protocol, version 2: tensors for requests and answers, whatever brings them."""
