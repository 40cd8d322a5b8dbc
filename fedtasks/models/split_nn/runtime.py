"""How TensorFlow runs in the processes of this party."""

from __future__ import annotations

import logging
import os

import tensorflow as tf

log = logging.getLogger(__name__)

_THREADS = 2


def prepare_tensorflow(*, overlaps: bool = False) -> None:
    """Make results repeatable and leave cores for the other processes of this machine.

    Parameters
    ----------
    overlaps
        Whether a step is computed while others of the same training are: with a window of several batches, or several
        workers. Then a process of two cores computes with one thread, which takes a sixth less CPU; else it uses both
        while the other half waits.

    Notes
    -----
    The number of threads changes no bit of a result.
    """
    tf.config.experimental.enable_op_determinism()
    # These add up in another order depending on what else is in a graph, so halves would not train to the same bits as
    # the network that is one graph: the first puts sums together anew, the second adds within a product of matrices.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False, "remapping": False})
    try:
        cores = len(os.sched_getaffinity(0))
        tf.config.threading.set_intra_op_parallelism_threads(
            max(1, min(_THREADS, cores // 2)) if overlaps else _THREADS
        )
        tf.config.threading.set_inter_op_parallelism_threads(_THREADS)
    except RuntimeError:
        log.info("TensorFlow already runs in this process and keeps its threads")
