"""Recorded provider answers played through the real clients and the handler. The recordings stay in ../shared."""
