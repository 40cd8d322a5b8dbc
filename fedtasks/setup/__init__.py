"""Sets a party up: its folder, keys and party.yaml, the peers that it trusts."""
