"""Spark job: one half of alignment. Usage: ``align.py CONFIG``."""

from fedtasks.psi.align import run
from fedtasks.runtime.process import main

if __name__ == "__main__":
    main(run)
