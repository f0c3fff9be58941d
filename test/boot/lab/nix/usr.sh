# Builds the path that replaces all packages: links to programs of the Debian tree below $root, as they
# will be found in /usr.
shopt -s nullglob
mkdir -p $out/{bin,lib/tmpfiles.d,etc/ssl/certs,libexec,share/dbus-1,lib/locale,lib/security,lib/modules,lib/systemd,example}
ln -s bin $out/sbin

# an alternative is chosen in /etc, which is NixOS's on the machine
for file in $root/usr/{bin,sbin}/*; do
  name=${file##*/}
  target=/usr/${file#$root/usr/}
  case $(readlink $file) in /etc/alternatives/*) target=$(readlink $root/etc/alternatives/$name || true) ;; esac
  [ -z "$target" ] || ln -sf $target $out/bin/$name
done
for file in ${more:+$more/bin/*}; do ln -sf /usr/bin/${file##*/} $out/bin/; done
ln -sf /usr/bin/bash $out/bin/sh
for name in conmon crun netavark; do
  for folder in usr/bin usr/lib/podman usr/libexec/podman; do
    [ ! -e $root/$folder/$name ] || ln -sf /$folder/$name $out/bin/$name
  done
done
for file in $root/usr/lib/systemd/*; do
  case ${file##*/} in system | user | network | *-preset | system-generators | user-generators | system-shutdown) ;; *) ln -s /usr/lib/systemd/${file##*/} $out/lib/systemd/ ;; esac
done
ln -s /usr/lib/udev $out/lib/udev
for file in $root/usr/lib/*/security/*.so; do ln -s ${file#$root} $out/lib/security/; done
[ -e $out/lib/security/pam_unix.so ]
ln -s /usr/lib/openssh/sftp-server $out/libexec/sftp-server
ln -s /usr/share/zoneinfo $out/share/zoneinfo

# NixOS copies these at build time
for folder in system user; do cp -r --no-preserve=ownership $root/usr/lib/systemd/$folder $out/example/; done
for folder in tmpfiles.d sysctl.d sysusers.d; do cp -r --no-preserve=ownership $root/usr/lib/$folder $out/example/; done
mv $out/example $out/example.systemd
mkdir $out/example && mv $out/example.systemd $out/example/systemd
for folder in tmpfiles.d sysctl.d sysusers.d; do ln -s systemd/$folder $out/example/$folder; done
for unit in $units; do
  [ -e $out/example/systemd/system/$unit ] ||
    printf '[Unit]\nDescription=%s, which Debian does not have\nConditionPathExists=/nonexistent\n[Service]\nType=oneshot\nExecStart=/bin/true\n' $unit \
      > $out/example/systemd/system/$unit
done
# Debian starts it by D-Bus, and asks whether that is there
sed -i '/^ConditionPathExists=.*dbus/d' $out/example/systemd/system/systemd-logind.service

cp $root/etc/protocols $root/etc/services $out/etc/ 2> /dev/null || touch $out/etc/{protocols,services}
cp -L $root/etc/ssl/certs/ca-certificates.crt $out/etc/ssl/certs/ca-bundle.crt 2> /dev/null || touch $out/etc/ssl/certs/ca-bundle.crt
touch $out/lib/tmpfiles.d/none.conf $out/bzImage $out/initrd $out/lib/locale/locale-archive
# used at build time
printf '%s\n' '#!/bin/bash' '[ "$1" != -silent ] || shift' 'exec cp -rsf "$1/." "${2:-.}"' > $out/bin/lndir
chmod +x $out/bin/lndir
