"""One half of a task, in a process of its own: its configuration, what it may use, and how it ends."""
