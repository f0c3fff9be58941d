# A shell script that finds a server to join by before each start of k3s, and puts its address into a file of
# environment variables. A flag would be part of the unit, with the address of one server, and that one may
# be away when others answer.
#
#   servers  the file with the addresses of the other servers, one a line, in the order in which they are asked
#   chosen   the file with K3S_URL
#   joined   a command that reports whether k3s has joined already; then the last choice comes first
#   asks     a command that reports whether they are asked now
{ servers, chosen, joined, asks }:
''
  ${import ./answers.nix}
  last=
  if [ -e ${chosen} ]; then
    last=$(< ${chosen})
    last=''${last#K3S_URL=https://}
    last=''${last%:6443}
  fi
  addresses=() before=() after=()
  if [ -e ${servers} ]; then
    while read -r address; do
      if [ "$address" != "$last" ]; then
        addresses+=("$address")
      elif ${joined}; then
        before=("$address")
      else
        after=("$address") # it did not let k3s join
      fi
    done < ${servers}
  fi
  addresses=("''${before[@]}" "''${addresses[@]}" "''${after[@]}")
  if [ ''${#addresses[@]} -gt 0 ]; then
    server=''${addresses[0]}
    if ${asks}; then
      # if none answers, k3s tries the first one itself
      server=$(firstThatAnswers "''${addresses[@]}" || echo "$server")
    fi
    mkdir -p ${dirOf chosen}
    echo "K3S_URL=https://$server:6443" > ${chosen}.new
    mv ${chosen}.new ${chosen}
  elif ! ${joined}; then # k3s would begin a cluster of its own
    echo "no address of another server in ${servers}" >&2
    exit 1
  fi
''
