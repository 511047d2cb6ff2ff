"""What each part of the method is worth, and what it costs."""
