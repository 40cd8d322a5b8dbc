"""How a gateway is seen from outside: whether it lives, whether it serves, and figures; nothing here changes anything.

::

    gateway's loop ── pulse: once a second, how it is ──┐
                                                        ▼
    store ◄── at most every few seconds ── figures ── endpoint (a thread and a loop of its own) ◄── GET /metrics, …

So neither a gateway whose loop is stuck, nor a store that does not answer, nor whoever asks keeps the others waiting.
"""
