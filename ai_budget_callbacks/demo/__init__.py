"""The demo: a provider on loopback that keeps its own bill, and a runaway agent to stop."""
