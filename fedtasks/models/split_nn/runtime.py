"""How TensorFlow runs in the processes of this party."""

from __future__ import annotations

import logging

import tensorflow as tf

log = logging.getLogger(__name__)


def prepare_tensorflow() -> None:
    """Make results repeatable and leave cores for the other processes of this machine."""
    tf.config.experimental.enable_op_determinism()
    # These add up in another order depending on what else is in a graph, so halves would not train to the same bits as
    # the network that is one graph: the first puts sums together anew, the second adds within a product of matrices.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})
    try:
        tf.config.threading.set_intra_op_parallelism_threads(2)
        tf.config.threading.set_inter_op_parallelism_threads(2)
    except RuntimeError:
        log.info("TensorFlow already runs in this process and keeps its threads")
