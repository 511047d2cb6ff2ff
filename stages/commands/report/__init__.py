"""The quality report of a run: what is measured, and its page."""
