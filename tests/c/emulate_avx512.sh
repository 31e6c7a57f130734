#!/usr/bin/env bash
# Runs the AVX-512 kernels on any x86-64 machine, in an emulated one that has AVX-512:
#   tests/c/emulate_avx512.sh FOLDER [RUNS]
# FOLDER has the programs client and fuzz, linked statically. Bochs emulates a Skylake-X, on which
# Debian's kernel starts them. Prints what they print; fails where one of them does, or where it
# did not run AVX-512. Needs Debian's packages bochs, isolinux, syslinux-common, xorriso and cpio,
# gcc, and an apt that can download the kernel's package. Takes some minutes.
set -euo pipefail
programs=$(realpath "$1")
runs=${2:-300}
here=$(realpath "$(dirname "${BASH_SOURCE[0]}")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .

# ---- a kernel, unpacked and not installed ----
package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-.*\)/\1/p')
apt-get download -qq "$package" >apt.log 2>&1 || { cat apt.log; exit 1; }
dpkg-deb -x ./*.deb kernel

# ---- a disk with it, the programs and the first process ----
mkdir -p root disk/isolinux
cp "$programs/client" "$programs/fuzz" root/
gcc -O1 -static "$here/emulated_init.c" -o root/init
# The client asks for AVX-512 alone, which fails where it cannot run; the fuzz compares all.
printf '/client avx512\n/fuzz %s 1\n' "$runs" >root/programs
(cd root && find . | cpio -o -H newc --quiet) >disk/programs
cp kernel/boot/vmlinuz-* disk/kernel
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 disk/isolinux/
# Without the features 321 and 323, xsavec and xsaves: Bochs gives a wrong size of what they save,
# and then Linux would use no register wider than SSE's.
cat >disk/isolinux/isolinux.cfg <<'CFG'
DEFAULT linux
LABEL linux
  KERNEL /kernel
  INITRD /programs
  APPEND console=ttyS0 loglevel=3 mitigations=off nokaslr no_timer_check lpj=200000 nosmp clearcpuid=321,323
CFG
xorriso -as mkisofs -quiet -o disk.iso -b isolinux/isolinux.bin -c isolinux/boot.cat \
  -no-emul-boot -boot-load-size 4 -boot-info-table disk 2>xorriso.log || { cat xorriso.log; exit 1; }

# ---- the machine: no screen (rfb without a viewer), no sound; the serial line goes to a file ----
cat >bochsrc <<'RC'
cpu: model=corei7_skylake_x, count=1, ips=50000000
megs: 256
clock: sync=none
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=disk.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=serial.txt
display_library: rfb, options="timeout=0"
sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy
plugin_ctrl: speaker=false, parallel=false, gameport=false
log: bochs.log
panic: action=fatal
RC
echo continue >debugger # Debian's Bochs stops in its debugger
# It ends with a status of its own when the machine is switched off; what was printed decides.
timeout "${EMULATION_LIMIT:-1500}" bochs -f bochsrc -rc debugger </dev/null >bochs.txt 2>&1 || true
tr -d '\r' <serial.txt >output.txt
sed -n '/^begins/,$p' output.txt
grep -q '^the end$' output.txt || { tail bochs.txt bochs.log; exit 1; }
[ "$(grep -c '^ended: .* with status 0$' output.txt)" -eq 2 ]
grep -q '^instruction sets: avx512,avx2,scalar$' output.txt
