"""A neural network split between the party with the label (leader) and the other one (follower).

Each party runs its own features through its own *bottom*. The follower sends what its bottom makes of a batch, the
*embedding*; the leader's *top* turns both into a probability, and the leader sends the loss's gradient with respect to
the embedding back. Nothing else crosses.
"""
