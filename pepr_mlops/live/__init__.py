"""The live page: the figures of a dashboard, which follow their controls and the server."""
