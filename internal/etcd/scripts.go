package etcd

import (
	"bufio"
	"strings"

	"k3splan/internal/rollout"
)

const (
	// recordFile is where a host records how far a restore is: "ID SHA256 STAGE".
	recordFile = "/var/lib/k3splan/restore"
	// dropIns is where, in a container, systemd looks for what changes a unit before it looks in
	// /etc/systemd/system, which leads into the store. It outlasts a restart of the container.
	dropIns = "/etc/systemd/system.control/k3s.service.d"
	// hold keeps k3s from starting, and reset lets it restore a snapshot and end, while flag exists. What is
	// in /run does not outlast a restart of the container.
	hold  = dropIns + "/" + rollout.HoldFile
	reset = dropIns + "/zzz-k3splan-reset.conf"
	flag  = "/run/k3splan-reset"
	// k3sFolder is k3s's, in a container, and uploaded where a snapshot is put to restore it.
	k3sFolder = "/var/lib/rancher/k3s"
	uploaded  = k3sFolder + "/k3splan-restore/snapshot"
)

// alone waits until an earlier step has ended on the host: it goes on when its connection is lost, or k3splan is killed.
const alone = `
mkdir -p "$(dirname ` + recordFile + `)"
exec 9> ` + recordFile + `.lock
flock -w 900 9 || { echo "an earlier step of a restore still runs on this host" >&2; exit 1; }
`

// common are functions for the other scripts. "$1" is always the container.
const common = `
set -e
` + alone + `
container=$1
unit=container@$container.service
root=/var/lib/nixos-containers/$container
inside() { nixos-container run "$container" -- "$@"; }
record() {
  (umask 077 && printf '%s\n' "$1" > ` + recordFile + `.new)
  sync ` + recordFile + `.new
  mv ` + recordFile + `.new ` + recordFile + `
}
k3s_state() { inside systemctl show -p ActiveState --value k3s.service; }
`

// lookScript prints what a host says about its server and a restore.
const lookScript = `
container=$1
root=/var/lib/nixos-containers/$container
if [ -d "$root" ]; then echo "container yes"; fi
if [ -e "$root` + hold + `" ]; then echo "held yes"; fi
echo "record $(cat ` + recordFile + ` 2> /dev/null)"
if [ "$(systemctl show -p ActiveState --value "container@$container.service")" = active ]; then
  text=$(nixos-container run "$container" -- systemctl cat k3s.service 2> /dev/null | tr '\n"' '  ')
  case $text in *--cluster-init*) echo "founds yes" ;; esac
  printf %s "$text" | grep -o -e '--server[ =] *https://[^ ]*' | sed 's/.*https:/joins https:/' | tail -n 1
  echo "unit $(nixos-container run "$container" -- systemctl show -p LoadState --value k3s.service)"
fi
true
`

// stopScript stops k3s in the container and keeps it from starting again, and records "$2".
const stopScript = common + `
if [ ! -d "$root" ]; then echo "there is no container $container: it was never deployed here" >&2; exit 1; fi
mkdir -p "$root` + dropIns + `"
printf '[Unit]\n# k3splan etcd restore is not finished\nConditionPathExists=!` + hold + `\n' > "$root` + hold + `"
rm -f "$root` + reset + `"
sync "$root` + hold + `"
record "$2"
case $(systemctl show -p ActiveState --value "$unit") in
  inactive | failed) systemctl start "$unit" ;;
esac
inside systemctl daemon-reload
inside systemctl stop k3s.service
case $(k3s_state) in
  inactive | failed) ;;
  *) echo "k3s is $(k3s_state) after it was stopped" >&2; exit 1 ;;
esac
`

// uploadScript is for sh -c: it writes its standard input to the place of the snapshot of the container "$1".
const uploadScript = `set -e` + alone + `
file=/var/lib/nixos-containers/$1` + uploaded + `
umask 077
mkdir -p "$(dirname "$file")"
cat > "$file"
sync "$file"`

