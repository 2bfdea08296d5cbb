"""A daemon without a wire, for tests of starting and forwarding: the real sequence, and an echo.

Every start that got as far as the lock adds its pid to ``<state>/starts``. The environment's STANDIN_MODE is
one of

- ``echo``: sends back what it receives, and closes when the client has shut its half
- ``leave-first``: turns the first client away unheard, as a daemon does that is just leaving, and ends;
  whoever is started next echoes
- ``leave-first-hearing``: the same, but it has read what the client said
- ``leave-always``: every daemon turns its first client away
- ``gone``: has closed its socket again when it says that it is ready
- ``answer-once``: answers the first bytes, and ends
- ``refuse``: reports an error instead of starting; ``die``: is killed before it says a word;
  ``crash``: prints a text and exits with 3; ``stay``: is ready, does not detach
- ``hang``: prints a text, writes its pid into the FIFO ``<state>/hanging``, and never says a word
"""

import os
import signal
import socket
import sys
import threading

from dragomand.process.listen import bind
from dragomand.process.lock import InstanceLock
from dragomand.process.paths import find_paths, prepare
from dragomand.process.readiness import Readiness


def serve(connection: socket.socket) -> None:
    with connection:
        while data := connection.recv(1 << 18):
            connection.sendall(data)


def run(readiness: Readiness, mode: str) -> int:
    paths = find_paths()
    prepare(paths)
    if mode == "refuse":
        readiness.failed("The moon is in the wrong phase.")
        return 4
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "crash":
        print("something broke", file=sys.stderr, flush=True)
        return 3
    if mode == "hang":
        print("waiting for the moon", flush=True)
        with open(os.path.join(paths.state_dir, "hanging"), "w") as fifo:
            fifo.write(str(os.getpid()))
        signal.pause()
    lock = InstanceLock.acquire(paths)
    with open(os.path.join(paths.state_dir, "starts"), "a") as file:
        file.write(f"{os.getpid()}\n")
    with open(os.path.join(paths.state_dir, "starts")) as file:
        first = len(file.readlines()) == 1
    listener = bind(lock)
    listener.listen()
    entry = lock.record(listener.path, "0")
    if mode == "gone":
        listener.close()
        lock.release()
    readiness.ready(entry)
    if mode == "gone":
        return 0
    if (mode.startswith("leave-first") and first) or mode in ("leave-always", "answer-once"):
        connection, _ = listener.socket.accept()
        if mode == "leave-first-hearing":
            connection.recv(1)
        if mode == "answer-once":
            connection.sendall(connection.recv(1 << 18))
        listener.close()  # before anybody is turned away, as the daemon does: who comes again starts another
        connection.close()
        lock.release()
        return 0
    while True:
        connection, _ = listener.socket.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def main() -> int:
    mode = os.environ.get("STANDIN_MODE", "echo")
    readiness = Readiness.from_env(os.environ)
    if mode != "stay":
        left = readiness.detach()
        if left is not None:
            return left
    return run(readiness, mode)


if __name__ == "__main__":
    sys.exit(main())
