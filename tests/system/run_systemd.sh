#!/usr/bin/env bash
# Proves the service on a real systemd: a Debian 12 root, installed by the lines of systemd/README.md, booted in a
# container without any network but loopback. Looks at: start with READY, the account, the hardening in force, a password
# by LoadCredential, the link to a mosquitto beside it, reload, refusal of a broken file, restart after a kill, a hang
# noticed by the watchdog, a clean stop. Needs root, systemd-nspawn, mmdebstrap and the package mirror; exit code 77 where
# a container can't be started. KEEP=1 keeps the root; ROOT=... takes one that is there (run_bare_debian.sh leaves one).
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${ROOT:-$(mktemp -d /var/tmp/nis-edge-systemd.XXXXXX)}
trap '[ -n "${KEEP:-}" ] || rm -rf --one-file-system "$root"' EXIT
container() { systemd-nspawn --quiet --register=no --keep-unit --directory="$root" "$@"; }

if [ ! -x "$root/bin/sh" ]; then
  mmdebstrap --quiet --variant=minbase --include=ca-certificates,python3-venv,gcc,libc6-dev,mosquitto bookworm "$root"
fi
container --pipe true </dev/null || { echo "systemd-nspawn can't start a container here"; exit 77; }
chmod 755 "$root"
# The host's trust and index settings, if it has any of its own.
for file in /etc/apt/apt.conf.d/*proxy* /etc/pip.conf; do
  [ ! -f "$file" ] || install -D -m 644 "$file" "$root$file"
done
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ -e "$root/sbin/init" ] || container --pipe --setenv=DEBIAN_FRONTEND=noninteractive /bin/sh -ec \
  'apt-get update -qq && apt-get install -y -qq --no-install-recommends systemd-sysv dbus >/dev/null' </dev/null
rm -rf "$root/root/nis-edge" "$root/opt/nis-edge"
git clone --quiet . "$root/root/nis-edge"

# The install lines as a reader would type them; what starts the service waits for the boot.
install=$(sed -n '/^## Install/,/^## /p' systemd/README.md | sed -n '/^```sh/,/^```/p' | grep -v '^```' |
  grep -v '^nis-edge status' | sed 's/ --now//; s/#.*$//; s/\bsudo\b//g; s/systemctl daemon-reload &&//')
[ -n "$install" ] || { echo "systemd/README.md names no install lines"; exit 1; }
echo "-- $install"
container --pipe ${PIP_INDEX_URL:+--setenv=PIP_INDEX_URL="$PIP_INDEX_URL"} \
  /bin/sh -exc "cd /root/nis-edge && $install" >"$root/install.log" 2>&1 </dev/null ||
  { tail -n 20 "$root/install.log"; exit 1; }

# A broker that wants a password, which the service gets as a credential: the unit's own line, without its #.
echo right >"$root/etc/nis-edge/mqtt.password"
chmod 600 "$root/etc/nis-edge/mqtt.password"
sed -i 's/^#\(LoadCredential=mqtt.password:\)/\1/' "$root/etc/systemd/system/nis-edge.service"
sed -i 's/^\[mqtt\]$/[mqtt]\nhost = "127.0.0.1"\nusername = "dut"\npassword_file = "mqtt.password"/' \
  "$root/etc/nis-edge/nis-edge.toml"
container --pipe /bin/sh -ec 'printf "listener 1883 127.0.0.1\nallow_anonymous false\npassword_file /etc/mosquitto/users\n" \
  >/etc/mosquitto/conf.d/test.conf; touch /etc/mosquitto/users; chmod 600 /etc/mosquitto/users
  mosquitto_passwd -b /etc/mosquitto/users dut right; chown mosquitto: /etc/mosquitto/users' </dev/null
# A hang is to be noticed within seconds here, not within the unit's half minute.
mkdir -p "$root/etc/systemd/system/nis-edge.service.d"
printf '[Service]\nWatchdogSec=6\nRestartSec=1\n' >"$root/etc/systemd/system/nis-edge.service.d/test.conf"

install -m 755 tests/system/systemd_probe.sh "$root/usr/local/bin/probe"
cat >"$root/etc/systemd/system/probe.service" <<UNIT
[Unit]
After=mosquitto.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/probe
ExecStopPost=/bin/systemctl --no-block poweroff
TimeoutStartSec=170
[Install]
WantedBy=multi-user.target
UNIT
container --pipe systemctl --quiet enable probe.service </dev/null
rm -f "$root/probe.log"
timeout 240 systemd-nspawn --quiet --register=no --keep-unit --private-network --boot --directory="$root" \
  >"$root/boot.log" 2>&1 </dev/null || true
cat "$root/probe.log" || true
grep -q '^PROBE PASSED$' "$root/probe.log" || { tail -n 15 "$root/boot.log"; exit 1; }
