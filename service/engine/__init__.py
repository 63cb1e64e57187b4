"""The serving engine: a bounded queue, workers and runtimes. It knows nothing of the web."""
