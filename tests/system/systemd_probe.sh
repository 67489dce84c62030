#!/bin/sh
# Runs inside the booted container (run_systemd.sh); says what it found on /probe.log, and PROBE PASSED at the end.
set -eu
exec >/probe.log 2>&1
unit=nis-edge.service

status() {
  /opt/nis-edge/bin/python - "$1" <<'PY'
import json, sys, urllib.request
view = json.load(urllib.request.urlopen("http://127.0.0.1:6470/v1/status", timeout=5))
print(eval(sys.argv[1], {"view": view}))
PY
}
until_is() { # seconds, what, command...: until the command succeeds
  limit=$1 what=$2; shift 2
  n=0
  until "$@" >/dev/null 2>&1; do
    n=$((n + 1))
    if [ "$n" -gt $((limit * 5)) ]; then
      echo "FAILED: $what"; systemctl status --no-pager $unit; journalctl -u $unit -n 30 --no-pager -o cat; exit 1
    fi
    sleep 0.2
  done
  echo "ok: $what"
}
fact() { systemctl show --property="$1" --value $unit; }
linked() { [ "$(status 'view["broker"]["connected"]')" = True ]; }
logged() { journalctl -u $unit -o cat | grep -q "$1"; }
main_is_not() { pid=$(fact MainPID); [ "$pid" != 0 ] && [ "$pid" != "$1" ]; }

until_is 60 "it is active: READY came" systemctl is-active --quiet $unit
until_is 30 "the broker let it in by the credential's password" linked
pid=$(fact MainPID)
[ "$(stat -c %U /proc/"$pid")" = nis-edge ] && echo "ok: it runs as nis-edge"
[ "$(awk '/^CapBnd/{print $2}' /proc/"$pid"/status)" = 0000000000000000 ] && echo "ok: it has no capabilities"
[ "$(awk '/^NoNewPrivs/{print $2}' /proc/"$pid"/status)" = 1 ] && echo "ok: and can get none"
[ "$(awk '/^Seccomp:/{print $2}' /proc/"$pid"/status)" = 2 ] && echo "ok: its system calls are filtered"
[ "$(stat -c '%U %a' /var/lib/nis-edge)" = "nis-edge 700" ] && echo "ok: its state is its own"
[ "$(status 'view["model"]["reason"]')" = None ] && echo "ok: the model judges under the hardening"
systemd-analyze verify /etc/systemd/system/$unit && echo "ok: systemd finds no fault with the unit"
systemctl reload $unit
until_is 10 "a reload is logged" logged config.reloaded
cp /etc/nis-edge/nis-edge.toml /tmp/good.toml
echo '[nonsense]' >>/etc/nis-edge/nis-edge.toml
systemctl reload $unit
until_is 10 "a broken file is refused" logged config.refused
[ "$(fact MainPID)" = "$pid" ] && systemctl is-active --quiet $unit && echo "ok: and the same process goes on"
cp /tmp/good.toml /etc/nis-edge/nis-edge.toml
kill -KILL "$pid"
until_is 30 "after a kill it is started again" main_is_not "$pid"
until_is 30 "and active again" systemctl is-active --quiet $unit
until_is 30 "and linked again" linked
pid=$(fact MainPID)
kill -STOP "$pid"
until_is 40 "a hang is noticed by the watchdog, and it is started again" main_is_not "$pid"
until_is 30 "and active again" systemctl is-active --quiet $unit
systemctl stop $unit
[ "$(fact Result)" = success ] && echo "ok: it stops cleanly"
until_is 5 "with a farewell in the log" logged '"reason":"stopped by SIGTERM"'
echo "PROBE PASSED"
