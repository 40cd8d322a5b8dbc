"""A run, or the model that it trains, cannot go on."""

from __future__ import annotations

from fedtasks.errors.base import RunError


class RunUnknown(RunError):
    """Raised when nobody opened the run."""

    code = "RUN_UNKNOWN"
    who = "own"
    summary = "No such run is known"
    remedy = "List the known runs with `fedtasks runs`; a run begins with its DAG's `open_run`"


class RunUnclaimed(RunError):
    """Raised when the party that has asked for a run does not know it."""

    code = "RUN_UNCLAIMED"
    who = "nobody"
    summary = "The party that asked for the run knows nothing of it"
    remedy = "Nothing to do: its gateway stopped while it asked; a retry of its `open_run` asks again"


class StoreRestored(RunError):
    """Raised when a party's store has lost what it knew of a run; ``store`` names the party."""

    code = "STORE_RESTORED"
    who = "own"
    summary = "A party's store no longer knows the run as it was: it was restored from an older copy, or made anew"
    remedy = (
        "Clear nothing: start the partition again. Look through {own}'s tickets first, since a revocation may be lost "
        "too (`fedtasks ticket list`)"
    )


class RunExists(RunError):
    """Raised when a run's id, or its DAG run, is taken by another run."""

    code = "RUN_EXISTS"
    retryable = True
    who = "own"
    summary = "Another run has the name or the DAG run"
    remedy = "Wait until the other run has ended, or cancel the other one (`fedtasks run cancel`)"


class RunEnded(RunError):
    """Raised when a run has already ended."""

    code = "RUN_ENDED"
    who = "own"
    summary = "The run has ended"
    remedy = "Start the partition again"


class RunRemoved(RunError):
    """Raised when a run would go on whose files a party has removed by its policy."""

    code = "RUN_REMOVED"
    who = "holder"
    summary = "A party has removed the run's files, so the run cannot go on"
    remedy = (
        "Start the partition again, with `force` if it is done; section `keep` of party.yaml says what stays how long"
    )


class RunCancelled(RunError):
    """Raised when a person ended the run on this side."""

    code = "RUN_CANCELLED"
    who = "nobody"
    summary = "The run was cancelled"
    remedy = "Nothing to do; start the partition again when both agree"


class ApprovalPending(RunError):
    """Raised when a half would begin although the person whom the ticket asks for has not answered."""

    code = "APPROVAL_PENDING"
    who = "grantor"
    summary = "A person has yet to approve the run"
    remedy = "Answer the question of the task `approve` in {grantor}'s Airflow; marking the task is no answer"


class ApprovalRejected(RunError):
    """Raised when the person whom a ticket asks for has said no."""

    code = "APPROVAL_REJECTED"
    summary = "A person of the granting party has rejected the run"
    remedy = "Agree on what may run, then start the partition again"


class ApprovalExpired(RunError):
    """Raised when nobody answered whether a run may begin."""

    code = "APPROVAL_EXPIRED"
    who = "holder"
    summary = "Nobody of the granting party has approved the run in time"
    remedy = "Let {grantor} know, then start the partition again"


class RunFailed(RunError):
    """Raised when the Airflow of this side failed the run outside of a federated task."""

    code = "RUN_FAILED"
    who = "own"
    summary = "The DAG run failed"
    remedy = "See the failed task's log in Airflow"


class ConfigDiffers(RunError):
    """Raised when both sides' configurations differ in the named ``field``."""

    code = "CONFIG_DIFFERS"
    summary = "The two sides' configurations differ"
    remedy = "Agree on the named field and deploy the same DAG on both sides"


class RowOrderDiffers(RunError):
    """Raised when the two sides hold rows in different orders."""

    code = "ROW_ORDER_DIFFERS"
    summary = "The two sides' rows are not in the same order"
    remedy = "Clear the task `align` on both sides"


class ReceiptsDiffer(RunError):
    """Raised when the two sides' accounts of a run differ."""

    code = "RECEIPTS_DIFFER"
    summary = "The two sides' receipts differ"
    remedy = "Compare the named count or digest; do not use the outputs"


class DeadlinePassed(RunError):
    """Raised when the other half was not ready in time."""

    code = "DEADLINE"
    summary = "A half was not ready in time"
    remedy = "See what {peer}'s half waits for; raise the deadline if more time is all that is needed"


class TrainingDiverged(RunError):
    """Raised when a loss, a weight, a score or what would be sent is no longer a finite number of a sensible size."""

    code = "TRAINING_DIVERGED"
    summary = "The training diverged"
    remedy = "Lower `learning_rate`, or look for extreme values among the features"


class NetworkInvalid(RunError):
    """Raised when what a model file makes cannot be one half of a network."""

    code = "NETWORK_INVALID"
    who = "own"
    summary = "The model file makes no half of a network"
    remedy = "Mend the model file; `fedtasks dag test` tries it in seconds"


class LabelLeaks(RunError):
    """Raised when attacks on what a training has sent read the labels better than the run allows."""

    code = "LABEL_LEAK"
    who = "own"
    summary = "The labels leak more than the run allows"
    remedy = (
        "Look at the metrics `label_leak_…`; then protect the labels by `label_protection`, train boosted trees, or "
        "allow more by `max_label_leak`, as far as the ticket does"
    )


class ModelTaken(RunError):
    """Raised when a model's name belongs to another pipeline or peer, or a version's number to another version."""

    code = "MODEL_TAKEN"
    who = "own"
    summary = "This name of a model is in use elsewhere"
    remedy = "Give the pipeline's steps another `model`; `fedtasks models` lists those that are taken"


class JoinTaken(RunError):
    """Raised when another commit of a joined stream's shard stands where one was to be made.

    The attempt must end, since what it holds is of before; another one reads anew what is committed.
    """

    code = "JOIN_TAKEN"
    retryable = True
    who = "own"
    summary = "Another commit of this joined stream has been made meanwhile"
    remedy = "Let one run at a time join a stream (`max_active_runs=1`), or give the other pipeline another `stream`"


class JoinDiffers(RunError):
    """Raised when the commits of a joined stream's shard do not belong together on the two sides."""

    code = "JOIN_DIFFERS"
    who = "both"
    summary = "The two sides do not hold the same commits of this joined stream"
    remedy = "Restore the older side's store and storage together, or join under another `stream` on both sides"


class ModelUnknown(RunError):
    """Raised when there is no such version of a model."""

    code = "MODEL_UNKNOWN"
    who = "own"
    summary = "There is no such version of the model"
    remedy = "Choose one that `fedtasks models` lists"


class ModelRemoved(RunError):
    """Raised when a version of a model would be used whose half a party has removed by its policy."""

    code = "MODEL_REMOVED"
    who = "both"
    summary = "A party has removed its half of this version of the model"
    remedy = "Choose a version that `fedtasks models` of both sides keeps; section `keep` of party.yaml says how long"


class ChampionDiffers(RunError):
    """Raised when the two sides cannot put the same version of a model into use."""

    code = "CHAMPION_DIFFERS"
    summary = "The two sides do not hold the same version of the model"
    remedy = "Compare `fedtasks models show` of both sides and choose a version with equal digests"


class AttemptStale(RunError):
    """Raised when an old attempt tries to speak or write after a newer one has begun."""

    code = "ATTEMPT_STALE"
    retryable = True
    who = "nobody"
    summary = "A newer attempt of the task has begun"
    remedy = "Nothing to do: the newer attempt goes on"
