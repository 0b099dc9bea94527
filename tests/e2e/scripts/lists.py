"""Prints everything that the binding lists and looks up, one line for each thing.

Usage: lists.py URI

Each line begins with what it was found by. What the client may not list is left out.
"""

import sys

import libvirt

libvirt.registerErrorHandler(lambda _context, _error: None, None)
conn = libvirt.open(sys.argv[1])
lines = []


def may(call, *args):
    try:
        return call(*args)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_ACCESS_DENIED:
            raise
        return []


def say(how, *what):
    lines.append(" ".join([how, *map(str, what)]))


for domain in conn.listAllDomains():
    name = domain.name()
    say("domain", name, domain.UUIDString(), domain.ID(), domain.state(), domain.info()[:4])
    for found in (conn.lookupByName(name), conn.lookupByUUIDString(domain.UUIDString())):
        say("domain-found", found.name(), found.UUIDString(), found.isActive())
    if domain.isActive():
        say("domain-by-id", conn.lookupByID(domain.ID()).name())
    say("domain-xml", name, len(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)))
    for snapshot in domain.listAllSnapshots():
        say("snapshot", name, snapshot.getName(), snapshot.isCurrent())
    for checkpoint in domain.listAllCheckpoints():
        say("checkpoint", name, checkpoint.getName())
for name in conn.listDefinedDomains():
    say("defined", name)
for number in conn.listDomainsID():
    say("running", conn.lookupByID(number).name())
for domain, stats in conn.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_STATE):
    say("stats", domain.name(), sorted(stats.items()))
for network in conn.listAllNetworks():
    name = network.name()
    say("network", name, network.UUIDString(), network.isActive(), network.bridgeName())
    say("network-found", conn.networkLookupByName(name).UUIDString(), name)
    say("network-xml", name, *network.XMLDesc().split())
    for port in may(network.listAllPorts) if network.isActive() else []:
        say("port", name, port.UUIDString())
for name in conn.listNetworks() + conn.listDefinedNetworks():
    say("network-name", name)
for pool in conn.listAllStoragePools():
    name = pool.name()
    say("pool", name, pool.UUIDString(), pool.isActive(), pool.info()[0])
    for volume in may(pool.listAllVolumes):
        say("volume", name, volume.name(), volume.path(), volume.info()[:2])
        for found in (conn.storageVolLookupByPath(volume.path()),
                      conn.storageVolLookupByKey(volume.key()),
                      pool.storageVolLookupByName(volume.name())):
            say("volume-found", name, found.name())
            say("volume-pool", found.storagePoolLookupByVolume().name())
    for name in may(pool.listVolumes):
        say("volume-name", name)
for name in conn.listStoragePools() + conn.listDefinedStoragePools():
    say("pool-name", name)
for secret in conn.listAllSecrets():
    say("secret", secret.UUIDString(), secret.usageType(), secret.usageID())
    say("secret-found", conn.secretLookupByUsage(secret.usageType(), secret.usageID()).UUIDString())
for number in conn.listSecrets():
    say("secret-uuid", number)
for nwfilter in conn.listAllNWFilters():
    say("filter", nwfilter.name(), nwfilter.UUIDString())
for name in conn.listNWFilters():
    say("filter-name", name)
for binding in conn.listAllNWFilterBindings():
    say("binding", binding.portDev(), binding.filterName())
for interface in conn.listAllInterfaces():
    say("interface", interface.name(), interface.MACString())
for name in conn.listInterfaces() + conn.listDefinedInterfaces():
    say("interface-name", name)
for device in conn.listAllDevices():
    say("device", device.name())
for name in conn.listDevices(None):
    say("device-name", name)
counts = {
    "defined": conn.numOfDefinedDomains(),
    "running": conn.numOfDomains(),
    "network-name": conn.numOfNetworks() + conn.numOfDefinedNetworks(),
    "pool-name": conn.numOfStoragePools() + conn.numOfDefinedStoragePools(),
    "secret-uuid": conn.numOfSecrets(),
    "filter-name": conn.numOfNWFilters(),
    "interface-name": conn.numOfInterfaces() + conn.numOfDefinedInterfaces(),
    "device-name": conn.numOfDevices(None),
}
for how, count in counts.items():
    listed = sum(line.startswith(how + " ") for line in lines)
    assert listed == count, f"{count} of {how}, and {listed} in the list"
print("\n".join(sorted(lines)))
