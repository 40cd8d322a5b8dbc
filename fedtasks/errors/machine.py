"""A machine of one party: its store, its ports, its processes."""

from __future__ import annotations

from fedtasks.errors.base import MachineError


class NotPrivate(MachineError):
    """Raised when other users of this machine could read, or have made, what must be this party's alone."""

    code = "NOT_PRIVATE"
    summary = "What must be one party's alone is open to other users of its machine"
    remedy = "Run the command that is named, then see who may have read the files"


class StoreUnavailable(MachineError):
    """Raised when the store cannot be reached or is of another version."""

    code = "STORE_UNAVAILABLE"
    retryable = True
    summary = "The store is not available"
    remedy = "Check `store` in party.yaml; migrate with `fedtasks store migrate`"


class StoreReplaced(MachineError):
    """Raised when a gateway would serve another store than the one that it has served before."""

    code = "STORE_REPLACED"
    summary = "The store is another one than the gateway has served before"
    remedy = (
        "Restore the store, or correct `store` in party.yaml; if this one is to take its place, run "
        "`fedtasks store adopt`"
    )


class StoreInUse(MachineError):
    """Raised when a gateway is started on a store of one process that another gateway serves."""

    code = "STORE_IN_USE"
    summary = "Another gateway serves the store, which can be served by one alone"
    remedy = (
        "Stop the one that does; or move the store into PostgreSQL (`store.url` in party.yaml), where several gateways "
        "of one party stand by for each other"
    )


class StorageUnavailable(MachineError):
    """Raised when a remote store of files did not serve, though it was asked again; ``where`` is the file's URI."""

    code = "STORAGE_UNAVAILABLE"
    retryable = True
    summary = "The storage of files does not serve"
    remedy = "Look why HDFS, or whatever `storage` and the datasets' `uri` name, does not serve; then clear the task"


class AirflowUnreachable(MachineError):
    """Raised when this party's own Airflow does not answer."""

    code = "AIRFLOW_UNREACHABLE"
    retryable = True
    summary = "The gateway's own Airflow does not answer"
    remedy = "Start Airflow, or correct `airflow` in party.yaml"


class AirflowRefused(AirflowUnreachable):
    """Raised when Airflow answers, but does not let the gateway's user in or gives that user too few rights."""

    code = "AIRFLOW_REFUSED"
    summary = "The gateway's own Airflow refuses the gateway's login"
    remedy = (
        "Correct the login in the section `airflow` of party.yaml, or what its file holds; or give that user its "
        "rights in Airflow"
    )


class AirflowIncomplete(MachineError):
    """Raised when a part of this party's own Airflow, which ``part`` names, has not been heard of for too long."""

    code = "AIRFLOW_INCOMPLETE"
    retryable = True
    summary = "A part of the gateway's own Airflow does not run"
    remedy = (
        "Start the part of {own}'s Airflow that is named (`airflow scheduler`, `triggerer`, `dag-processor` or "
        "`api-server`), or see its log; then everything goes on by itself"
    )


class GatewayOutdated(MachineError):
    """Raised when the gateway runs with another party.yaml than the one that is there, in parts that are read once."""

    code = "GATEWAY_OUTDATED"
    summary = "The gateway was started before its party.yaml was changed"
    remedy = "Restart the gateway; then party.yaml counts as it stands"


class NoticeFailed(MachineError):
    """Raised when a notice could not be posted."""

    code = "NOTICE_FAILED"
    retryable = True
    summary = "A notice could not be posted"
    remedy = "Check the URL in `notify.webhook_url_file` of party.yaml, and that this machine may reach it"


class PortInUse(MachineError):
    """Raised when a listener's port is taken."""

    code = "PORT_IN_USE"
    summary = "A port or socket is in use"
    remedy = "Stop the other process or name another port or socket in party.yaml"


class DemoRunning(MachineError):
    """Raised when a demo is started while another one of this user runs on the same machine."""

    code = "DEMO_RUNNING"
    summary = "Another demo runs on the same machine"
    remedy = "Wait until the other demo has ended, or end it where it was started (Ctrl-C), then start again"


class OutOfMemory(MachineError):
    """Raised when a process needs more memory than it may take, or was ended by its machine for that."""

    code = "OUT_OF_MEMORY"
    summary = "A task needs more memory than it may take"
    remedy = (
        "Give the task more memory, or let it take less: `duckdb.memory` in party.yaml and fewer `duckdb.threads`, or "
        "`spark.driver_memory`; then clear the task"
    )


class DiskFull(MachineError):
    """Raised when what a process keeps in files finds no room; ``detail`` or ``where`` says on which disk."""

    code = "DISK_FULL"
    summary = "A disk is full"
    remedy = "Free the disk that `storage` of party.yaml, or the folder for temporary files, is on; then clear the task"


class WorkerLost(MachineError):
    """Raised when the gateway has not heard for too long of the worker that runs a half."""

    code = "WORKER_LOST"
    retryable = True
    summary = "The worker of a half is gone"
    remedy = (
        "Nothing to do while Airflow tries again, once it has noticed by itself (`task_instance_heartbeat_timeout`); "
        "else see whether {own}'s Airflow and its workers run and reach {own}'s gateway"
    )


class WorkersParted(MachineError):
    """Raised when another of this party's workers, which train one model together, has ended."""

    code = "WORKERS_PARTED"
    retryable = True
    who = "nobody"
    summary = "Another worker of the same training has ended, so this one ends too"
    remedy = "Nothing to do: all workers go on together from the newest checkpoint that all of them hold"


class WorkersMissing(MachineError):
    """Raised when workers that train one model together did not come together in time."""

    code = "WORKERS_MISSING"
    retryable = True
    who = "both"
    summary = "Not all workers of a training came together in time"
    remedy = (
        "Let both Airflows run as many tasks at once as the step has `workers` (`parallelism`, "
        "`max_active_tasks_per_dag`, pools), those of one party on one machine, and clear the group of the step's "
        "tasks; or name fewer `workers`, on both sides"
    )


class HalfStalled(MachineError):
    """Raised when a half has computed for too long without saying that it makes progress."""

    code = "HALF_STALLED"
    retryable = True
    summary = "A half makes no progress"
    remedy = (
        "Nothing to do while Airflow tries again; if {own}'s half is only slow, let it call `context.alive()`, or "
        "raise `stall_s` of the step or of {own}'s party.yaml, else see why it hangs"
    )


class ProcessFailed(MachineError):
    """Raised when an algorithm's process ended without saying why."""

    code = "PROCESS_FAILED"
    retryable = True
    summary = "The algorithm's process died"
    remedy = "See the task's log; a retry goes on from the newest joint checkpoint"
