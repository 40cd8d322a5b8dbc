"""Labels stay secret: what is done to the gradients that leave the label's holder, or to its labels before."""
