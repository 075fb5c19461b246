"""One training job, from its spec to the run in MLflow."""
