"""The serving engine: a bounded queue, worker threads and a runtime. It knows nothing of the web."""
