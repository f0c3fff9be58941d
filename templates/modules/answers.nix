# Shell functions that ask whether the API of a k3s server runs. No password is sent: to anyone without one,
# k3s answers 401 as soon as its API runs, and 503 before.
''
  answers() {
    case $(curl --silent --insecure --noproxy '*' --max-time 3 --output /dev/null --write-out '%{http_code}' "https://$1:6443/readyz") in
      200 | 401 | 403) ;;
      *) false ;;
    esac
  }

  # Asks all addresses at the same time, and prints the first one in their order that answers.
  firstThatAnswers() {
    local address asked=()
    for address; do
      answers "$address" < /dev/null > /dev/null &
      asked+=($!)
    done
    for address; do
      if wait "''${asked[0]}"; then
        echo "$address"
        return
      fi
      asked=("''${asked[@]:1}")
    done
    false
  }
''
