"""Model files that come with fedtasks."""
