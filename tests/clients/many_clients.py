"""`many_clients.py COUNT`: so many processes want the daemon at the same moment; each talks to it.

Prints how many succeeded, and one line for each that failed. The environment leads to the daemon's place; the
rest of the command line, if there is any, replaces the daemon's. What is said and awaited is a line of JSON
with one's own id, which the real daemon answers and the stand-in echoes.
"""

import json
import os
import sys

from dragoman.launch import ensure_daemon
from dragoman.locate import find_paths


def client(command: list[str]) -> None:
    said = f'{{"jsonrpc":"2.0","id":{os.getpid()},"method":"initialize","params":{{}}}}\n'
    with ensure_daemon(find_paths(), patience_s=60, command=command or None) as connection:
        connection.sendall(said.encode())
        heard = b""
        while not heard.endswith(b"\n"):
            more = connection.recv(1 << 16)
            if not more:
                raise EOFError(heard)
            heard += more
        if json.loads(heard)["id"] != os.getpid():
            raise ValueError(heard)


def runner(command: list[str], waiting: int) -> int:
    """Wait for the end of the pipe, which is the starting shot, be a client, and return an exit status."""
    os.read(waiting, 1)
    try:
        client(command)
    except Exception as failed:
        print(f"{type(failed).__name__}: {failed}", flush=True)
        return 1
    return 0


def main() -> None:
    count, command = int(sys.argv[1]), sys.argv[2:]
    waiting, shot = os.pipe()
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            os.close(shot)
            os._exit(runner(command, waiting))
        children.append(child)
    os.close(shot)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    print(f"{statuses.count(0)} of {count}")


if __name__ == "__main__":
    main()
