"""The program, as ``pagewalk`` and as ``python -m pagewalk``."""

try:
    from pagewalk.interrupt import end_at_once

    end_at_once()
except KeyboardInterrupt:  # it came before the handler was set
    import os

    os._exit(130)


def run() -> None:
    """Run the command line, and end the program with its exit code."""
    from pagewalk import cli

    cli.run()


if __name__ == "__main__":
    run()
