"""Spark job: one half of private set intersection. Usage: ``psi.py CONFIG``."""

from fedtasks.psi.offline import run
from fedtasks.runtime.process import main

if __name__ == "__main__":
    main(run)
