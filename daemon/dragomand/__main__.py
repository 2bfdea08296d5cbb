"""`dragomand`: the daemon's own command. People use `dragoman daemon start`, editors `dragoman stdio`.

The order matters and is short on purpose: say whose child we are, read settings, take the lock, bind, and
only then import and build the rest. Whatever goes wrong on the way is told to the starter in words.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from dragoman.locate import LocateError, Paths, find_paths

from dragomand.process.limits import protect
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import prepare
from dragomand.process.readiness import Readiness
from dragomand.process.signals import start_clean

EXIT_OK = 0
EXIT_FAILED = 1
"""Could not start; the reason is on stderr and went to the starter."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon and return its exit status: 0 after an orderly stop, 1 if it could not start."""
    start_clean()
    readiness = Readiness.from_env(os.environ)
    arguments = _parse(argv)
    if arguments.daemonized:
        left = readiness.detach()
        if left is not None:
            return left
    try:
        if arguments.private:
            return _run_private(arguments.set)
        return _run_shared(readiness, arguments.set)
    except Exception as failed:  # noqa: BLE001  # the starter must learn of it, whatever it is
        text = _reason(failed)
        readiness.failed(text)
        print(f"dragomand: {text}", file=sys.stderr)
        return EXIT_FAILED


def _reason(failed: Exception) -> str:
    """Return what a person is told: the error itself, out of the groups that task groups make, redacted."""
    from dragomand.store.errors import StorageError
    from dragomand.telemetry.redaction import Redactor, secrets_of

    while isinstance(failed, ExceptionGroup) and len(failed.exceptions) == 1:
        failed = failed.exceptions[0]
    for_people = isinstance(failed, LocateError | StorageError)
    text = str(failed) if for_people else f"{type(failed).__name__}: {failed}"
    return Redactor(secrets_of(os.environ))(text)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    from dragoman_protocol import VERSION

    parser = argparse.ArgumentParser(
        prog="dragomand",
        description="The Dragoman daemon, in the foreground. In the background: `dragoman daemon start`.",
        epilog="Settings: docs/configuration.md. Logs: `dragoman daemon logs`.",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override a setting"
    )
    parser.add_argument(
        "--private", action="store_true",
        help="one daemon for one connection on stdin and stdout, with folders of its own that go with it",
    )  # fmt: skip
    parser.add_argument("--stdio", action="store_true", help="with --private: said for clarity")
    parser.add_argument("--daemonized", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="version", version=f"dragomand {VERSION}")
    arguments = parser.parse_args(argv)
    if arguments.stdio and not arguments.private:
        parser.error("--stdio goes with --private; editors use `dragoman stdio`, which shares one daemon")
    return arguments


def _run_shared(readiness: Readiness, settings: Sequence[str]) -> int:
    from dragoman_protocol import VERSION

    from dragomand.config import load
    from dragomand.process.listen import bind

    paths = find_paths(os.environ)
    config = load(os.environ, paths, settings)
    prepare(paths)
    lock = InstanceLock.acquire(paths)
    try:
        listener = bind(lock)
        try:
            from dragomand.run import run

            protection = protect()
            run(
                config=config,
                paths=paths,
                environment=dict(os.environ),
                lock=lock,
                listener=listener,
                ready=lambda: readiness.ready(lock.record(listener.path, VERSION)),
                open_files=protection.open_files_before,
            )
        finally:
            listener.close()
    finally:
        lock.release()
    return EXIT_OK


def _run_private(settings: Sequence[str]) -> int:
    import tempfile

    from dragomand.config import load
    from dragomand.run import run_private

    with tempfile.TemporaryDirectory(prefix="dragoman-private-") as folder:
        environment = dict(os.environ)
        real = find_paths(environment)
        config = load(environment, real, settings)
        paths = Paths(os.path.join(folder, "state"), os.path.join(folder, "run"), real.config_file)
        prepare(paths)
        open_files = protect().open_files_before
        run_private(config=config, paths=paths, environment=environment, open_files=open_files)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
