"""For those who test what they build on fedtasks; nothing here runs in production."""
