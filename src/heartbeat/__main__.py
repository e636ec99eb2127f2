"""``python -m heartbeat``."""

from heartbeat.cli import main

if __name__ == "__main__":
    main()
