"""Waits until the connection is closed by the other side and tells how that looks to a client.

Usage: close_callback.py URI

Prints READY once the callback is registered, then "closed: reason N" from the callback, then the
error that the next call gives.
"""

import sys
import threading

import libvirt

DEADLINE = 60
closed = threading.Event()


def on_close(_conn, reason, _opaque):
    print(f"closed: reason {reason}", flush=True)
    closed.set()


def run_loop():
    while True:
        libvirt.virEventRunDefaultImpl()


libvirt.virEventRegisterDefaultImpl()
libvirt.registerErrorHandler(lambda _context, _error: None, None)
threading.Thread(target=run_loop, daemon=True).start()
conn = libvirt.open(sys.argv[1])
conn.registerCloseCallback(on_close, None)
conn.getVersion()
print("READY", flush=True)
if not closed.wait(DEADLINE):
    sys.exit(f"not closed within {DEADLINE} s")
try:
    conn.getVersion()
    sys.exit("a call after the close succeeded")
except libvirt.libvirtError as error:
    print(f"next call: error {error.get_error_code()} domain {error.get_error_domain()}: {error}")
print(f"alive: {conn.isAlive()}")
