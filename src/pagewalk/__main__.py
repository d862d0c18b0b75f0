"""The program, as ``pagewalk`` and as ``python -m pagewalk``."""

try:
    from pagewalk.interrupt import end_at_once

    end_at_once()
except KeyboardInterrupt:  # it came before the handler was set
    import os

    os._exit(130)


def run() -> None:
    """Run the command line, and end the program with its exit code."""
    import gc

    # Hundreds of modules are imported and leave no garbage; to look for it is a twentieth of the
    # whole command. It begins when a process is opened (commands.look_for_garbage).
    gc.disable()
    from pagewalk import cli

    cli.run()


if __name__ == "__main__":
    run()
