# Makes health checks on this host, all at once, each within its own time. Prints a line "check NUMBER VERDICT
# MILLISECONDS REASON" for each, in the order in which they end. The text after it calls one, number by number.
folder=$(mktemp -d) || exit
trap 'rm -rf "$folder"' EXIT

# limited SECONDS COMMAND...: what a command leaves running keeps no pipe open, as it writes to files
limited() {
  limit=$1
  shift
  timeout -k 1 "$limit" "$@" > "$folder/$number.out" 2> "$folder/$number.err" < /dev/null
  code=$?
  case $code in
    0) said= ;;
    124 | 137) said="no answer within $limit s" ;;
    *) said=$(tail -n 1 "$folder/$number.err" | head -c 300) ;;
  esac
  return $code
}

# one NUMBER TYPE SECONDS...
one() {
  number=$1 kind=$2 seconds=$3
  shift 3
  began=$(date +%s%3N)
  verdict=failed
  case $kind in
    http) # URL STATUS BODY INSECURE FOLLOW
      set -- "$1" "$2" "$3" ${4:+--insecure} ${5:+--location --max-redirs 10}
      url=$1 status=$2 body=$3
      shift 3
      if limited "$seconds" curl -q -g -sS --noproxy '*' --max-filesize 1048576 -o "$folder/$number.body" -w '%{http_code}' "$@" "$url"; then
        got=$(cat "$folder/$number.out")
        case $got in
          "$status") verdict=passed ;;
          2??) [ -n "$status" ] || verdict=passed ;;
        esac
        said="status $got"
        if [ $verdict = passed ] && [ -n "$body" ]; then
          case $(head -c 1048576 "$folder/$number.body" 2> /dev/null | tr -d '\000') in
            *"$body"*) ;;
            *) verdict=failed said="the body does not contain what it should" ;;
          esac
        fi
      elif [ "$code" != 124 ] && [ "$code" != 137 ]; then
        said=$(head -n 1 "$folder/$number.err" | head -c 300) # its advice is below
        said=${said#curl: *) }
      fi ;;
    tcp) # HOST PORT
      if limited "$seconds" bash -c 'exec 3<> "/dev/tcp/$0/$1"' "$1" "$2"; then verdict=passed; fi
      said=${said##*: } ;;
    command) # COMMAND
      if limited "$seconds" sh -c "$1"; then verdict=passed; fi
      [ $verdict = passed ] || [ -n "$said" ] || said="exit status $code" ;;
    unit) # UNIT
      if limited "$seconds" systemctl is-active -- "$1"; then verdict=passed; fi
      [ $verdict = passed ] || [ "$code" = 124 ] || said="the unit is $(head -n 1 "$folder/$number.out")" ;;
  esac
  printf 'check %s %s %s %s\n' "$number" $verdict "$(($(date +%s%3N) - began))" "$(printf %s "$said" | tr '\000-\037\177' ' ')"
}
