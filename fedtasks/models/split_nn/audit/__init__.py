"""What crosses at the cuts tells of the labels and of the features, measured by attacks that the other half could make.

The label's holder attacks what it has sent and what it has received (`attacks`, `sample`, `completion`); either half
tries to rebuild its own features from what it has sent (`reconstruction`).
"""
