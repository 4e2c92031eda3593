"""The console script. `--version` is answered before anything heavy is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from trainctl import __version__

        print(f"trainctl {__version__}")
        return
    try:
        from trainctl.cli.app import run
    except KeyboardInterrupt:  # Ctrl-C while the modules are loaded, which takes most of a start
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
