//! A tiny real guest: QEMU without KVM, 16 MiB, no operating system. Its boot sector says
//! `echo\r\n` on the serial console and then sends back whatever it is sent. It has a VNC display.

use std::fs;
use std::path::PathBuf;

use super::libvirtd::Libvirtd;
use super::process::find_program;
use super::workdir::give;

/// 16-bit code loaded at 0x7c00, using the first serial port at 0x3f8.
#[rustfmt::skip]
const ECHO: &[u8] = &[
    0xfc,                   //         cld
    0x31, 0xc0,             //         xor ax, ax
    0x8e, 0xd8,             //         mov ds, ax
    0x8e, 0xd0,             //         mov ss, ax
    0xbc, 0x00, 0x7c,       //         mov sp, 0x7c00
    0xbe, 0x3b, 0x7c,       //         mov si, text
    0xac,                   // next:   lodsb
    0x84, 0xc0,             //         test al, al
    0x74, 0x07,             //         jz wait
    0x88, 0xc3,             //         mov bl, al
    0xe8, 0x15, 0x00,       //         call put
    0xeb, 0xf4,             //         jmp next
    0xba, 0xfd, 0x03,       // wait:   mov dx, 0x3fd
    0xec,                   // idle:   in al, dx
    0xa8, 0x01,             //         test al, 1      ; received?
    0x74, 0xfb,             //         jz idle
    0xba, 0xf8, 0x03,       //         mov dx, 0x3f8
    0xec,                   //         in al, dx
    0x88, 0xc3,             //         mov bl, al
    0xe8, 0x02, 0x00,       //         call put
    0xeb, 0xed,             //         jmp wait
    0xba, 0xfd, 0x03,       // put:    mov dx, 0x3fd
    0xec,                   // full:   in al, dx
    0xa8, 0x20,             //         test al, 0x20   ; room to send?
    0x74, 0xfb,             //         jz full
    0x88, 0xd8,             //         mov al, bl
    0xba, 0xf8, 0x03,       //         mov dx, 0x3f8
    0xee,                   //         out dx, al
    0xc3,                   //         ret
    b'e', b'c', b'h', b'o', b'\r', b'\n', 0, // text
];

/// The description of a guest called `name` for `daemon`'s `qemu:///session`, as a file that
/// clients read. It is not started.
pub(crate) fn guest_xml(daemon: &Libvirtd, name: &str) -> PathBuf {
    let emulator = find_program("qemu-system-x86_64");
    let image = daemon.dir().join(format!("{name}.img"));
    let mut sector = ECHO.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    fs::write(&image, sector).unwrap();
    give(&image, daemon.account());
    let xml = format!(
        "<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type></os>
  <devices>
    <emulator>{emulator}</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{image}'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <controller type='usb' model='none'/>
    <serial type='pty'/>
    <console type='pty'/>
    <graphics type='vnc'><listen type='socket'/></graphics>
    <video><model type='vga'/></video>
    <memballoon model='none'/>
  </devices>
</domain>
",
        emulator = emulator.display(),
        image = image.display(),
    );
    let path = daemon.dir().join(format!("{name}.xml"));
    fs::write(&path, xml).unwrap();
    path
}
