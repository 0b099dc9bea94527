"""Registers for life-cycle events, causes them, and prints them in the order of arrival.

Usage: events.py URI      (test:///default)
"""

import sys
import threading

import libvirt

DEADLINE = 60
DOMAIN = ("<domain type='test'><name>eventful</name><memory>65536</memory><vcpu>1</vcpu>"
          "<os><type>hvm</type></os></domain>")
NETWORK = "<network><name>eventful</name><bridge name='virbr7'/></network>"
POOL = "<pool type='dir'><name>eventful</name><target><path>/eventful</path></target></pool>"

arrived = threading.Condition()
events = []


def record(kind):
    def callback(_conn, subject, event, detail, _opaque):
        with arrived:
            events.append(f"{kind} {subject.name()} event {event} detail {detail}")
            arrived.notify()
    return callback


def run_loop():
    while True:
        libvirt.virEventRunDefaultImpl()


libvirt.virEventRegisterDefaultImpl()
threading.Thread(target=run_loop, daemon=True).start()
conn = libvirt.open(sys.argv[1])
registered = [
    (conn.domainEventDeregisterAny, conn.domainEventRegisterAny(
        None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, record("domain"), None)),
    (conn.networkEventDeregisterAny, conn.networkEventRegisterAny(
        None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, record("network"), None)),
    (conn.storagePoolEventDeregisterAny, conn.storagePoolEventRegisterAny(
        None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, record("pool"), None)),
]
print("READY", flush=True)

domain = conn.defineXML(DOMAIN)
domain.create()
domain.suspend()
domain.resume()
domain.destroy()
domain.undefine()
network = conn.networkDefineXML(NETWORK)
network.create()
network.destroy()
network.undefine()
pool = conn.storagePoolDefineXML(POOL, 0)
pool.create(0)
pool.destroy()
pool.undefine()

# The daemon sends them in this order, so the last one is the end.
last = f"pool eventful event {libvirt.VIR_STORAGE_POOL_EVENT_UNDEFINED} detail 0"
with arrived:
    complete = arrived.wait_for(lambda: last in events, timeout=DEADLINE)
print("\n".join(events))
if not complete:
    sys.exit(f"no {last!r} within {DEADLINE} s")

for deregister, identifier in registered:
    deregister(identifier)
conn.defineXML(DOMAIN).undefine()
conn.getVersion()
print(f"{len(events)} events")
conn.close()
