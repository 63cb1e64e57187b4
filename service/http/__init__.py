"""The service over HTTP: uvicorn, routes, and what stands around every request."""
