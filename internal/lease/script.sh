# One action on this host's lease. The answer is a line "k3splan-lease VERDICT …".
# Words: the action (take, renew or release), the run's token, the operator's place, the seconds for which
# the lease is good, and the owner's name for people.
set -eu
action=$1 token=$2 place=$3 seconds=$4 owner=$5
folder=/var/lib/k3splan
umask 077
mkdir -p "$folder"
exec 9>> "$folder/lease.lock"
flock -w 10 9 || { echo "another process on this host keeps the lease's lock" >&2; exit 1; }

# This host's clock since boot: it never jumps, unlike the time of day, here or on the operator's machine.
boot=$(cat /proc/sys/kernel/random/boot_id)
read -r now rest < /proc/uptime
now=${now%%.*}

number() { case $1 in '' | *[!0-9]* | 0?* | ??????????*) return 1 ;; esac; }
held_token='' held_place='' held_boot='' held_at='' held_seconds='' held_owner='' left=0
if [ -e "$folder/lease" ]; then
  { read -r held_token && read -r held_place && read -r held_boot && read -r held_at && read -r held_seconds && read -r held_owner; } < "$folder/lease" || :
  number "$held_seconds" || held_seconds=$seconds
  # a host that has restarted since only knows that the lease is at least as old as its own boot
  if [ "$held_boot" != "$boot" ] || ! number "$held_at"; then held_at=0; fi
  left=$((held_at + held_seconds - now))
fi

write() {
  printf '%s\n' "$token" "$place" "$boot" "$now" "$seconds" "$owner" > "$folder/lease.new"
  mv "$folder/lease.new" "$folder/lease"
}
case $action in
  take)
    if [ "$held_token" = "$token" ] || [ "$held_place" = "$place" ] || [ "$left" -le 0 ]; then
      write
      echo "k3splan-lease taken"
    else
      echo "k3splan-lease held $left $held_owner"
    fi ;;
  renew)
    if [ "$held_token" = "$token" ]; then
      write
      echo "k3splan-lease taken"
    else
      echo "k3splan-lease lost 0 $held_owner"
    fi ;;
  release)
    if [ "$held_token" = "$token" ]; then rm -f "$folder/lease"; fi
    echo "k3splan-lease released" ;;
  *) echo "unknown action: $action" >&2; exit 2 ;;
esac
