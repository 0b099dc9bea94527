"""Uses all drivers of one connection at once, loses one of their daemons, and goes on.

Usage: several.py URI GUEST-XML POOL-DIR MIB      (qemu:///session)

Domains, networks, pools, volumes and secrets in one session, with events of domains, networks and
pools; then an upload and the console of a guest at the same time. Prints UP, and expects the daemon
of storage to be killed: prints DOWN once its calls fail, while those of the others go on. Prints BACK
once it serves again, and shows that the events of pools come as before.
"""

import os
import sys
import threading
import time

import libvirt

DEADLINE = 60
MIB = 1 << 20
uri, guest_xml, pool_dir, size = *sys.argv[1:4], int(sys.argv[4]) * MIB

arrived = threading.Condition()
events = []


def record(kind):
    def callback(_conn, subject, event, detail, _opaque):
        with arrived:
            events.append((kind, subject.name(), event, detail))
            arrived.notify()
    return callback


def expect(*expected):
    """Waits for these events, and that nothing else has come."""
    with arrived:
        arrived.wait_for(lambda: len(events) >= len(expected), timeout=DEADLINE)
        if sorted(events) != sorted(expected):
            sys.exit(f"expected {sorted(expected)}, heard {sorted(events)}")
        events.clear()


def run_loop():
    while True:
        libvirt.virEventRunDefaultImpl()


def until(what, is_so):
    deadline = time.monotonic() + DEADLINE
    while not is_so():
        if time.monotonic() > deadline:
            sys.exit(f"not within {DEADLINE} s: {what}")
        time.sleep(0.01)


libvirt.virEventRegisterDefaultImpl()
libvirt.registerErrorHandler(lambda _context, _error: None, None)
threading.Thread(target=run_loop, daemon=True).start()
conn = libvirt.open(uri)
conn.domainEventRegisterAny(None, libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, record("domain"), None)
conn.networkEventRegisterAny(None, libvirt.VIR_NETWORK_EVENT_ID_LIFECYCLE, record("network"), None)
conn.storagePoolEventRegisterAny(
    None, libvirt.VIR_STORAGE_POOL_EVENT_ID_LIFECYCLE, record("pool"), None)

# One of each.
domain = conn.defineXML(
    "<domain type='qemu'><name>one</name><memory>65536</memory><os><type>hvm</type></os></domain>")
network = conn.networkDefineXML("<network><name>one</name><bridge name='virbr97'/></network>")
pool = conn.storagePoolDefineXML(
    f"<pool type='dir'><name>one</name><target><path>{pool_dir}</path></target></pool>", 0)
pool.create(0)
expect(("domain", "one", 0, 0), ("network", "one", 0, 0), ("pool", "one", 0, 0),
       ("pool", "one", 2, 0))
secret = conn.secretDefineXML(
    "<secret><description>one</description><usage type='volume'><volume>/one</volume></usage>"
    "</secret>")
secret.setValue(b"value", 0)
volume = pool.createXML(
    f"<volume><name>one</name><capacity>{size}</capacity><allocation>0</allocation></volume>", 0)
print(sorted(found.name() for found in conn.listAllDomains()),
      sorted(found.name() for found in conn.listAllNetworks()),
      sorted(found.name() for found in conn.listAllStoragePools()),
      sorted(found.name() for found in pool.listAllVolumes()),
      [found.usageID() for found in conn.listAllSecrets()], secret.value(0))

# An upload and a console at once, from one thread: two that wait for streams of one connection can
# hold each other up for ever in libvirt's own client.
with open(guest_xml, encoding="utf-8") as file:
    guest = conn.createXML(
        file.read(), libvirt.VIR_DOMAIN_START_AUTODESTROY | libvirt.VIR_DOMAIN_START_PAUSED)
console = conn.newStream()
guest.openConsole(None, console, libvirt.VIR_DOMAIN_CONSOLE_FORCE)
guest.resume()
received = b""
while b"echo\r\n" not in received:
    received += console.recv(1024)
data = os.urandom(size)
stream = conn.newStream()
volume.upload(stream, 0, size, 0)
for start in range(0, size, MIB):
    at = start
    while at < start + MIB:
        at += stream.send(data[at:start + MIB])
    sent = bytes(32 + (start // MIB + index) % 90 for index in range(16))
    console.send(sent)
    received = b""
    while len(received) < len(sent):
        received += console.recv(1024)
    if received != sent:
        sys.exit(f"the echo differs: {received!r}")
stream.finish()
downloaded = bytearray()
stream = conn.newStream()
volume.download(stream, 0, size, 0)
stream.recvAll(lambda _stream, block, _opaque: downloaded.extend(block), None)
stream.finish()
print("uploaded beside a console:", "equal" if downloaded == data else "different")
until("the guest has started", lambda: len(events) >= 2)
events.clear()

# The daemon of storage goes, and only that.
stream = conn.newStream()
volume.download(stream, 0, size, 0)
stream.recv(1000)
print("UP", flush=True)
try:
    while True:
        if not stream.recv(100_000):
            sys.exit("the download ended as if all were well")
except libvirt.libvirtError as error:
    print(f"download: error {error.get_error_code()} domain {error.get_error_domain()}")


def fails():
    try:
        conn.listAllStoragePools()
        return False
    except libvirt.libvirtError as error:
        return error.get_error_code() == 38


until("calls of storage fail", fails)
domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, "lives", None, None, 0)
print(domain.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None), network.name(), secret.usageID(),
      len(conn.listAllNetworks()), len(conn.listAllSecrets()))
console.send(b"x")
print(console.recv(1))
print("DOWN", flush=True)


def serves():
    try:
        return conn.listAllStoragePools() is not None
    except libvirt.libvirtError:
        return False


until("storage serves again", serves)
events.clear()
other = conn.storagePoolDefineXML(
    f"<pool type='dir'><name>two</name><target><path>{pool_dir}/two</path></target></pool>", 0)
expect(("pool", "two", 0, 0))
network.undefine()
domain.undefine()
other.undefine()
expect(("network", "one", 1, 0), ("domain", "one", 1, 0), ("pool", "two", 1, 0))
print("BACK", flush=True)
console.abort()
guest.destroy()
conn.close()
