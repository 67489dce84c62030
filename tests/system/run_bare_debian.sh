#!/usr/bin/env bash
# Proves the README on a bare Debian 12: a minbase root, the README's apt line, a clone, `make run FOR=20`, `make test-fast`.
# Needs root (mmdebstrap, chroot) and the package mirror. Removes the root afterwards; KEEP=1 keeps it.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${ROOT:-$(mktemp -d /var/tmp/nis-edge-debian.XXXXXX)}
mount_points=(proc sys dev)
clean() {
  for point in "${mount_points[@]}"; do umount -l "$root/$point" 2>/dev/null || true; done
  [ -n "${KEEP:-}" ] || rm -rf --one-file-system "$root"
}
trap clean EXIT

apt_line=$(sed -n 's/^ *sudo \(apt-get install .*\)$/\1/p' README.md | head -n 1)
[ -n "$apt_line" ] || { echo "README.md names no apt line"; exit 1; }
if [ ! -x "$root/bin/sh" ]; then
  mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$root"
fi
chmod 755 "$root"
for point in "${mount_points[@]}"; do mount --rbind "/$point" "$root/$point"; done
# The network of the host, and its trust and index settings if it has any of its own.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
for file in /etc/apt/apt.conf.d/*proxy* /etc/apt/apt.conf.d/*cert* /etc/pip.conf; do
  [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
git clone --quiet . "$root/root/nis-edge"

echo "-- $apt_line"
chroot "$root" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive \
  sh -c "apt-get update -qq && $apt_line -qq --no-install-recommends >/dev/null"
inside() {
  chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} ${PIP_CERT:+PIP_CERT="$PIP_CERT"} sh -c "cd /root/nis-edge && $1"
}
echo "-- make run FOR=20"
inside 'make run FOR=20'
echo "-- make test-fast"
inside 'make test-fast'
du -sh "$root/root/nis-edge/.venv" | sed 's/^/virtual environment: /'
