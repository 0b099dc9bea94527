"""A long fixed script of calls to the test driver, one line of output per call.

Usage: script_of_calls.py URI      (a fresh daemon's test:///default)

Each line has a number, the call, and its result or its error: code, domain, level, message. What
may differ between two fresh daemons (generated UUIDs, times, CPU time, host figures) is replaced,
so that the output of two runs, one of them through a proxy, can be compared as text.
"""

import hashlib
import re
import sys

import libvirt

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
MAC = re.compile(r"52:54:00:[0-9a-f:]{8}")
FIXED_UUID = "11111111-2222-3333-4444-555555555555"
NO_UUID = "00000000-1111-2222-3333-444444444444"
KEEP = {FIXED_UUID, NO_UUID, "6695eb01-f6a4-8304-79aa-97f2502e193f"}

libvirt.registerErrorHandler(lambda _context, _error: None, None)
count = 0


def plain(value):
    """The value as text that is the same in every run."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in sorted(value.items())) + "}"
    if isinstance(value, list) and value and not isinstance(value[0], (list, tuple, int)):
        # Lists of names and of objects come in the order of a hash table with a random seed.
        return "[" + ", ".join(sorted(plain(item) for item in value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(plain(item) for item in value) + "]"
    if isinstance(value, bytes):
        return "bytes " + value.hex()
    for kind in ("virDomain", "virNetwork", "virStoragePool", "virStorageVol", "virInterface",
                 "virNodeDevice", "virDomainSnapshot", "virDomainCheckpoint"):
        if isinstance(value, getattr(libvirt, kind)):
            name = value.getName() if hasattr(value, "getName") else value.name()
            return f"<{kind} {name}>"
    if isinstance(value, (libvirt.virConnect, libvirt.virStream)):
        return f"<{type(value).__name__}>"
    text = str(value)
    text = UUID.sub(lambda m: m.group() if m.group() in KEEP else "UUID", text)
    text = MAC.sub("52:54:00:MAC", text)
    text = re.sub(r"<creationTime>\d+", "<creationTime>TIME", text)
    if len(text) > 300:
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        text = f"{text[:200]!r}... {len(text)} characters, sha256 {digest}"
    return text.replace("\n", "\\n")


def call(what, function, *args, show=True):
    """Makes one call, prints its outcome, returns its result (None after an error).

    show=False prints only that it succeeded and the type, for results that differ between runs."""
    global count
    count += 1
    try:
        result = function(*args)
    except libvirt.libvirtError as error:
        print(f"{count:3} {what}: error {error.get_error_code()} domain {error.get_error_domain()}"
              f" level {error.get_error_level()}: {plain(error.get_error_message())}"
              f" [{plain(error.get_str1())}|{plain(error.get_str2())}|{plain(error.get_str3())}"
              f"|{error.get_int1()}|{error.get_int2()}]")
        return None
    print(f"{count:3} {what}: {plain(result) if show else type(result).__name__}")
    return result


def domain_xml(name, uuid=None, extra=""):
    identity = f"<uuid>{uuid}</uuid>" if uuid else ""
    return (f"<domain type='test'><name>{name}</name>{identity}<memory>131072</memory>"
            f"<currentMemory>65536</currentMemory><vcpu>2</vcpu><os><type>hvm</type></os>"
            f"<devices>{extra}</devices></domain>")


def connection(conn):
    call("getType", conn.getType)
    call("getVersion", conn.getVersion)
    call("getLibVersion", conn.getLibVersion)
    call("getHostname", conn.getHostname, show=False)
    call("isAlive", conn.isAlive)
    call("isSecure", conn.isSecure)
    call("isEncrypted", conn.isEncrypted)
    call("getMaxVcpus", conn.getMaxVcpus, None)
    call("getMaxVcpus bad", conn.getMaxVcpus, "nonsense")
    call("getInfo", conn.getInfo)
    call("getFreeMemory", conn.getFreeMemory, show=False)
    call("getCellsFreeMemory", conn.getCellsFreeMemory, 0, 1)
    call("getCapabilities", conn.getCapabilities)
    call("getSysinfo", conn.getSysinfo, 0)
    call("getCPUStats", conn.getCPUStats, -1, 0)
    call("getMemoryStats", conn.getMemoryStats, -1, 0)
    call("getCPUMap", conn.getCPUMap, 0, show=False)
    call("getMemoryParameters", conn.getMemoryParameters, 0)
    call("getFreePages", conn.getFreePages, [4, 2048], 0, 1, 0)
    call("getCPUModelNames x86_64", conn.getCPUModelNames, "x86_64", 0)
    call("getCPUModelNames bad", conn.getCPUModelNames, "no-such-arch", 0)
    call("compareCPU bad", conn.compareCPU, "<cpu/>", 0)
    call("baselineCPU", conn.baselineCPU, ["<cpu><arch>x86_64</arch><model>qemu64</model></cpu>"])
    call("getDomainCapabilities", conn.getDomainCapabilities, None, None, None, None, 0)
    call("findStoragePoolSources", conn.findStoragePoolSources, "dir", None, 0)
    call("findStoragePoolSources logical", conn.findStoragePoolSources, "logical", None, 0)
    call("getStoragePoolCapabilities", conn.getStoragePoolCapabilities, 0)
    call("setKeepAlive", conn.setKeepAlive, 20, 5)
    call("numOfDomains", conn.numOfDomains)
    call("numOfDefinedDomains", conn.numOfDefinedDomains)
    call("listDomainsID", conn.listDomainsID)
    call("listAllDomains", conn.listAllDomains, 0)
    call("getAllDomainStats", conn.getAllDomainStats, 0, 0)
    call("getAllDomainStats bad flags", conn.getAllDomainStats, 0, 1 << 20)
    call("suspendForDuration", conn.suspendForDuration, 0, 60, 0)
    call("restore of no file", conn.restore, "/nonexistent/image")
    call("saveImageGetXMLDesc of no file", conn.saveImageGetXMLDesc, "/nonexistent/image", 0)
    call("domainXMLFromNative", conn.domainXMLFromNative, "native", "x", 0)
    call("nodeDeviceLookupByName missing", conn.nodeDeviceLookupByName, "no-such-device")
    call("interfaceLookupByName missing", conn.interfaceLookupByName, "no-such-interface")
    call("interfaceLookupByMACString missing", conn.interfaceLookupByMACString, "00:00:00:00:00:00")
    call("secretLookupByUUIDString", conn.secretLookupByUUIDString, NO_UUID)
    call("secretDefineXML", conn.secretDefineXML, "<secret/>", 0)
    call("listSecrets", conn.listSecrets)
    call("nwfilterLookupByName", conn.nwfilterLookupByName, "no-such-filter")
    call("listNWFilters", conn.listNWFilters)
    call("nwfilterDefineXML", conn.nwfilterDefineXML, "<filter name='x'/>")


def lookups(conn):
    call("lookupByName missing", conn.lookupByName, "no-such-domain")
    call("lookupByName empty", conn.lookupByName, "")
    call("lookupByName long", conn.lookupByName, "n" * 5000)
    call("lookupByName odd characters", conn.lookupByName, "a b\n<&>'\"%s \u00e9\u4e2d")
    call("lookupByID missing", conn.lookupByID, 4711)
    call("lookupByID negative", conn.lookupByID, -1)
    call("lookupByUUIDString missing", conn.lookupByUUIDString, NO_UUID)
    call("lookupByUUIDString malformed", conn.lookupByUUIDString, "not a uuid")
    call("networkLookupByName missing", conn.networkLookupByName, "no-such-network")
    call("networkLookupByUUIDString missing", conn.networkLookupByUUIDString, NO_UUID)
    call("storagePoolLookupByName missing", conn.storagePoolLookupByName, "no-such-pool")
    call("storagePoolLookupByUUIDString missing", conn.storagePoolLookupByUUIDString, NO_UUID)
    call("storagePoolLookupByTargetPath missing", conn.storagePoolLookupByTargetPath, "/nowhere")
    call("storageVolLookupByKey missing", conn.storageVolLookupByKey, "no-such-key")
    call("storageVolLookupByPath missing", conn.storageVolLookupByPath, "/no/such/volume")


def domains(conn):
    call("defineXML empty", conn.defineXML, "<domain/>")
    call("defineXML no XML", conn.defineXML, "this is not XML")
    call("defineXML unclosed", conn.defineXML, "<domain type='test'><name>x</name>")
    call("defineXML no type", conn.defineXML, "<domain><name>x</name></domain>")
    call("defineXML wrong type", conn.defineXML,
         domain_xml("x").replace("'test'", "'no-such-type'"))
    call("defineXMLFlags bad flags", conn.defineXMLFlags, domain_xml("x"), 1 << 20)
    call("createXML bad flags", conn.createXML, domain_xml("x"), 1 << 20)
    call("createXML name taken", conn.createXML, domain_xml("test"), 0)
    disk = ("<disk type='file' device='disk'><source file='/guest/disk.img'/>"
            "<target dev='vda' bus='virtio'/></disk>"
            "<interface type='network'><mac address='aa:bb:cc:00:00:01'/>"
            "<source network='default'/></interface>")
    dom = call("defineXML", conn.defineXML, domain_xml("one", FIXED_UUID, disk))
    call("defineXML same UUID, other name", conn.defineXML, domain_xml("two", FIXED_UUID))
    call("name", dom.name)
    call("UUIDString", dom.UUIDString)
    call("ID inactive", dom.ID)
    call("isActive", dom.isActive)
    call("isPersistent", dom.isPersistent)
    call("isUpdated", dom.isUpdated)
    call("OSType", dom.OSType)
    call("XMLDesc inactive", dom.XMLDesc, 0)
    call("state", dom.state, 0)
    call("info", lambda: dom.info()[:4])
    call("autostart", dom.autostart)
    call("setAutostart", dom.setAutostart, 1)
    call("autostart after", dom.autostart)
    for name in ("destroy", "suspend", "resume", "shutdown", "reboot", "managedSave", "hasCurrentSnapshot",
                 "hasManagedSaveImage", "screenshot", "pMWakeup"):
        args = {"reboot": (0,), "managedSave": (0,), "pMWakeup": (0,), "hasManagedSaveImage": (0,),
                "screenshot": (conn.newStream(0), 0)}.get(name, ())
        call(f"{name} while inactive", getattr(dom, name), *args)
    call("create", dom.create)
    call("create twice", dom.create)
    call("isActive after", dom.isActive)
    call("XMLDesc active", dom.XMLDesc, 0)
    call("XMLDesc secure", dom.XMLDesc, libvirt.VIR_DOMAIN_XML_SECURE)
    call("XMLDesc inactive flag", dom.XMLDesc, libvirt.VIR_DOMAIN_XML_INACTIVE)
    call("suspend", dom.suspend)
    call("state paused", dom.state, 0)
    call("suspend twice", dom.suspend)
    call("resume", dom.resume)
    call("state running", dom.state, 0)
    call("reboot", dom.reboot, 0)
    call("reset", dom.reset, 0)
    call("create after reboot", dom.create)
    call("setMemory", dom.setMemory, 32768)
    call("setMemory too much", dom.setMemory, 1 << 30)
    call("setMaxMemory", dom.setMaxMemory, 262144)
    call("maxMemory", dom.maxMemory)
    call("memoryStats", dom.memoryStats)
    call("setVcpus", dom.setVcpus, 1)
    call("setVcpus too many", dom.setVcpus, 1000)
    call("setVcpusFlags bad", dom.setVcpusFlags, 1, 1 << 20)
    call("vcpusFlags", dom.vcpusFlags, libvirt.VIR_DOMAIN_VCPU_MAXIMUM)
    call("maxVcpus", dom.maxVcpus)
    call("vcpus", dom.vcpus, show=False)
    call("pinVcpu", dom.pinVcpu, 0, (True, False))
    call("vcpuPinInfo", dom.vcpuPinInfo, 0, show=False)
    call("schedulerType", dom.schedulerType)
    call("schedulerParameters", dom.schedulerParameters)
    call("setSchedulerParameters", dom.setSchedulerParameters, {"weight": 10})
    call("blockStats", dom.blockStats, "vda", show=False)
    call("blockStats missing", dom.blockStats, "vdz")
    call("blockInfo", dom.blockInfo, "vda", 0)
    call("blockInfo missing", dom.blockInfo, "vdz", 0)
    call("blockPeek", dom.blockPeek, "vda", 0, 16, 0)
    call("memoryPeek", dom.memoryPeek, 0, 16, libvirt.VIR_MEMORY_PHYSICAL)
    call("interfaceStats", dom.interfaceStats, "testnet0", show=False)
    call("interfaceStats missing", dom.interfaceStats, "vnet99")
    call("interfaceParameters", dom.interfaceParameters, "testnet0", 0)
    call("interfaceAddresses", dom.interfaceAddresses, 0, 0)
    call("blockIoTune", dom.blockIoTune, "vda", 0)
    call("setBlockIoTune", dom.setBlockIoTune, "vda", {"total_bytes_sec": 4096}, 0)
    call("memoryParameters", dom.memoryParameters, 0)
    call("numaParameters", dom.numaParameters, 0)
    call("blkioParameters", dom.blkioParameters, 0)
    call("perfEvents", dom.perfEvents, 0)
    call("diskErrors", dom.diskErrors, 0)
    call("fsInfo", dom.fsInfo, 0)
    call("guestInfo", dom.guestInfo, 0, 0)
    call("guestVcpus", dom.guestVcpus, 0)
    call("getTime", dom.getTime, 0)
    call("hostname", dom.hostname, 0)
    call("jobInfo", dom.jobInfo)
    call("jobStats", dom.jobStats, 0)
    call("abortJob", dom.abortJob)
    call("controlInfo", dom.controlInfo, 0)
    call("sendKey", dom.sendKey, 0, 100, [30, 31], 2, 0)
    call("sendKey none", dom.sendKey, 0, 100, [], 0, 0)
    call("fsFreeze", dom.fsFreeze, None, 0)
    call("fsThaw", dom.fsThaw, None, 0)
    call("fsTrim", dom.fSTrim, None, 0, 0)
    call("setUserPassword", dom.setUserPassword, "root", "secret", 0)
    call("injectNMI", dom.injectNMI, 0)
    call("openConsole", dom.openConsole, None, conn.newStream(0), 0)
    call("openChannel", dom.openChannel, None, conn.newStream(0), 0)
    call("openGraphicsFD", dom.openGraphicsFD, 0, 0)
    call("attachDevice bad XML", dom.attachDevice, "<nonsense/>")
    call("attachDevice", dom.attachDevice, "<disk type='file'><source file='/a'/><target dev='vdb'/></disk>")
    call("detachDevice", dom.detachDevice, "<disk type='file'><source file='/a'/><target dev='vdb'/></disk>")
    call("migrate to URI", dom.migrateToURI, "test:///other", 0, None, 0)
    call("metadata missing", dom.metadata, libvirt.VIR_DOMAIN_METADATA_TITLE, None, 0)
    call("setMetadata title", dom.setMetadata, libvirt.VIR_DOMAIN_METADATA_TITLE, "a title", None, None, 0)
    call("metadata title", dom.metadata, libvirt.VIR_DOMAIN_METADATA_TITLE, None, 0)
    call("setMetadata description", dom.setMetadata, libvirt.VIR_DOMAIN_METADATA_DESCRIPTION,
         "long \u00e4\u00f6\u00fc " * 500, None, None, 0)
    call("metadata description", dom.metadata, libvirt.VIR_DOMAIN_METADATA_DESCRIPTION, None, 0)
    call("setMetadata element", dom.setMetadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT,
         "<note>x</note>", "n", "http://example.org/n", 0)
    call("metadata element", dom.metadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT, "http://example.org/n", 0)
    call("setMetadata bad element", dom.setMetadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT,
         "<note>", "n", "http://example.org/n", 0)
    call("coreDump", dom.coreDump, "/nonexistent/dir/core", 0)
    call("save to nowhere", dom.save, "/nonexistent/dir/save")
    call("rename while active", dom.rename, "new-name", 0)
    call("undefine while active", dom.undefine)
    call("isPersistent after undefine", dom.isPersistent)
    call("defineXML again", conn.defineXML, domain_xml("one", FIXED_UUID, disk))
    call("listAllDomains", conn.listAllDomains, 0)
    call("listAllDomains inactive", conn.listAllDomains, libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE)
    call("listDefinedDomains", conn.listDefinedDomains)
    call("getAllDomainStats", lambda: [dom.name() for dom, _ in conn.getAllDomainStats(0, 0)])
    snapshots(dom)
    checkpoints(dom)
    call("shutdown", dom.shutdown)
    call("state shut off", dom.state, 0)
    call("rename", dom.rename, "renamed", 0)
    call("lookupByName renamed", conn.lookupByName, "renamed")
    call("lookupByName old name", conn.lookupByName, "one")
    call("undefineFlags bad", dom.undefineFlags, 1 << 20)
    call("undefineFlags", dom.undefineFlags, 0)
    call("undefine twice", dom.undefine)
    call("create after undefine", dom.create)
    call("XMLDesc after undefine", dom.XMLDesc, 0)
    transient = call("createXML transient", conn.createXML, domain_xml("transient"), 0)
    call("undefine transient", transient.undefine)
    call("setAutostart transient", transient.setAutostart, 1)
    call("destroy transient", transient.destroy)
    call("state of gone", transient.state, 0)
    call("createXML paused", conn.createXML, domain_xml("paused"), libvirt.VIR_DOMAIN_START_PAUSED)
    short = call("createXML auto-destroy", conn.createXML, domain_xml("short"),
                 libvirt.VIR_DOMAIN_START_AUTODESTROY)
    if short is not None:
        call("destroyFlags", short.destroyFlags, 0)


def snapshots(dom):
    call("snapshotNum", dom.snapshotNum, 0)
    call("snapshotCurrent none", dom.snapshotCurrent, 0)
    call("snapshotLookupByName missing", dom.snapshotLookupByName, "no-such-snapshot", 0)
    call("snapshotCreateXML bad", dom.snapshotCreateXML, "<nonsense/>", 0)
    first = call("snapshotCreateXML", dom.snapshotCreateXML,
                 "<domainsnapshot><name>first</name></domainsnapshot>", 0)
    call("snapshotCreateXML again", dom.snapshotCreateXML,
         "<domainsnapshot><name>first</name></domainsnapshot>", 0)
    second = call("snapshotCreateXML second", dom.snapshotCreateXML,
                  "<domainsnapshot><name>second</name><description>d</description></domainsnapshot>", 0)
    call("snapshotListNames", dom.snapshotListNames, 0)
    call("listAllSnapshots", dom.listAllSnapshots, 0)
    call("snapshotCurrent", dom.snapshotCurrent, 0)
    call("getXMLDesc", first.getXMLDesc, 0)
    call("getParent", second.getParent, 0)
    call("getParent none", first.getParent, 0)
    call("numChildren", first.numChildren, 0)
    call("listChildrenNames", first.listChildrenNames, 0)
    call("listAllChildren", first.listAllChildren, 0)
    call("isCurrent", second.isCurrent, 0)
    call("hasMetadata", second.hasMetadata, 0)
    call("revertToSnapshot", dom.revertToSnapshot, first, 0)
    call("snapshotCurrent after", dom.snapshotCurrent, 0)
    call("delete", second.delete, 0)
    call("delete twice", second.delete, 0)
    call("getXMLDesc of deleted", second.getXMLDesc, 0)
    call("delete last", first.delete, 0)


def checkpoints(dom):
    call("listAllCheckpoints", dom.listAllCheckpoints, 0)
    call("checkpointLookupByName missing", dom.checkpointLookupByName, "no-such-checkpoint", 0)
    call("checkpointCreateXML bad", dom.checkpointCreateXML, "<nonsense/>", 0)
    point = call("checkpointCreateXML", dom.checkpointCreateXML,
                 "<domaincheckpoint><name>point</name></domaincheckpoint>", 0)
    if point is not None:
        call("checkpoint getXMLDesc", point.getXMLDesc, 0)
        call("checkpoint delete", point.delete, 0)


def networks(conn):
    call("listNetworks", conn.listNetworks)
    call("listDefinedNetworks", conn.listDefinedNetworks)
    call("numOfNetworks", conn.numOfNetworks)
    call("listAllNetworks", conn.listAllNetworks, 0)
    call("networkDefineXML bad", conn.networkDefineXML, "<network/>")
    call("networkDefineXML no XML", conn.networkDefineXML, "nonsense")
    net = call("networkDefineXML", conn.networkDefineXML,
               f"<network><name>lan</name><uuid>{FIXED_UUID}</uuid><bridge name='virbr7'/>"
               "<forward mode='nat'/><ip address='192.0.2.1' netmask='255.255.255.0'/></network>")
    call("network XMLDesc", net.XMLDesc, 0)
    call("network bridgeName", net.bridgeName)
    call("network isActive", net.isActive)
    call("network isPersistent", net.isPersistent)
    call("network autostart", net.autostart)
    call("network setAutostart", net.setAutostart, 1)
    call("network destroy inactive", net.destroy)
    call("network create", net.create)
    call("network create twice", net.create)
    call("network update", net.update, libvirt.VIR_NETWORK_UPDATE_COMMAND_ADD_LAST,
         libvirt.VIR_NETWORK_SECTION_DNS_HOST, -1,
         "<host ip='192.0.2.9'><hostname>h</hostname></host>", 0)
    call("network update bad", net.update, 1, 99, -1, "<x/>", 0)
    call("network DHCPLeases", net.DHCPLeases, None, 0)
    call("network listAllPorts", net.listAllPorts, 0)
    call("network destroy", net.destroy)
    call("network undefine", net.undefine)
    call("network undefine twice", net.undefine)
    net = call("networkCreateXML", conn.networkCreateXML, "<network><name>short</name><bridge name='virbr8'/></network>")
    call("network undefine transient", net.undefine)
    call("network destroy transient", net.destroy)
    call("network XMLDesc of gone", net.XMLDesc, 0)


def storage(conn):
    call("listStoragePools", conn.listStoragePools)
    call("listDefinedStoragePools", conn.listDefinedStoragePools)
    call("listAllStoragePools", conn.listAllStoragePools, 0)
    call("storagePoolDefineXML bad", conn.storagePoolDefineXML, "<pool/>", 0)
    pool = call("storagePoolDefineXML", conn.storagePoolDefineXML,
                f"<pool type='dir'><name>images</name><uuid>{FIXED_UUID}</uuid>"
                "<target><path>/images</path></target></pool>", 0)
    call("pool XMLDesc", pool.XMLDesc, 0)
    call("pool info", pool.info)
    call("pool isActive", pool.isActive)
    call("pool setAutostart", pool.setAutostart, 1)
    call("pool autostart", pool.autostart)
    call("pool numOfVolumes inactive", pool.numOfVolumes)
    call("pool refresh inactive", pool.refresh, 0)
    call("pool destroy inactive", pool.destroy)
    call("pool build", pool.build, 0)
    call("pool create", pool.create, 0)
    call("pool create twice", pool.create, 0)
    call("pool refresh", pool.refresh, 0)
    call("createXML bad", pool.createXML, "<volume/>", 0)
    volume = call("createXML", pool.createXML,
                  "<volume><name>disk1</name><capacity unit='MiB'>8</capacity>"
                  "<allocation>0</allocation></volume>", 0)
    call("createXML again", pool.createXML,
         "<volume><name>disk1</name><capacity unit='MiB'>8</capacity></volume>", 0)
    call("createXML too big", pool.createXML,
         "<volume><name>big</name><capacity unit='TiB'>9000</capacity>"
         "<allocation unit='TiB'>9000</allocation></volume>", 0)
    call("createXMLFrom", pool.createXMLFrom,
         "<volume><name>disk2</name><capacity unit='MiB'>8</capacity></volume>", volume, 0)
    call("listVolumes", pool.listVolumes)
    call("listAllVolumes", pool.listAllVolumes, 0)
    call("numOfVolumes", pool.numOfVolumes)
    call("storageVolLookupByName", pool.storageVolLookupByName, "disk1")
    call("storageVolLookupByName missing", pool.storageVolLookupByName, "no-such-volume")
    call("volume path", volume.path)
    call("volume key", volume.key)
    call("volume info", volume.info)
    call("volume XMLDesc", volume.XMLDesc, 0)
    call("volume storagePoolLookupByVolume", volume.storagePoolLookupByVolume)
    call("storageVolLookupByPath", conn.storageVolLookupByPath, "/images/disk1")
    call("storageVolLookupByKey", conn.storageVolLookupByKey, "/images/disk1")
    call("volume resize", volume.resize, 1 << 24, 0)
    call("volume wipe", volume.wipe, 0)
    call("volume upload", volume.upload, conn.newStream(0), 0, 0, 0)
    call("volume download", volume.download, conn.newStream(0), 0, 0, 0)
    call("volume delete", volume.delete, 0)
    call("volume delete twice", volume.delete, 0)
    call("volume info of gone", volume.info)
    call("pool undefine active", pool.undefine)
    call("pool delete active", pool.delete, 0)
    call("pool destroy", pool.destroy)
    call("pool delete", pool.delete, 0)
    call("pool undefine", pool.undefine)
    call("pool undefine twice", pool.undefine)


def devices(conn):
    call("listDevices", conn.listDevices, None, 0)
    call("listDevices scsi", conn.listDevices, "scsi_host", 0)
    call("numOfDevices", conn.numOfDevices, None, 0)
    call("listAllDevices", conn.listAllDevices, 0)
    call("listAllDevices flags", conn.listAllDevices, 1 << 30)
    device = call("nodeDeviceLookupByName", conn.nodeDeviceLookupByName, "computer")
    call("device XMLDesc", device.XMLDesc, 0)
    call("device parent", device.parent)
    call("device listCaps", device.listCaps)
    call("device numOfCaps", device.numOfCaps)
    call("device dettach", device.dettach)
    call("device reset", device.reset)
    call("device destroy", device.destroy)
    call("nodeDeviceCreateXML bad", conn.nodeDeviceCreateXML, "<device/>", 0)
    call("listInterfaces", conn.listInterfaces)
    call("listDefinedInterfaces", conn.listDefinedInterfaces)
    call("listAllInterfaces", conn.listAllInterfaces, 0)
    interface = call("interfaceLookupByName", conn.interfaceLookupByName, "eth1")
    call("interface XMLDesc", interface.XMLDesc, 0)
    call("interface MACString", interface.MACString)
    call("interface isActive", interface.isActive)
    call("interface create active", interface.create, 0)
    call("interface destroy", interface.destroy, 0)
    call("interface destroy twice", interface.destroy, 0)
    call("interface create", interface.create, 0)
    call("changeBegin", conn.changeBegin, 0)
    call("changeBegin twice", conn.changeBegin, 0)
    call("interfaceDefineXML bad", conn.interfaceDefineXML, "<interface/>", 0)
    call("interface undefine", interface.undefine)
    call("interfaceLookupByName undefined", conn.interfaceLookupByName, "eth1")
    call("changeRollback", conn.changeRollback, 0)
    call("interfaceLookupByName back", conn.interfaceLookupByName, "eth1")
    call("changeCommit without begin", conn.changeCommit, 0)


def screenshot(conn):
    dom = conn.lookupByName("test")
    stream = conn.newStream(0)
    call("screenshot", dom.screenshot, stream, 0)
    data = b""
    while block := stream.recv(65536):
        data += block
    call("stream finish", stream.finish)
    print(f"    screenshot: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:16]}")
    stream = conn.newStream(0)
    call("screenshot of screen 9", dom.screenshot, stream, 9)
    stream = conn.newStream(0)
    call("screenshot to abort", dom.screenshot, stream, 0)
    call("stream recv", stream.recv, 1000, show=False)
    call("stream abort", stream.abort)
    call("getVersion after abort", conn.getVersion)


def read_only(uri):
    conn = libvirt.openReadOnly(uri)
    dom = call("read-only lookupByName", conn.lookupByName, "test")
    call("read-only XMLDesc", dom.XMLDesc, 0)
    call("read-only XMLDesc secure", dom.XMLDesc, libvirt.VIR_DOMAIN_XML_SECURE)
    call("read-only suspend", dom.suspend)
    call("read-only destroy", dom.destroy)
    call("read-only defineXML", conn.defineXML, domain_xml("x"))
    call("read-only networkDefineXML", conn.networkDefineXML, "<network/>")
    call("read-only storagePoolDefineXML", conn.storagePoolDefineXML, "<pool/>", 0)
    call("read-only restore", conn.restore, "/nonexistent/image")
    call("read-only close", conn.close)


def main(uri):
    conn = call("open", libvirt.open, uri)
    connection(conn)
    lookups(conn)
    domains(conn)
    networks(conn)
    storage(conn)
    devices(conn)
    screenshot(conn)
    read_only(uri)
    call("close", conn.close)
    print(f"{count} calls")


main(sys.argv[1])
