# What the server scripts share; to be sourced.
servers=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cache=${BELFRY_CACHE:-$servers/../../../.cache}
mkdir -p "$cache"
cache=$(readlink -f "$cache")

# free_ports N: N ports of loopback that are free now, told apart because all are bound at once
free_ports() {
    python3 - "$1" << 'PY'
import socket, sys
sockets = [socket.socket() for _ in range(int(sys.argv[1]))]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*[s.getsockname()[1] for s in sockets])
PY
}

# answers PORT: whether somebody listens there
answers() { (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }

# alive PID: a killed process whose threads still hold its ports is alive, a zombie is not
alive() {
    case $(sed 's/.*) //;s/ .*//' "/proc/$1/stat" 2> /dev/null) in
        "") return 1 ;;
        Z | X) [ "$(ls "/proc/$1/task" 2> /dev/null | wc -l)" -gt 1 ] ;;
    esac
}

# until_answers PORT PID LOG...: waits for a server of ours, or tells why it did not come
until_answers() {
    local port=$1 pid=$2
    shift 2
    for _ in $(seq 600); do
        alive "$pid" || break
        answers "$port" && return
        sleep 0.1
    done
    tail -n 20 "$@" >&2
    return 1
}
