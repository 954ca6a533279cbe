"""Known ways to break money silently, each a patch that the suite must catch. Run with `make sabotage`."""
