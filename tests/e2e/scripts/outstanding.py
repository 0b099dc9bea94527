"""Keeps a call outstanding in each of many threads until the connection is lost.

Usage: outstanding.py URI THREADS

Prints READY once every thread has had an answer, then how the connection was closed, and how many
threads were answered by an error; each stops at its first.
"""

import sys
import threading

import libvirt

DEADLINE = 60
uri, threads = sys.argv[1], int(sys.argv[2])
closed = threading.Event()
reasons = []
started = threading.Barrier(threads + 1)
errors = []


def on_close(_conn, reason, _opaque):
    reasons.append(reason)
    closed.set()


def run_loop():
    while True:
        libvirt.virEventRunDefaultImpl()


def work():
    try:
        conn.getHostname()
    except libvirt.libvirtError as error:
        print(f"the first call failed: {error}", file=sys.stderr)
        started.abort()
        return
    started.wait()
    while True:
        try:
            conn.getHostname()
        except libvirt.libvirtError as error:
            errors.append(error.get_error_code())
            return


libvirt.virEventRegisterDefaultImpl()
libvirt.registerErrorHandler(lambda _context, _error: None, None)
threading.Thread(target=run_loop, daemon=True).start()
conn = libvirt.open(uri)
conn.registerCloseCallback(on_close, None)
workers = [threading.Thread(target=work, daemon=True) for _ in range(threads)]
for worker in workers:
    worker.start()
started.wait(DEADLINE)
print("READY", flush=True)
if not closed.wait(DEADLINE):
    sys.exit(f"not closed within {DEADLINE} s")
for worker in workers:
    worker.join(DEADLINE)
print(f"closed: reasons {reasons}")
print(f"{len(errors)} threads had an error")
