"""Many threads on one connection; each answer must belong to its question.

Usage: threads.py URI THREADS ROUNDS      (test:///default)
"""

import sys
import threading

import libvirt

uri, threads, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
libvirt.registerErrorHandler(lambda _context, _error: None, None)
conn = libvirt.open(uri)
failures = []
calls = [0] * threads


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def one_round(number, name, uuid, turn):
    domain = conn.lookupByName(name)
    check(domain.UUIDString() == uuid, f"{name} has UUID {domain.UUIDString()}")
    check(conn.lookupByUUIDString(uuid).name() == name, f"{uuid} is not {name}")
    check(f"<name>{name}</name>" in domain.XMLDesc(0), f"XML of another domain for {name}")
    title = f"title {number} of round {turn} " + "x" * (number * 97 % 4096)
    domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_TITLE, title, None, None,
                       libvirt.VIR_DOMAIN_AFFECT_CONFIG)
    check(domain.metadata(libvirt.VIR_DOMAIN_METADATA_TITLE, None,
                          libvirt.VIR_DOMAIN_AFFECT_CONFIG) == title,
          f"title of another domain for {name}")
    missing = f"missing-{number}-{turn}"
    try:
        conn.networkLookupByName(missing)
        check(False, f"{missing} was found")
    except libvirt.libvirtError as error:
        check(error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK, f"{missing}: {error}")
        check(f"'{missing}'" in str(error), f"{missing}: the error of another call: {error}")
    check(conn.getType() == "TEST", "getType")
    calls[number] += 7


def work(number):
    name, uuid = f"thread-{number}", f"00000000-0000-4000-8000-{number:012x}"
    try:
        domain = conn.defineXML(
            f"<domain type='test'><name>{name}</name><uuid>{uuid}</uuid><memory>65536</memory>"
            "<vcpu>1</vcpu><os><type>hvm</type></os></domain>")
        for turn in range(rounds):
            one_round(number, name, uuid, turn)
        domain.undefine()
        calls[number] += 2
    except (AssertionError, libvirt.libvirtError) as error:
        failures.append(f"thread {number}: {error}")


workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
conn.close()
if failures:
    sys.exit("\n".join(failures))
print(f"{sum(calls)} calls answered")
