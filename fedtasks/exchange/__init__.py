"""How two halves exchange messages and files: announced, checked, resumable."""
