"""The command `compare`: two or more reports side by side."""
