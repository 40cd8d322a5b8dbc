"""Spark job: cuts a party's log for the shards of a join. Usage: ``cut.py CONFIG``, the configuration of the join."""

from fedtasks.join.batch import run
from fedtasks.runtime.process import main

if __name__ == "__main__":
    main(run)
