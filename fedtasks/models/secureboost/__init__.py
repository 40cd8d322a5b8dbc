"""Boosted trees over the features of two parties, of which one, the leader, holds the label.

The leader encrypts each row's gradient; the follower adds up what it cannot read, over the rows on one side of each of
its candidate splits; the leader decrypts the sums and chooses. Whoever owns a split keeps its feature and threshold.
"""
