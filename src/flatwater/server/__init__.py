"""The HTTP server: API, page, event stream, health and metrics. The one place that puts the parts together."""
