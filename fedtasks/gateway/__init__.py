"""A party's only door to its peers: opens, watches and cancels runs, and relays the frames of sessions unread."""
