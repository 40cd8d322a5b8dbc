"""`python -m fedtasks.cli`, for those who know the interpreter but not its scripts folder."""

from fedtasks.cli import app

if __name__ == "__main__":
    app(prog_name="fedtasks")
