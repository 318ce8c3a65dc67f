"""The fixture `serve`: a real server on a free port, from a config in the test."""

pytest_plugins = ["realtime.testing"]
