"""The Grafana dashboards as code: `python -m docker.grafana` writes the JSON that Grafana loads."""
