# What a host says about itself to those who deploy, reboot and check it: k3splan reads it from the evaluated
# configuration, and other tools from /etc/k3splan/machine.json. The plan has the defaults, and a snippet may
# set each of these options. `lab.machine` is another name for `k3splan.machine`.
{ config, lib, ... }:
let
  inherit (lib) mkOption types;
  row = config.cluster.${config.k3splan.host};
  machine = config.k3splan.machine;

  maybe = type: description: mkOption {
    inherit description;
    type = types.nullOr type;
    default = null;
  };

  healthCheck = types.submodule ({ config, ... }: {
    options = {
      name = mkOption {
        description = "The name of the check, of which the host has no other.";
        type = types.singleLineStr;
      };
      type = mkOption {
        description = "`http` asks for `url`, `tcp` connects to `port`, `command` runs a command that has to succeed, `unit` asks whether a unit of systemd is active.";
        type = types.enum [ "http" "tcp" "command" "unit" ];
      };
      url = maybe types.singleLineStr "The URL of an `http` check, without a login.";
      host = maybe types.singleLineStr "The address or name that a `tcp` check connects to; `null` is the host itself.";
      port = maybe types.port "The port of a `tcp` check.";
      command = maybe types.str "The command of a `command` check, for a POSIX shell.";
      unit = maybe types.singleLineStr "The unit of a `unit` check, such as `nginx.service`.";
      expectStatus = maybe types.ints.positive "The status that an `http` check asks for; `null` is any from 200 to 299.";
      expectBody = maybe types.str "A text that the body of the answer to an `http` check has to contain.";
      insecure = mkOption {
        description = "Whether an `http` check takes any certificate.";
        type = types.bool;
        default = false;
      };
      timeout = mkOption {
        description = "How long the check may take, in seconds.";
        type = types.ints.positive;
        default = 10;
      };
      from = mkOption {
        description = "Where the check is made: on the `host` itself, or on the machine of the `operator`.";
        type = types.enum [ "host" "operator" ];
        default = if config.type == "command" || config.type == "unit" then "host" else "operator";
        defaultText = "`host` for `command` and `unit`, `operator` for `http` and `tcp`";
      };
    };
  });

  options = {
    role = mkOption {
      description = "What the host is for, in a word or a few.";
      type = types.singleLineStr;
      default = row.role;
      defaultText = "the column `role` of plans/hosts.csv";
    };
    groups = mkOption {
      description = "Groups of the host. The hosts of a group reboot one at a time.";
      type = types.listOf types.singleLineStr;
      default = row.groups;
      defaultText = "the column `groups` of plans/hosts.csv";
    };
    rebootOrder = mkOption {
      description = "Hosts with a lower number reboot earlier.";
      type = types.int;
      default = row.reboot_order;
      defaultText = "the column `reboot_order` of plans/hosts.csv, or 100";
    };
    dependencies = mkOption {
      description = "Names of hosts that have to be healthy before this one reboots.";
      type = types.listOf types.singleLineStr;
      default = row.depends_on;
      defaultText = "the column `depends_on` of plans/hosts.csv";
    };
    healthChecks = mkOption {
      description = "How to tell that the host does its work.";
      type = types.listOf healthCheck;
      default = row.checks;
      defaultText = "the rows of plans/checks.csv for the host";
    };
    orchestration = {
      deployStrategy = mkOption {
        description = "How the hosts of a group are to be deployed. `k3splan deploy` does not act on it yet: each host is deployed as with `rolling`.";
        type = types.enum [ "rolling" "recreate" "blue-green" ];
        default = row.strategy;
        defaultText = "the column `strategy` of plans/hosts.csv, or `rolling`";
      };
      rebootDelay = mkOption {
        description = "Seconds to wait before the host reboots, unless it is the first one.";
        type = types.ints.unsigned;
        default = row.reboot_delay;
        defaultText = "the column `reboot_delay` of plans/hosts.csv, or 600";
      };
      criticalityLevel = mkOption {
        description = "How much depends on the host. A `critical` one reboots alone.";
        type = types.enum [ "low" "medium" "high" "critical" ];
        default = row.criticality;
        defaultText = "the column `criticality` of plans/hosts.csv, or `medium`";
      };
    };
  };
in
{
  imports = [ (lib.mkAliasOptionModule [ "lab" "machine" ] [ "k3splan" "machine" ]) ];

  options.k3splan.machine = mkOption {
    description = "What the host is, what it depends on, when it may be rebooted, and how to tell that it is healthy.";
    type = types.submodule { inherit options; };
    default = { };
  };

  # The names of services are those of systemd.services: to walk config.services would meet removed options,
  # which throw.
  config.environment.etc."k3splan/machine.json".text = builtins.toJSON (machine // {
    host = config.k3splan.host;
    services = builtins.attrNames config.systemd.services;
  });
}
