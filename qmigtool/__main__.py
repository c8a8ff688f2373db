"""``python -m qmigtool``."""

from qmigtool.cli.main import entry

if __name__ == "__main__":
    entry()
