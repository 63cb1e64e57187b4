"""The HTTP service: images in, predictions and inference graphs out."""
