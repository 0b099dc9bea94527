"""Stands in for the proxy where the tests test how they start one: it carries no traffic.

Usage: stand_in.py -f FILE

It refuses a file with the word "broken", when it starts by ending, on SIGHUP by keeping the old.
"""

import os
import signal
import socket
import sys

path = sys.argv[sys.argv.index("-f") + 1]
systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
systemd.connect(os.environ["NOTIFY_SOCKET"])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGTERM})


def load():
    with open(path, encoding="utf-8") as file:
        text = file.read().strip()
    print(f"read {text!r}", file=sys.stderr, flush=True)
    return None if "broken" in text else text


print("sockets", os.environ.get("LISTEN_FDNAMES"), file=sys.stderr, flush=True)
policy = load()
if policy is None:
    sys.exit("refused")
systemd.send(f"READY=1\nSTATUS=uid {os.getuid()}, {policy}".encode())
while signal.sigwait({signal.SIGHUP, signal.SIGTERM}) == signal.SIGHUP:
    systemd.send(b"RELOADING=1")
    policy = load() or policy
    systemd.send(f"READY=1\nSTATUS={policy}".encode())
systemd.send(b"STOPPING=1")
