"""The contract between export and service: what an exported model is on disk. No torch, no web."""
