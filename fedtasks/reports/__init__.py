"""What a person wants to know of runs, tickets and decisions, read from the store for notes, commands and pages."""
