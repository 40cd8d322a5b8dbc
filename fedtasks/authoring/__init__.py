"""Writing a pipeline of one's own: a scaffold, checks, a trial run of both halves, and what it would reveal."""
