"""Two parties or more in one process, on simulated time, with an auditor: real gateways, and everything else a model.

`simulate` plays one schedule; `python -m fedtasks.testing.simulation` plays many and says which broke a rule.
"""

from fedtasks.testing.simulation.auditor import Violation
from fedtasks.testing.simulation.plan import Event, Plan, draw
from fedtasks.testing.simulation.simulate import Outcome, shrink, simulate

__all__ = ["Event", "Outcome", "Plan", "Violation", "draw", "shrink", "simulate"]
