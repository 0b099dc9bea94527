"""Lives through restarts of its daemon, with callbacks and under load.

Usage: restarts.py URI SOCKET ROUNDS THREADS      (test:///default; the daemon's own socket)

Prints ROUND N and expects the daemon to be started anew, which is seen by its socket. Every call of
the threads must succeed or fail with the error that says that it may be made again; after each
restart, what is done to a domain and to a network must be told of, once.
"""

import os
import sys
import threading
import time

import libvirt

DEADLINE = 60
RETRYABLE = (38, 7)
uri, socket, rounds, threads = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])

arrived = threading.Condition()
events = []
counts = {"good": 0, "retryable": 0}
other_errors = []
ending = threading.Event()


def record(kind):
    def callback(_conn, subject, event, _detail, _opaque):
        with arrived:
            events.append((kind, subject.name(), event))
            arrived.notify()
    return callback


def run_loop():
    while True:
        libvirt.virEventRunDefaultImpl()


def is_retryable(error):
    return (error.get_error_code(), error.get_error_domain()) == RETRYABLE


def load():
    calls = [conn.getLibVersion, conn.getHostname, lambda: conn.lookupByName("test").info(),
             lambda: [domain.name() for domain in conn.listAllDomains()],
             lambda: conn.networkLookupByName("default").XMLDesc()]
    while not ending.is_set():
        for call in calls:
            try:
                call()
                counts["good"] += 1
            except libvirt.libvirtError as error:
                if is_retryable(error):
                    counts["retryable"] += 1
                else:
                    other_errors.append(f"{error.get_error_code()} {error.get_error_domain()} {error}")
                    return


def identity():
    try:
        stat = os.stat(socket)
        return (stat.st_ino, stat.st_ctime_ns)
    except FileNotFoundError:
        return None


def again(call):
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return call()
        except libvirt.libvirtError as error:
            if not is_retryable(error) or time.monotonic() > deadline:
                sys.exit(f"{error.get_error_code()} {error.get_error_domain()} {error}")


def expect(*expected):
    """Waits for these events in any order, and that none comes twice."""
    # What would come twice comes before what happens afterwards.
    domain.suspend()
    domain.resume()
    last = [("domain", "test", 3), ("domain", "test", 4)]
    with arrived:
        arrived.wait_for(lambda: len(events) >= len(expected) + len(last), timeout=DEADLINE)
        if sorted(events[:-2]) != sorted(expected) or events[-2:] != last:
            sys.exit(f"expected {expected}, then {last}, heard {events}")
        events.clear()


closed = []
libvirt.virEventRegisterDefaultImpl()
libvirt.registerErrorHandler(lambda _context, _error: None, None)
threading.Thread(target=run_loop, daemon=True).start()
conn = libvirt.open(uri)
conn.registerCloseCallback(lambda _conn, reason, _opaque: closed.append(reason), None)
# The daemon's number of the second registration will be another one after a restart.
first = conn.domainEventRegisterAny(
    None, libvirt.VIR_DOMAIN_EVENT_ID_REBOOT, lambda *_: None, None)
conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, record("domain"), None)
conn.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, record("network"), None)
conn.domainEventDeregisterAny(first)
workers = [threading.Thread(target=load, daemon=True) for _ in range(threads)]
for worker in workers:
    worker.start()
for number in range(rounds):
    before = identity()
    print(f"ROUND {number}", flush=True)
    deadline = time.monotonic() + DEADLINE
    while identity() in (before, None):
        if time.monotonic() > deadline:
            sys.exit("no restart")
        time.sleep(0.005)
    again(conn.getLibVersion)
    with arrived:
        events.clear()
    domain = conn.lookupByName("test")
    domain.suspend()
    domain.resume()
    network = conn.networkLookupByName("default")
    network.destroy()
    network.create()
    expect(("domain", "test", 3), ("domain", "test", 4), ("network", "default", 2),
           ("network", "default", 3))
ending.set()
for worker in workers:
    worker.join()
if other_errors:
    sys.exit(f"other errors: {other_errors}")
if closed:
    sys.exit(f"closed: {closed}")
print(f"{rounds} restarts; good calls: {counts['good'] > 0}, lost: {counts['retryable'] > 0}")
conn.close()