// resetScript lets the stopped k3s restore the snapshot with the SHA-256 "$3", and records "$2". k3s is run
// with all arguments of its unit, as it needs its token, its addresses and its folder.
const resetScript = common + `
file=$root` + uploaded + `
if [ "$(sha256sum "$file" | cut -d ' ' -f 1)" != "$3" ]; then echo "the snapshot did not arrive whole" >&2; exit 1; fi
command=$(inside systemctl cat k3s.service | awk '
  /^#/ { next }
  more { text = text " " $0 }
  !more && /^ExecStart=/ { text = substr($0, 11) }
  { more = (more || /^ExecStart=/) && /\\$/; sub(/\\$/, "", text) }
  text != "" && !more { last = text; text = "" }
  END { print last }')
if [ -z "$command" ]; then echo "k3s.service has no command" >&2; exit 1; fi
rm -f "$root` + k3sFolder + `/server/db/reset-flag"
printf '%s\n' '[Unit]' 'ConditionPathExists=' 'ConditionPathExists=` + flag + `' '[Service]' 'Type=oneshot' 'Restart=no' 'TimeoutStartSec=15min' 'ExecStart=' \
  "ExecStart=$command --cluster-reset --cluster-reset-restore-path=` + uploaded + ` --etcd-s3=false" > "$root` + reset + `"
inside systemctl daemon-reload
inside touch ` + flag + `
inside systemctl reset-failed k3s.service 2> /dev/null || true
failed=
inside systemctl start k3s.service > /dev/null 2>&1 || failed=yes
inside rm -f ` + flag + `
rm -f "$root` + reset + `"
inside systemctl daemon-reload
if [ -n "$failed" ] || [ ! -e "$root` + k3sFolder + `/server/db/reset-flag" ] || [ ! -d "$root` + k3sFolder + `/server/db/etcd/member/wal" ]; then
  echo "k3s could not restore the snapshot:" >&2
  inside journalctl -u k3s.service -n 40 -o cat --no-pager | grep -v '^{' | grep -i -E 'fatal|error|warning|token|snapshot|cluster' | tail -n 6 >&2 || true
  exit 1
fi
sync
record "$2"
rm -rf "$(dirname "$file")"
`

// emptyScript puts aside what the stopped server "$1" has of the cluster, in a folder of the restore "$3",
// and records "$2": it then joins as a new one.
const emptyScript = common + `
if [ ! -e "$root` + hold + `" ]; then echo "k3s is not kept from starting" >&2; exit 1; fi
aside=$root` + k3sFolder + `/before-restore-$3
(umask 077 && mkdir -p "$aside")
for name in db tls cred; do
  if [ -e "$root` + k3sFolder + `/server/$name" ]; then mv "$root` + k3sFolder + `/server/$name" "$aside/$name.$(date +%s)"; fi
done
sync
record "$2"
`

// startScript lets k3s start, and records "$2". "$3" is "init" for the init server: without a state it would
// found a cluster.
const startScript = common + `
if [ "$3" = init ] && [ ! -d "$root` + k3sFolder + `/server/db/etcd/member/wal" ]; then
  echo "the init server has no state: it would found another cluster" >&2
  exit 1
fi
rm -f "$root` + hold + `" "$root` + reset + `"
rmdir "$root` + dropIns + `" 2> /dev/null || true
case $(systemctl show -p ActiveState --value "$unit") in
  inactive | failed) systemctl start "$unit" ;;
esac
inside systemctl daemon-reload
inside systemctl reset-failed k3s.service 2> /dev/null || true
inside systemctl start k3s.service
record "$2"
`

// recordScript only records "$2".
const recordScript = common + `record "$2"
`

// stage is how far a restore is on one host, in their order.
type stage string

const (
	none    stage = ""
	stopped stage = "stopped"
	// restored is a snapshot that k3s has put in place on the init server, emptied any other server.
	restored stage = "restored"
	emptied  stage = "emptied"
	started  stage = "started"
	// finished is recorded on the init server's host alone, when all servers have joined again.
	finished stage = "finished"
)

// atLeast reports whether a host is as far as the stage; restored and emptied are equally far.
func (s stage) atLeast(other stage) bool {
	order := map[stage]int{none: 0, stopped: 1, restored: 2, emptied: 2, started: 3, finished: 4}
	return order[s] >= order[other]
}

// record is what a host has recorded of the last restore.
type record struct {
	id, sum string
	stage   stage
}

func (r record) String() string { return r.id + " " + r.sum + " " + string(r.stage) }

func parseRecord(text string) record {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return record{}
	}
	return record{fields[0], fields[1], stage(fields[2])}
}

// view is what a host says about its server and a restore.
type view struct {
	// container and loaded report whether there is a container, and k3s's unit in it; held, that k3s is kept
	// from starting.
	container, loaded, held bool
	// founds reports whether its unit is that of an init server, and joins is the URL in the unit by which it
	// joins a cluster. Without either it asks all servers of the plan, the init server first.
	founds bool
	joins  string
	record record
}

func parseView(out string) (v view) {
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		switch key {
		case "container":
			v.container = true
		case "held":
			v.held = true
		case "unit":
			v.loaded = value == "loaded"
		case "founds":
			v.founds = true
		case "joins":
			v.joins = value
		case "record":
			v.record = parseRecord(value)
		}
	}
	return v
}
