
# What a rehearsal does with the machines; `rehearsal` is what it knows about them. k3splan's tests run it with
# machines that are not virtual ones.

SSH = (
    "ssh -i /etc/k3splan-rehearsal/key -o BatchMode=yes -o ConnectTimeout=5 -o LogLevel=ERROR"
    " -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
)

by_name = {machine.name: machine for machine in machines}


def inside(host: dict[str, Any], command: str) -> str:
    """A command in the container of the host's server."""
    return f"timeout 60 nixos-container run {host['server']['name']} -- {command}"


def wait(host: dict[str, Any], command: str, timeout: int = 600) -> str:
    return str(by_name[host["name"]].wait_until_succeeds(command, timeout=timeout))


def is_up(host: dict[str, Any]) -> None:
    wait(host, "systemctl is-active multi-user.target")


def reaches(host: dict[str, Any], other: dict[str, Any]) -> None:
    wait(host, f"{SSH} -p {other['port']} deploy@{other['ip']} true", timeout=120)


def containers_are_up(host: dict[str, Any]) -> None:
    """The server's and the agent's containers run, and the server's is that of the host's system."""
    if host["server"]:
        name = host["server"]["name"]
        wait(host, f"systemctl is-active container@{name}.service")
        conf = f"/run/current-system/etc/nixos-containers/{name}.conf"
        wait(
            host,
            f'test "$(readlink -f "$(sed -n s/^SYSTEM_PATH=//p {conf})")"'
            f' = "$({inside(host, "readlink -f /run/current-system")})"',
        )
        wait(host, inside(host, "systemctl is-active k3s.service"))
    if host["agent"]:
        name = host["agent"]["name"]
        wait(host, f"systemctl is-active podman-{name}.service")
        wait(host, f"podman inspect --format '{{{{.State.Running}}}}' {name} | grep -x true")


def server_is_ready(host: dict[str, Any]) -> None:
    wait(host, f'test "$({inside(host, "k3s kubectl get --raw=/readyz")})" = ok')


def members_are(plan: dict[str, Any]) -> None:
    """etcd's members are the plan's servers, all started, none a learner."""
    servers = [host for host in plan["hosts"] if host["server"]]
    for host in servers:
        list_members = inside(host, "etcdctl member list")
        wait(host, f'test "$({list_members} | grep -c ", started, .*, false$")" = {len(servers)}')
        wait(host, f'test "$({list_members} | wc -l)" = {len(servers)}')
        for other in servers:
            wait(host, f"{list_members} | grep -E ', {other['server']['name']}-[0-9a-f]{{8}}, '")


def nodes_are_ready(plan: dict[str, Any]) -> None:
    asked = next(host for host in plan["hosts"] if host["server"])
    for host in plan["hosts"]:
        if host["agent"]:
            wait(asked, inside(asked, f"k3s kubectl get node {host['agent']['name']} --no-headers") + " | grep -w Ready")


def nothing_failed(host: dict[str, Any]) -> None:
    # a unit that is started again and again is not failed all the time
    failed = "systemctl list-units --state=failed --no-legend --plain"
    wait(host, f'{failed} >&2; test -z "$({failed})"', timeout=120)


def is_healthy(plan: dict[str, Any]) -> None:
    hosts = plan["hosts"]
    with subtest("the hosts are up"):
        for host in hosts:
            is_up(host)
    with subtest("each host reaches every other one by ssh"):
        for host in hosts:
            for other in hosts:
                if host is not other:
                    reaches(host, other)
    with subtest("the containers are up"):
        for host in hosts:
            containers_are_up(host)
    if any(host["server"] for host in hosts):
        with subtest("the servers are ready"):
            for host in hosts:
                if host["server"]:
                    server_is_ready(host)
        with subtest("the servers are the members of etcd"):
            members_are(plan)
        with subtest("the Nodes are ready"):
            nodes_are_ready(plan)
    with subtest("no unit has failed"):
        for host in hosts:
            nothing_failed(host)


def change(plan: dict[str, Any], waves: list[dict[str, Any]], systems: dict[str, str]) -> None:
    """Brings the hosts to another plan, in the order of a deployment. A host that is new starts with it."""
    hosts = {host["name"]: host for host in plan["hosts"]}
    running = [host["name"] for host in rehearsal["plan"]["hosts"]]
    for wave in waves:
        with subtest(f"change: {wave['kind']}: {' '.join(wave['hosts'])}"):
            for name in wave["hosts"]:
                if name not in hosts:
                    continue  # it is not rehearsed
                if name in running:
                    by_name[name].succeed(f"{systems[name]}/bin/switch-to-configuration test")
                else:
                    by_name[name].start()
                    is_up(hosts[name])
                containers_are_up(hosts[name])
                if hosts[name]["server"]:
                    server_is_ready(hosts[name])
                nothing_failed(hosts[name])


for host in rehearsal["plan"]["hosts"]:
    by_name[host["name"]].start()
is_healthy(rehearsal["plan"])
if rehearsal["change"]:
    change(**rehearsal["change"])
    with subtest("after the change"):
        is_healthy(rehearsal["change"]["plan"])
