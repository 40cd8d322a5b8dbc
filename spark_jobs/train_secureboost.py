"""Job: one half of training boosted trees. Usage: ``train_secureboost.py CONFIG``."""

from fedtasks.models.secureboost.steps import train
from fedtasks.tasks import main

if __name__ == "__main__":
    main(train)
