"""`python -m fedtasks.runtime ENTRY CONFIG`: what ``fedtasks task run`` does, without the cost of a command line.

Operators start halves so where no warm parent forks them.
"""

import sys
from pathlib import Path

from fedtasks.data.lean import lean_imports

with lean_imports():
    from fedtasks.runtime.process import end, run_named

if __name__ == "__main__":
    entry, config = sys.argv[1:]
    end(entry, run_named(entry, Path(config)))
